"""What a tracker is: it records a study for others to see, beside the students' path.

A run calls, in this order (`raydc sync` leaves out `used` and `teachers`):

    tracker = factory(context)       the factory that the entry in `raydc.spec.catalog.TRACKERS` names
    start()                          once, before anything else
    describe, record ...             while the study runs; rows as evaluations end
    used, teachers, attach_text      after the last evaluation: what the results come from
    describe, attach                 what came out
    close(status, patience)          once, at the end

The ledger in the study's folder is the truth, so a tracker that lacks a row has lost nothing: the next run
and `raydc sync` give it all rows again. `NoTracker` implements every method as doing nothing; a tracker may
inherit from it and override what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from raydc.spec.keys import Value
from raydc.spec.result import Row

PLANNED = "planned"
"""Measure of the study as a whole: the evaluations of its plan, known when it begins."""


@dataclass(frozen=True)
class TrackerContext:
    """What a tracker is told about the study that it records."""

    study: str
    """Name of the study: letters, digits and `. _ -`."""
    folder: Path
    """The study's folder. It exists; a tracker may keep files of its own in it."""
    uri: str | None = None
    """`tracking.uri` or `--tracking-uri`; None: not given, or not among the keys of the tracker's entry."""
    options: Mapping[str, Value] = field(default_factory=dict)
    """Values of the other keys of the tracker's entry, by name, with defaults filled in."""
    varying: tuple[str, ...] = ()
    """Dotted keys that tell the study's configurations apart, for names of runs and columns of tables."""
    resuming: bool = False
    """Whether the folder holds results already, which the tracker may or may not have recorded."""


@dataclass(frozen=True)
class UsedDataset:
    """The data of a study, as a tracker records them."""

    name: str
    digest: str
    """Fingerprint of the contents."""
    source: str
    """Where they come from."""
    profile: Mapping[str, int]
    """Numbers of images and classes."""


@dataclass(frozen=True)
class TeacherCurve:
    """How a network of a teacher learned."""

    id: str
    """Id of its trajectory."""
    name: str
    keys: Mapping[str, Value]
    """The teacher's keys by dotted name."""
    points: tuple[tuple[int, str, float], ...]
    """(epoch, measure, value)."""


class Tracker(Protocol):
    """Records one study. Never slows a student down, never records an evaluation twice.

    `start` raises `TrackingError` for a place that cannot be reached. After that a tracker handles its own
    errors: it logs a warning, and counts the rows that it could not write in what `close` returns. Any other
    exception ends the run; results in the ledger are kept. All methods are called in the driver process, one
    after the other; the factory and `start` may run in another thread than the rest.
    """

    def start(self) -> None:
        """Reach the place where the study is recorded, and find out what it already has.

        Raises `TrackingError`, in one sentence, if that is not possible: a new study is then refused, one
        that is resumed goes on without its tracker.
        """

    def record(self, rows: Iterable[Row]) -> None:
        """Record rows of results, one per evaluation (columns: docs/results.md).

        Returns at once; slow writing belongs into a thread. Rows that are recorded already are given again
        when a study is resumed and by `raydc sync`: they are recorded once, by `evaluation_id`. A row whose
        status has changed, such as a failed evaluation that is now finished, replaces the one before. Rows
        with `reused_from` were recorded by another study and may be left out.
        """

    def describe(self, measures: Mapping[str, float], note: str | None = None) -> None:
        """Record measures of the study as a whole, by name, and a note about its results in Markdown."""

    def used(self, data: UsedDataset) -> None:
        """Record the data of the study."""

    def teachers(self, curves: Iterable[TeacherCurve]) -> None:
        """Record how the teachers learned; those that are recorded already stay as they are."""

    def attach(self, files: Iterable[Path]) -> None:
        """Attach files and folders to the study; those that do not exist are skipped."""

    def attach_text(self, text: str, name: str) -> None:
        """Attach `text` to the study as a file called `name`."""

    def close(self, status: str, patience_seconds: float) -> int:
        """Finish writing and end the study; returns how many rows are not recorded.

        `status`: finished, failed (some evaluations failed) or stopped (interrupted; it can be resumed).
        Waits as long as rows get written, but gives up when none was for `patience_seconds`.
        """


class NoTracker:
    """Records nothing."""

    def __init__(self, context: TrackerContext | None = None) -> None:
        """A factory of trackers, as entries name it; `context` is not needed."""

    def start(self) -> None:
        return

    def record(self, rows: Iterable[Row]) -> None:
        return

    def describe(self, measures: Mapping[str, float], note: str | None = None) -> None:
        return

    def used(self, data: UsedDataset) -> None:
        return

    def teachers(self, curves: Iterable[TeacherCurve]) -> None:
        return

    def attach(self, files: Iterable[Path]) -> None:
        return

    def attach_text(self, text: str, name: str) -> None:
        return

    def close(self, status: str, patience_seconds: float) -> int:
        del status, patience_seconds
        return 0
