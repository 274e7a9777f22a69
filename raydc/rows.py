"""Results from wherever they are: a study's folder, or an MLflow experiment."""

from __future__ import annotations

from pathlib import Path

from raydc.errors import InputError
from raydc.folder import read_folder
from raydc.result import Row

MLFLOW = "mlflow:"


def load_rows(where: str, tracking_uri: str | None = None) -> list[Row]:
    """Rows of a study's folder, or of `mlflow:EXPERIMENT` at `tracking_uri`.

    Results that others logged with the same keys are as good as ours. Raises `InputError` if there is
    nothing there, `TrackingError` if MLflow does not answer.
    """
    if where.startswith(MLFLOW):
        if tracking_uri is None:
            raise InputError(f"{where} needs --tracking-uri, which says where MLflow is")
        from raydc.tracking.mlflow_tracker import read_experiment

        return read_experiment(where.removeprefix(MLFLOW), tracking_uri)
    return read_folder(Path(where))
