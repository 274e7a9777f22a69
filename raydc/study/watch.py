"""How far a study is: from its folder, or from MLflow wherever it runs.

A local study is going while its run holds the folder's lock; one in MLflow while its own run there is
RUNNING. What MLflow has is what the writer has recorded, and a run that was killed stays RUNNING there:
`last_at` shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from raydc.analysis.curves import varying_keys
from raydc.spec.result import FAILED, FINISHED, Row
from raydc.study.pace import per_minute
from raydc.tracking import study_folder, trackers
from raydc.tracking.names import run_name
from raydc.tracking.rows import MLFLOW, experiment_of

MOST_FAILURES = 5
MLFLOW_KIND = "mlflow"
"""The tracker whose run ids the study's folder holds."""


@dataclass(frozen=True)
class Failure:
    """An evaluation that did not finish."""

    evaluation_id: str
    error: str


@dataclass(frozen=True)
class State:
    """A study at one moment; times are seconds since 1970."""

    study: str
    planned: int | None
    """Evaluations of the plan; None where no plan is recorded."""
    finished: int
    failed: int
    stopped: int
    """By a scheduler, before their end."""
    running: int | None
    """Evaluations that are being trained, where the record says so; None where it does not."""
    per_minute: float | None
    """Evaluations that ended a minute, of late; None where fewer than two did."""
    seconds_left: float | None
    best: float | None
    """The highest validation accuracy, or test accuracy where there is no other."""
    best_name: str | None
    failures: tuple[Failure, ...]
    """The latest, newest first."""
    last_at: float | None
    """When the last evaluation ended."""
    exit_code: int | None
    """What the run exited with; None while it is going. 4 is known of MLflow alone."""
    tracker: str | None = None
    """Kind of the tracker; None where the state was read from MLflow."""

    @property
    def behind_is_unknown(self) -> bool:
        """Whether the tracker may lack results, which the study's folder does not show."""
        return self.tracker not in (None, MLFLOW_KIND, "none")

    @property
    def ended(self) -> int:
        """Evaluations that are over."""
        return self.finished + self.failed + self.stopped

    def row(self) -> dict[str, Any]:
        """The state as JSON holds it."""
        return asdict(self)


def state_of(where: str, tracking_uri: str | None = None) -> State:
    """The state of a study's folder, or of `mlflow:EXPERIMENT` at `tracking_uri`.

    Raises `InputError` if there is no study, `TrackingError` if MLflow does not answer.
    """
    return _recorded(where, tracking_uri) if where.startswith(MLFLOW) else _local(Path(where))


def _local(out: Path) -> State:
    """The state of a study's folder; `InputError` if it holds none."""
    rows = study_folder.read_folder(out)
    planned = study_folder.planned(out)
    kind = study_folder.tracker_kind(out)
    behind = kind == MLFLOW_KIND and _behind(rows)
    code = None if study_folder.is_going(out) else _exit_code(rows, planned, behind=behind)
    state = _state(study_folder.study_name(out) or out.name, rows, planned, None, code)
    return replace(state, tracker=kind)


def _behind(rows: Sequence[Row]) -> bool:
    """Whether MLflow lacks results."""
    return any(row["mlflow_run_id"] is None and row.get("reused_from") is None for row in rows)


def _exit_code(rows: Sequence[Row], planned: int | None, *, behind: bool) -> int:
    """What `raydc run` exited with, from what it left."""
    if planned is not None and len(rows) < planned:
        return 130
    if any(row["status"] == FAILED for row in rows):
        return 3
    return 4 if behind else 0


def _recorded(where: str, tracking_uri: str | None) -> State:
    record = trackers.read_record(*experiment_of(where, tracking_uri))
    return _state(record.name, record.rows, record.planned, record.running, record.exit_code)


def _state(
    study: str, rows: Sequence[Row], planned: int | None, running: int | None, exit_code: int | None
) -> State:
    done = [row for row in rows if row["status"] == FINISHED]
    failed = sorted((row for row in rows if row["status"] == FAILED), key=_ended_at, reverse=True)
    best = max((row for row in done if _quality(row) is not None), key=_quality, default=None)
    # Those that were taken over from other studies ended elsewhere.
    rate = per_minute(sorted(_ended_at(row) for row in rows if row.get("reused_from") is None))
    left = None
    if exit_code is None and planned is not None and rate:
        left = 60 * max(0, planned - len(rows)) / rate
    return State(
        study=study,
        planned=planned,
        finished=len(done),
        failed=len(failed),
        stopped=len(rows) - len(done) - len(failed),
        running=running,
        per_minute=rate,
        seconds_left=left,
        best=None if best is None else _quality(best),
        best_name=None if best is None else run_name(best, varying_keys(done)),
        failures=tuple(
            Failure(row["evaluation_id"], str(row.get("error"))) for row in failed[:MOST_FAILURES]
        ),
        last_at=max(map(_ended_at, rows), default=None),
        exit_code=exit_code,
    )


def _quality(row: Row) -> Any:
    """By which evaluations are chosen; None where others logged neither accuracy."""
    value = row.get("val_acc")
    return row.get("test_acc") if value is None else value


def _ended_at(row: Row) -> float:
    """When an evaluation ended; a run that others set to failed may not say it."""
    return float(row["started_at"] if row["finished_at"] is None else row["finished_at"])
