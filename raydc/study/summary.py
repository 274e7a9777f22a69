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
    """In the plan."""
    ids: frozenset[str] = frozenset()
    """Of the evaluations in the plan."""
    finished: int = 0
    """Of the plan, after the run."""
    failed: int = 0
    before: int = 0
    """Finished before the run began."""
    taken_over: int = 0
    """Finished in other studies."""
    run_now: int = 0
    """Evaluations that ended in this run."""
    interrupted: bool = False
    stopped: str | None = None
    """Why the run could not go on, where it was ended by its store or its folder."""
    tracker: str = ""
    """What messages call the study's tracker, such as MLflow."""
    behind: int = 0
    """Results that the tracker does not have yet."""
    wall_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    student_seconds: float = 0.0
    workers: int = 0
    efficiency: float | None = None
    """Student seconds over (workers x wall time) of the evaluation stage."""
    forwarded: int = 0
    """Images that teachers labelled in this run."""
    forwards: int = 0
    """Images that teachers must label for the study, each (view, checkpoint) once."""
    naive_forwards: int = 0
    """Images that they would label if every evaluation had its own labelled anew."""
    search: dict[str, Any] | None = None
    """What a search has found (raydc.searching.history_of)."""

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        if self.failed or self.stopped:
            return 3
        return 4 if self.behind else 0
