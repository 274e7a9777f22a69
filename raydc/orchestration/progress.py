"""Progress of a run: events and step rates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from raydc.spec.result import Row

RECENT_SECONDS = 600.0
"""Window of the rate; older steps do not count."""


class Progress(Protocol):
    """An observer of a run; all calls come from the driver's thread."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """A stage with `total` units of work starts; the previous one has ended."""

    def advance(
        self, done: float, detail: str = "", *, total: int | None = None, per_minute: float | None = None
    ) -> None:
        """Report the progress of the stage; `total`: its units, if they were not known before."""

    def results(self, rows: Sequence[Row], seconds_left: float | None) -> None:
        """Evaluations have ended; how long the rest will take, once that is known."""

    def beside(self, text: str) -> None:
        """Show work that is made while evaluations run, such as `sets: 120/200 steps`; empty if none is."""

    def note(self, text: str) -> None:
        """Show a message on its own line."""


class Silent:
    """A progress observer that shows nothing."""

    def stage(self, name: str, total: int, unit: str) -> None:
        return

    def advance(
        self, done: float, detail: str = "", *, total: int | None = None, per_minute: float | None = None
    ) -> None:
        return

    def results(self, rows: Sequence[Row], seconds_left: float | None) -> None:
        return

    def beside(self, text: str) -> None:
        return

    def note(self, text: str) -> None:
        return


class Steps:
    """Steps of several pieces of work, and their rate."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self._reported: set[str] = set()
        self._made: deque[tuple[float, int]] = deque()
        self._sum = 0

    def begin(self, piece: str, total: int) -> None:
        """Add a piece of work with `total` steps, none of which is done."""
        self._done[piece], self._total[piece] = 0, total

    def report(self, now: float, piece: str, done: int, total: int) -> None:
        """Report that `done` steps of a piece are done at the time `now`, in seconds.

        Steps done at its first report are from an earlier run and do not count for the rate.
        """
        known = piece in self._reported
        self._reported.add(piece)
        self._count(now, piece, done, total, counts=known)

    def finish(self, now: float, piece: str) -> None:
        """Mark a piece of work as ended."""
        self._count(now, piece, self._total[piece], self._total[piece], counts=True)

    def _count(self, now: float, piece: str, done: int, total: int, *, counts: bool) -> None:
        gained = max(0, done - self._done[piece])
        self._done[piece] += gained
        self._total[piece] = max(total, self._done[piece])
        self._sum += gained if counts else 0
        self._made.append((now, self._sum))
        while self._made[-1][0] - self._made[0][0] > RECENT_SECONDS:
            self._made.popleft()

    def of(self, pieces: Iterable[str]) -> tuple[int, int]:
        """(steps done, steps in total) of some pieces."""
        names = list(pieces)
        return sum(self._done[name] for name in names), sum(self._total[name] for name in names)

    @property
    def done(self) -> int:
        """Number of steps that are done."""
        return sum(self._done.values())

    @property
    def total(self) -> int:
        """Number of steps of all pieces."""
        return sum(self._total.values())

    @property
    def per_minute(self) -> float | None:
        """Recent steps per minute; None before two reports."""
        if len(self._made) < 2 or self._made[-1][0] <= self._made[0][0]:
            return None
        (first, before), (last, after) = self._made[0], self._made[-1]
        return 60 * (after - before) / (last - first)
