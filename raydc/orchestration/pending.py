"""The work that points of a search need, made by the student workers without a time limit.

    point --its work is in the store--> queue of students
      | not yet                              ^
      +--> work that can start --> worker ---+ made: the point's evaluations that wait for nothing else
                                     +-------- failed: they fail with its error

Only decisions, which are tested without Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from raydc.spec.plan import Planned
from raydc.store.artifact import Store
from raydc.worker.work import Work

PIECES_TOGETHER = 16
"""Most quick pieces of work that a worker is given at a time."""


class PendingWork:
    """Evaluations that wait for work, and the work that they wait for."""

    def __init__(self, work_of: Callable[[Planned], Sequence[Work]], store: Store, workers: int) -> None:
        """`work_of`: the work that an evaluation waits for; dependencies come first."""
        self._work_of = work_of
        self._store = store
        self._workers = max(1, workers)
        self._waiting: dict[str, tuple[Planned, set[str]]] = {}
        """Evaluations by id, with the work that each waits for."""
        self._left: dict[str, Work] = {}
        """Unfinished work, in the order in which it was requested."""
        self._taken: set[str] = set()
        self._alone: set[str] = set()
        """Work whose worker died, which is handed out alone."""

    def __len__(self) -> int:
        """Number of evaluations that wait."""
        return len(self._waiting)

    def admit(self, evaluations: Iterable[Planned]) -> list[Planned]:
        """The evaluations that can start now; the others wait for their work."""
        ready = []
        for planned in evaluations:
            works = [w for w in self._work_of(planned) if w.id in self._left or not w.is_made(self._store)]
            if not works:
                ready.append(planned)
                continue
            self._waiting[planned.id] = planned, {work.id for work in works}
            for work in works:
                self._left.setdefault(work.id, work)
        return ready

    def take_quick(self) -> list[Work]:
        """A worker's share of the quick pieces of work that can start."""
        able = [work for work in self._able() if not work.trains]
        if able and able[0].id in self._alone:
            return self._give(able[:1])
        able = [work for work in able if work.id not in self._alone]
        return self._give(able[: min(PIECES_TOGETHER, -(-len(able) // self._workers))])

    def take_long(self) -> list[Work]:
        """A piece of work that trains and can start, if there is one."""
        return self._give([work for work in self._able() if work.trains][:1])

    def _able(self) -> list[Work]:
        return [
            work
            for name, work in self._left.items()
            if name not in self._taken and self._left.keys().isdisjoint(work.needs)
        ]

    def _give(self, works: list[Work]) -> list[Work]:
        self._taken |= {work.id for work in works}
        return works

    def put_back(self, work: Work, *, alone: bool) -> None:
        """Put back a piece of work that was taken but not made."""
        self._taken.discard(work.id)
        if alone:
            self._alone.add(work.id)

    def made(self, work: Work) -> list[Planned]:
        """Mark a piece of work as made; returns the evaluations that can start now."""
        self._drop(work.id)
        ready = []
        for planned, left in list(self._waiting.values()):
            left.discard(work.id)
            if not left:
                ready.append(planned)
                del self._waiting[planned.id]
        return ready

    def failed(self, work: Work) -> list[Planned]:
        """Mark a piece of work as failed; returns and removes the evaluations that wait for it."""
        self._drop(work.id)
        lost = [planned for planned, left in self._waiting.values() if work.id in left]
        for planned in lost:
            del self._waiting[planned.id]
        wanted = {name for _, left in self._waiting.values() for name in left}
        for name in self._left.keys() - wanted - self._taken:
            del self._left[name]
        return lost

    def _drop(self, name: str) -> None:
        self._left.pop(name, None)
        self._taken.discard(name)
        self._alone.discard(name)
