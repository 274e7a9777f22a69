"""Loading results from a study's folder or an MLflow experiment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from raydc.errors import InputError
from raydc.spec.result import Row, check_column
from raydc.spec.yaml_file import parse_yaml
from raydc.tracking import trackers
from raydc.tracking.study_folder import read_folder

MLFLOW = "mlflow:"


def load_rows(where: str, tracking_uri: str | None = None) -> list[Row]:
    """Rows of a study's folder, or of `mlflow:EXPERIMENT` at `tracking_uri`.

    Results that other tools logged with the same keys are treated in the same way. Raises `InputError` if
    there are no results, `TrackingError` if MLflow does not answer.
    """
    if where.startswith(MLFLOW):
        return trackers.read_record(*experiment_of(where, tracking_uri)).rows
    return read_folder(Path(where))


def experiment_of(where: str, tracking_uri: str | None) -> tuple[str, str]:
    """The name of `mlflow:EXPERIMENT` and its tracking URI: `tracking_uri`, or MLFLOW_TRACKING_URI.

    Raises `InputError` if neither is set.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise InputError(f"{where} needs the URI of MLflow; give --tracking-uri or set MLFLOW_TRACKING_URI")
    return where.removeprefix(MLFLOW), uri


def only(rows: Sequence[Row], settings: Iterable[str]) -> list[Row]:
    """The rows that match every `KEY=VALUE` of `settings`; the value is YAML, a list matches any item.

    Raises `InputError` for a setting of another form and for a key that no row has.
    """
    rows = list(rows)
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign:
            raise InputError(f"--only is {setting!r}, but must be KEY=VALUE, such as labels.kind=soft")
        check_column(rows, key)
        value = parse_yaml(text, f"--only {key}")
        allowed = value if isinstance(value, list) else [value]
        rows = [row for row in rows if row.get(key) in allowed]
        if not rows:
            raise InputError(f"--only is {setting!r}, which matches no result; see `raydc results`")
    return rows
