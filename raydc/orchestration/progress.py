"""What a run tells while it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from raydc.spec.result import Row


class Progress(Protocol):
    """Someone who watches a run; all calls come from the driver's thread."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """A stage with `total` units of work begins; the one before has ended."""

    def advance(self, done: float, detail: str = "") -> None:
        """So much of the stage is done."""

    def results(self, rows: Sequence[Row], seconds_left: float | None) -> None:
        """Evaluations have ended; how long the rest will take, once that is known."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class Silent:
    """Watches and says nothing."""

    def stage(self, name: str, total: int, unit: str) -> None:
        return

    def advance(self, done: float, detail: str = "") -> None:
        return

    def results(self, rows: Sequence[Row], seconds_left: float | None) -> None:
        return

    def note(self, text: str) -> None:
        return
