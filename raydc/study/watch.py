"""Progress of a study, read from its folder or from MLflow.

A local study is running while its run holds the folder's lock; one in MLflow while its own run there is
RUNNING. MLflow shows what the writer has recorded, and a run that was killed stays RUNNING there, which
`last_at` reveals.
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
    """Number of evaluations in the plan; None if no plan is recorded."""
    finished: int
    failed: int
    stopped: int
    """Number of evaluations stopped early by a pruner."""
    running: int | None
    """Number of evaluations that are being trained; None if not recorded."""
    per_minute: float | None
    """Recent rate of ended evaluations per minute; None if fewer than two ended."""
    seconds_left: float | None
    best: float | None
    """The highest validation accuracy, or test accuracy if there is no validation."""
    best_name: str | None
    failures: tuple[Failure, ...]
    """The latest failures, newest first."""
    last_at: float | None
    """When the last evaluation ended."""
    exit_code: int | None
    """Exit code of the run; None while it is running. 4 is only known for the tracker MLflow."""
    tracker: str | None = None
    """Kind of the tracker; None if the state was read from MLflow."""

    @property
    def behind_is_unknown(self) -> bool:
        """Whether the tracker may lack results, which the study's folder does not show."""
        return self.tracker not in (None, MLFLOW_KIND, "none")

    @property
    def ended(self) -> int:
        """Number of evaluations that have ended."""
        return self.finished + self.failed + self.stopped

    def row(self) -> dict[str, Any]:
        """The state as a JSON object."""
        return asdict(self)


def state_of(where: str, tracking_uri: str | None = None) -> State:
    """The state of a study's folder, or of `mlflow:EXPERIMENT` at `tracking_uri`.

    Raises `InputError` if there is no study, `TrackingError` if MLflow does not answer.
    """
    return _recorded(where, tracking_uri) if where.startswith(MLFLOW) else _local(Path(where))


def _local(out: Path) -> State:
    """The state of a study's folder; `InputError` if it contains no study."""
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
    """The exit code of `raydc run`, inferred from its results."""
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
    # Results reused from other studies did not end in this run.
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
    """The accuracy that evaluations are ranked by; None if an external run logged neither."""
    value = row.get("val_acc")
    return row.get("test_acc") if value is None else value


def _ended_at(row: Row) -> float:
    """When an evaluation ended, or started if an externally failed run has no end time."""
    return float(row["started_at"] if row["finished_at"] is None else row["finished_at"])
