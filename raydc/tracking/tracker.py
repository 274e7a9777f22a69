"""Trackers: the public record of a study, written beside the students' path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raydc.spec.result import Row

PLANNED = "planned"
"""Measure of a study's own run: the evaluations of its plan, known when it begins."""


@dataclass(frozen=True)
class UsedDataset:
    """The data of a study, as a record names them."""

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
    """Of its trajectory."""
    name: str
    keys: Mapping[str, Any]
    """The teacher's keys by dotted name."""
    points: tuple[tuple[int, str, float], ...]
    """(epoch, measure, value)."""


class Tracker(Protocol):
    """Records rows somewhere public; never slows a student, never loses a row for good."""

    def start(self) -> None:
        """Reach the record and find out what it has; `TrackingError` if it does not answer."""

    def record(self, rows: Iterable[Row]) -> None:
        """Record rows soon; returns at once."""

    def describe(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Add facts about the study as a whole."""

    def used(self, data: UsedDataset) -> None:
        """Name the data of the study."""

    def teachers(self, curves: Iterable[TeacherCurve]) -> None:
        """Record how the teachers learned; those that are recorded already stay as they are."""

    def attach(self, files: Iterable[Path]) -> None:
        """Attach files and folders to the study; what is not there is passed over."""

    def attach_text(self, text: str, name: str) -> None:
        """Attach a file made of `text` to the study."""

    def close(self, status: str, patience_seconds: float) -> int:
        """Finish writing, unless nothing gets written for `patience_seconds`; how many rows are missing."""


class NoTracker:
    """Records nothing."""

    def start(self) -> None:
        return

    def record(self, rows: Iterable[Row]) -> None:
        return

    def describe(self, metrics: Mapping[str, Any], tags: Mapping[str, str]) -> None:
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
