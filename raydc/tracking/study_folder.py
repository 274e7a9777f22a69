"""A study's folder: its files, and the lock that allows one writer.

DIR/study.yaml       the merged study file
DIR/plan.json        the counts of the plan
DIR/ledger.jsonl     the results (raydc.tracking.ledger)
DIR/tracked.jsonl    MLflow run ids of evaluations
DIR/mlflow.db        MLflow's database, if the study has no tracking server
DIR/results.parquet  the table of results
DIR/report.html      the report
DIR/figures          the figures of the report as image files
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raydc.errors import InputError
from raydc.files.atomic import write_atomically
from raydc.files.full_disk import writing_folder
from raydc.files.plain_json import parse_json
from raydc.spec.result import Row, columns
from raydc.spec.tracking_block import KIND
from raydc.spec.yaml_file import parse_yaml, read_text
from raydc.tracking.ledger import FILE as LEDGER
from raydc.tracking.ledger import read_rows
from raydc.tracking.run_ids import run_ids

STUDY, RESULTS, REPORT, LOCK = "study.yaml", "results.parquet", "report.html", ".lock"
PLAN = "plan.json"
FIGURES = "figures"
LOCK_TRIES = 5
"""Attempts to get the lock, since a watcher holds it for a moment."""


def default_store(out: Path) -> str:
    """RAYDC_STORE if it is set, else `.raydc-store` next to the output folder."""
    return os.environ.get("RAYDC_STORE") or str(out.absolute().parent / ".raydc-store")


def store_of(out: Path) -> str:
    """The store of the study in a folder."""
    block = _study(out).get("store")
    given = block.get("uri") if isinstance(block, dict) else None
    return str(given) if given else default_store(out)


def prepare(out: Path, study: str) -> None:
    """Create the folder; raises `InputError` if it holds another study or other files."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out is {str(out)!r}, which cannot be created: {error.strerror}") from None
    name = study_name(out)
    if name is not None and name != study:
        raise InputError(
            f"--out is {str(out)!r}, which holds the study {name!r}; give {study!r} another folder"
        )
    existing = [path.name for path in out.iterdir() if path.name != LOCK]
    if name is None and existing and LEDGER not in existing:
        raise InputError(
            f"--out is {str(out)!r}, which holds other files ({sorted(existing)[0]}); give an empty or a "
            "new folder"
        )


def study_name(out: Path) -> str | None:
    """Name of the study in a folder, or None if there is none."""
    name = _study(out).get("name")
    return None if name is None else str(name)


def _study(out: Path) -> dict[str, Any]:
    """The study file in a folder; empty if there is none."""
    path = out / STUDY
    content = parse_yaml(read_text(path), str(path)) if path.is_file() else None
    return content if isinstance(content, dict) else {}


def tracker_kind(out: Path) -> str:
    """Kind of the tracker of the study in a folder."""
    block = _study(out).get("tracking")
    return str(block.get("kind", KIND.default)) if isinstance(block, dict) else str(KIND.default)


def write_plan(out: Path, numbers: Mapping[str, Any]) -> None:
    """Write the counts of the plan by name, including `evaluations`."""
    write_atomically(out / PLAN, (json.dumps(numbers, indent=1) + "\n").encode())


def planned(out: Path) -> int | None:
    """Number of planned evaluations; None if the folder has no plan."""
    path = out / PLAN
    if not path.is_file():
        return None
    try:
        return int(parse_json(read_text(path))["evaluations"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: it is not a plan ({error}); run the study again") from None


def is_going(out: Path) -> bool:
    """Whether a run holds the folder's lock."""
    path = out / LOCK
    if not path.is_file():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Prevent other runs from writing the folder; the lock is released when the process ends."""
    with writing_folder(out):
        file: IO[str] = (out / LOCK).open("a+")
    try:
        if not any(_lock(file, wait) for wait in [0.0] + [0.1] * (LOCK_TRIES - 1)):
            raise InputError(
                f"--out is {str(out)!r}, where another run is active; wait for it or give another folder"
            )
        yield
    finally:
        file.close()


def _lock(file: IO[str], wait_seconds: float) -> bool:
    """Try to get the lock after a wait; returns whether this was possible."""
    time.sleep(wait_seconds)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def read_folder(out: Path) -> list[Row]:
    """The rows of a study's folder, also during a run or after a kill."""
    if not (out / LEDGER).is_file() and study_name(out) is None:
        raise InputError(
            f"{str(out)!r} holds no study; give the folder of a run, such as runs/quickstart, or "
            "mlflow:EXPERIMENT"
        )
    return with_run_ids(out, read_rows(out))


def with_run_ids(out: Path, rows: Mapping[str, Row]) -> list[Row]:
    """The rows of a ledger with the ids of the MLflow runs that record them."""
    tracked = run_ids(out)
    return [{**row, "mlflow_run_id": tracked.get(name)} for name, row in rows.items()]


def table(rows: list[Row]) -> pd.DataFrame:
    """Rows as the table of results: all columns, None where they do not apply."""
    names = columns(rows)
    frame = pd.DataFrame({n: pd.Series([r.get(n) for r in rows], dtype=object) for n in names})
    return frame.infer_objects()


def arrow_table(rows: list[Row]) -> pa.Table:
    """Rows as an Arrow table; columns of mixed types are converted to strings."""
    arrays = {}
    for name in columns(rows):
        values = [row.get(name) for row in rows]
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            arrays[name] = pa.array([None if v is None else str(v) for v in values])
    return pa.table(arrays)


def write_results(out: Path, rows: list[Row]) -> Path:
    """Write results.parquet atomically."""
    buffer = io.BytesIO()
    pq.write_table(arrow_table(rows), buffer)
    write_atomically(out / RESULTS, buffer.getvalue())
    return out / RESULTS
