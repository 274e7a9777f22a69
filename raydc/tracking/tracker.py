"""Trackers: the public record of a study, written beside the students' path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from raydc.result import Row


class Tracker(Protocol):
    """Records rows somewhere public; never slows a student, never loses a row for good."""

    def start(self) -> None:
        """Reach the record and find out what it has; `TrackingError` if it does not answer."""

    def record(self, rows: Iterable[Row]) -> None:
        """Record rows soon; returns at once."""

    def describe(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Add facts about the study as a whole."""

    def attach(self, files: Iterable[Path]) -> None:
        """Attach files to the study."""

    def close(self, status: str, patience_seconds: float) -> int:
        """Finish writing, for at most `patience_seconds`; returns how many rows are missing."""


class NoTracker:
    """Records nothing."""

    def start(self) -> None:
        return

    def record(self, rows: Iterable[Row]) -> None:
        return

    def describe(self, metrics: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        return

    def attach(self, files: Iterable[Path]) -> None:
        return

    def close(self, status: str, patience_seconds: float) -> int:
        del status, patience_seconds
        return 0
