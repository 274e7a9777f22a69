"""Reading MLflow: the rows of an experiment, including those of other tools, and the progress of a study."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow.entities import Run

from raydc.errors import InputError, TrackingError, without_password
from raydc.spec.result import LISTS, MEASURES, RECORD, Row
from raydc.tracking.mlflow_client import AWAY, STATUS, TEXT_TAGS, client_of, quiet, reason, search
from raydc.tracking.mlflow_params import value_of
from raydc.tracking.tracker import PLANNED

_EXIT_CODES = {"FINISHED": 0, "FAILED": 3, "KILLED": 130}
"""Exit code of a run of raydc, by the status of the study's run in MLflow."""
_ENDED = tuple(_EXIT_CODES)
NEEDED = ("seed", "images.ipc")
"""Parameters that a run of another tool needs to count as an evaluation."""


@dataclass(frozen=True)
class Record:
    """The contents of an experiment in MLflow at one moment."""

    name: str
    rows: list[Row]
    """Rows of all finished and failed runs, including those of other tools."""
    planned: int | None
    """Number of planned evaluations, if the experiment is a study of raydc."""
    running: int | None
    """Number of evaluations that are being logged by other tools; raydc logs evaluations when they end."""
    exit_code: int | None
    """Exit code of the study's run, except 4; None while it is running."""


def read_experiment(name: str, uri: str) -> list[Row]:
    """Rows of all finished and failed runs of an MLflow experiment, including those of other tools.

    Raises `InputError` if there is no such experiment, `TrackingError` if MLflow does not answer.
    """
    return read_record(name, uri).rows


def read_record(name: str, uri: str) -> Record:
    """The contents of an experiment; raises the same errors as `read_experiment`."""
    quiet()
    try:
        client = client_of(uri)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise InputError(f"there is no MLflow experiment {name!r} at {without_password(uri)}")
        runs = list(search(client, experiment.experiment_id, ""))
    except AWAY as error:
        raise TrackingError(reason(uri, error)) from None
    evaluations = [run for run in runs if _is_evaluation(run)]
    ended = [run for run in evaluations if run.info.status in _ENDED]
    rows = [_row(run, name) for run in ended]
    study = next((run for run in runs if run.data.tags.get("raydc.role") == "study"), None)
    if study is not None:
        planned = study.data.metrics.get(PLANNED)
        code = _EXIT_CODES.get(study.info.status)
        return Record(name, rows, None if planned is None else int(planned), None, code)
    running = len(evaluations) - len(ended)
    failed = any(run.info.status != "FINISHED" for run in ended)
    return Record(name, rows, None, running, None if running else 3 if failed else 0)


def _is_evaluation(run: Run) -> bool:
    """Whether a run is an evaluation of raydc, or of another tool that logged the same keys."""
    named = "raydc.evaluation_id" in run.data.tags
    return named or ("raydc.role" not in run.data.tags and all(key in run.data.params for key in NEEDED))


def _row(run: Run, experiment: str) -> Row:
    tags, metrics = run.data.tags, run.data.metrics
    row: Row = {
        "evaluation_id": tags.get("raydc.evaluation_id", run.info.run_id),
        "study": tags.get("raydc.study", experiment),
    }
    row |= {key: value_of(text) for key, text in run.data.params.items()}
    row["status"] = next(status for status, name in STATUS.items() if name == run.info.status)
    row |= {key: metrics.get(key) for key in MEASURES if key not in ("device", "engine", *LISTS)}
    row |= {key: value_of(tags.get(f"raydc.{key}", "null")) for key in LISTS}
    for key in (*RECORD, "device", "engine"):
        if (tag := tags.get(f"raydc.{key}")) is not None:
            row[key] = tag if key in TEXT_TAGS else value_of(tag)
    row["mlflow_run_id"] = run.info.run_id
    row["started_at"] = run.info.start_time / 1000
    row["finished_at"] = run.info.end_time / 1000 if run.info.end_time else None
    row["attempts"] = int(metrics.get("attempts", 1))
    for key in ("images_bytes", "labels_bytes", "steps"):
        if row.get(key) is not None:
            row[key] = int(row[key])
    return row
