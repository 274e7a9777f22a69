"""The summary of a run: counts, times and the exit code."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Summary:
    """What a run did."""

    study: str
    out: Path
    evaluations: int
    """Number of evaluations in the plan."""
    ids: frozenset[str] = frozenset()
    """Ids of the evaluations in the plan."""
    finished: int = 0
    """Number of finished evaluations of the plan after the run."""
    failed: int = 0
    before: int = 0
    """Number of evaluations that were finished before the run began."""
    taken_over: int = 0
    """Number of evaluations reused from other studies."""
    run_now: int = 0
    """Number of evaluations that ended in this run."""
    interrupted: bool = False
    stopped: str | None = None
    """Why the run could not continue, if its store or folder failed; else None."""
    tracker: str = ""
    """Name of the study's tracker in messages, such as MLflow."""
    behind: int = 0
    """Number of results that the tracker does not have yet."""
    wall_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    student_seconds: float = 0.0
    workers: int = 0
    efficiency: float | None = None
    """Student seconds over (workers x wall time) of the evaluation stage."""
    forwarded: int = 0
    """Number of images that teachers labelled in this run."""
    forwards: int = 0
    """Number of images that teachers must label for the study, each (view, checkpoint) once."""
    naive_forwards: int = 0
    """Number of images that they would label if evaluations did not share labels."""
    search: dict[str, Any] | None = None
    """History of a search (raydc.search.history.history_of); None for a grid."""

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        if self.failed or self.stopped:
            return 3
        return 4 if self.behind else 0
