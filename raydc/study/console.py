"""Progress of a run: bars in a terminal, lines in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from raydc.spec.quantities import duration
from raydc.spec.result import FAILED, FINISHED, Row
from raydc.study.pace import per_minute, rate

LINE_SECONDS = 5.0
"""Minimum time between two lines without a terminal."""


class LiveProgress:
    """Shows one bar per stage in a terminal, or a line from time to time without one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                SpinnerColumn(finished_text="[green]✓"),
                TextColumn("{task.description:<12}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                console=console,
            )
        self._task: TaskID | None = None
        self._name, self._total, self._unit = "", 0, ""
        self._times: list[float] = []
        self._spoke = 0.0
        self._said = ""
        self._counted = ""
        self._done = self._failed = 0
        self._best: float | None = None
        self._beside = ""

    def __enter__(self) -> LiveProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def stage(self, name: str, total: int, unit: str) -> None:
        self._finish_stage()
        self._name, self._total, self._unit = name, total, unit
        self._done = self._failed = 0
        self._times = []
        if self._live is not None:
            self._task = self._live.add_task(name, total=total, detail=unit)
        else:
            self._say(f"{name}: {total} {unit}", always=True)
            self._counted = self._count(0)  # this line already shows the count

    def _finish_stage(self) -> None:
        if self._live is not None and self._task is not None and self._name != "evaluations":
            self._live.update(self._task, completed=self._total, detail=self._unit)

    def advance(
        self, done: float, detail: str = "", *, total: int | None = None, per_minute: float | None = None
    ) -> None:
        self._total = self._total if total is None else total
        pace = None if per_minute is None else f"{rate(per_minute)}/min"
        if self._live is not None and self._task is not None:
            text = ", ".join(part for part in (detail or self._unit, pace) if part)
            self._live.update(self._task, completed=done, total=self._total, detail=text)
            return
        count = self._count(done)  # a change of the rate alone is not shown
        if count != self._counted and self._say(", ".join(part for part in (count, pace) if part)):
            self._counted = count

    def _count(self, done: float) -> str:
        return f"{self._name}: {done:g}/{self._total} {self._unit}"

    def results(self, rows: Sequence[Row], seconds_left: float | None) -> None:
        self._done += len(rows)
        self._times += [time.monotonic()] * len(rows)
        self._failed += sum(1 for row in rows if row["status"] == FAILED)
        for row in rows:
            if row["status"] == FINISHED:
                quality = row["test_acc"] if row.get("val_acc") is None else row["val_acc"]
                self._best = max(self._best or 0.0, quality)
            elif self._failed <= 3:
                self.note(f"failed: {row['evaluation_id']}: {row['error']}")
        self._show_results(seconds_left)

    def beside(self, text: str) -> None:
        if text == self._beside:
            return
        self._beside = text
        if self._live is not None:
            self._show_results(None)
        elif text:
            self._say(text)

    def _show_results(self, seconds_left: float | None) -> None:
        """Show the number of ended evaluations, as a bar or a line."""
        parts = []
        if (pace := per_minute(self._times)) is not None:
            parts.append(f"{rate(pace)}/min")
        if self._best is not None:
            parts.append(f"best {100 * self._best:.1f} %")
        if self._failed:
            parts.append(f"{self._failed} failed")
        if seconds_left is not None and self._done < self._total:
            parts.append(f"{duration(seconds_left)} left")
        if self._live is not None and self._task is not None:
            parts += [self._beside] if self._beside else []
            self._live.update(self._task, completed=self._done, detail=", ".join(parts))
        else:
            last = self._done >= self._total
            text = ", ".join([f"{self._name}: {self._done}/{self._total}", *parts])
            self._say(text, always=last)

    def note(self, text: str) -> None:
        self._say(text, always=True)

    def _say(self, text: str, always: bool = False) -> bool:
        """Print a line if it is new and the last one is old enough; with `always`, print it at once.

        Returns whether it was printed.
        """
        now = time.monotonic()
        if always or (text != self._said and now - self._spoke > LINE_SECONDS):
            self._spoke, self._said = now, text
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
            return True
        return False
