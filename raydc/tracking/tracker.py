"""The interface of trackers, which record studies outside the study's folder without delaying students.

A run calls, in this order (`raydc sync` omits `used` and `teachers`):

    tracker = factory(context)       the factory of the entry in `raydc.spec.catalog.TRACKERS`
    start()                          once, before any other method
    describe, record ...             while the study runs; rows when evaluations end
    used, teachers, attach_text      after the last evaluation: data, teachers and environment
    describe, attach                 results
    close(status, patience)          once, at the end

The ledger in the study's folder has all results. If a tracker misses a row, the next run and `raydc sync`
pass all rows again. `NoTracker` implements every method without an effect; a tracker may inherit from it and
override the methods that it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from raydc.spec.keys import Value
from raydc.spec.result import Row

PLANNED = "planned"
"""Measure of the whole study: the number of planned evaluations, known at the start."""


@dataclass(frozen=True)
class TrackerContext:
    """Information about the study that a tracker records."""

    study: str
    """Name of the study: letters, digits and `. _ -`."""
    folder: Path
    """The study's folder. It exists; a tracker may store its own files in it."""
    uri: str | None = None
    """`tracking.uri` or `--tracking-uri`; None if it is not given or not a key of the tracker's entry."""
    options: Mapping[str, Value] = field(default_factory=dict)
    """Values of the other keys of the tracker's entry, by name, with defaults."""
    varying: tuple[str, ...] = ()
    """Dotted keys whose values differ between the study's configurations, for names of runs and columns."""
    resuming: bool = False
    """Whether the folder already has results, which the tracker may or may not have recorded."""


@dataclass(frozen=True)
class UsedDataset:
    """The dataset of a study, for a tracker."""

    name: str
    digest: str
    """Fingerprint of the contents."""
    source: str
    """Location of the data."""
    profile: Mapping[str, int]
    """Numbers of images and classes."""


@dataclass(frozen=True)
class TeacherCurve:
    """The training curve of one network of a teacher."""

    id: str
    """Id of the trajectory."""
    name: str
    keys: Mapping[str, Value]
    """The teacher's keys by dotted name."""
    points: tuple[tuple[int, str, float], ...]
    """(epoch, measure, value)."""


class Tracker(Protocol):
    """Records one study. Never slows a student down, never records an evaluation twice.

    `start` raises `TrackingError` if the tracking server or database cannot be reached. After that a tracker
    handles its own errors: it logs a warning, and `close` returns the number of rows that it could not write.
    Any other exception ends the run; results in the ledger are kept. All methods are called in the driver
    process, one after the other; the factory and `start` may run in a different thread than the others.
    """

    def start(self) -> None:
        """Connect to the server or database, and read what it has already recorded.

        Raises `TrackingError`, with one sentence, if this is not possible: a new study then ends, a resumed
        study continues without its tracker.
        """

    def record(self, rows: Iterable[Row]) -> None:
        """Record rows of results, one per evaluation (columns: docs/results.md).

        Must return immediately; slow writes should use a thread. Rows that are already recorded are passed
        again when a study is resumed and by `raydc sync`; they must be recorded once, by `evaluation_id`. A
        row whose status has changed, such as a failed evaluation that is now finished, replaces the previous
        one. Rows with `reused_from` were recorded by another study and may be omitted.
        """

    def describe(self, measures: Mapping[str, float], note: str | None = None) -> None:
        """Record measures of the whole study, by name, and a note about its results in Markdown."""

    def used(self, data: UsedDataset) -> None:
        """Record the data of the study."""

    def teachers(self, curves: Iterable[TeacherCurve]) -> None:
        """Record the training curves of teachers; curves that are already recorded do not change."""

    def attach(self, files: Iterable[Path]) -> None:
        """Attach files and folders to the study; those that do not exist are skipped."""

    def attach_text(self, text: str, name: str) -> None:
        """Attach `text` to the study as a file called `name`."""

    def close(self, status: str, patience_seconds: float) -> int:
        """Finish writing and end the study; returns the number of rows that are not recorded.

        `status`: finished, failed (some evaluations failed) or stopped (interrupted; it can be resumed).
        Waits as long as rows are written, and gives up when none was written for `patience_seconds`.
        """


class NoTracker:
    """Records nothing."""

    def __init__(self, context: TrackerContext | None = None) -> None:
        """The class is a factory of trackers, see `TrackerEntry`; `context` is not used."""

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
