"""The way to an MLflow record: its address, its client, and what is said when it does not answer."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raydc.errors import TrackingError, without_password
from raydc.spec.result import FAILED, FINISHED, STOPPED
from raydc.tracking.reach import probe

# Failing requests are tried again here, with the study's own patience, and looked after: one whose answer was
# lost may have been heard.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# Two lines an evaluation, with the password of an address that holds one.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event

PAGE = 500
"""Runs in one answer: a server takes 5 ms for a run, so a far slower one still answers in time."""
AWAY = (MlflowException, requests.RequestException, OSError)
"""What is raised where a record does not answer."""
STATUS = {FINISHED: "FINISHED", FAILED: "FAILED", STOPPED: "KILLED"}
"""What MLflow calls each status of a row."""
TEXT_TAGS = ("raydc_version", "device", "engine", "dataset_id", "set_id", "labels_id", "error")
"""Columns that child runs hold as tags of text, whatever the text looks like."""


def default_uri(folder: Path) -> str:
    """SQLite in the study's folder."""
    return f"sqlite:///{folder.absolute() / 'mlflow.db'}"


def quiet() -> None:
    """Keep the migration notes of a new database, and tracebacks of a full one, off the terminal."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # What goes wrong in a database is raised as well, and said once.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def client_of(uri: str) -> MlflowClient:
    """A client of the record at `uri`, which is asked whether it is there first."""
    probe(uri)
    named = uri.partition("///")[2]
    if uri.startswith("sqlite:") and named in ("", ":memory:"):
        raise TrackingError(
            f"the tracking URI is {uri!r}, which names no file, as sqlite:////data/mlflow.db does"
        )
    file = Path(named)
    if uri.startswith("sqlite:") and not file.parent.is_dir():
        raise TrackingError(
            f"the tracking URI is {uri!r}, but there is no folder {str(file.parent)!r}; make it"
        )
    try:
        if uri.startswith("sqlite:") and "?" not in uri and not file.exists():
            _begin_database(file)
        return MlflowClient(tracking_uri=uri)
    except Exception as error:  # whatever a database driver raises, the record cannot be opened
        raise TrackingError(reason(uri, error)) from None


def _begin_database(file: Path) -> None:
    """Make MLflow's tables in a new file of SQLite, all or none.

    They are made in some fifty migrations, and a database in which a kill or a full disk has ended them
    cannot be opened again. So it gets its name when it is complete, and on the disk: once, not after each
    migration, which takes most of the time.
    """
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.{os.getpid()}")
    for left in file.parent.glob(f".{file.name}.*"):
        owner = left.name.rpartition(".")[2].partition("-")[0]  # also of SQLite's journal
        if not Path("/proc", owner).exists():
            left.unlink(missing_ok=True)  # of a process that was killed

    def unsynced(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            (_, _, opened) = connection.execute("PRAGMA database_list").fetchone()
            if Path(opened).name == draft.name:
                connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", unsynced)
    try:
        MlflowClient(tracking_uri=f"sqlite:///{draft}").search_experiments(max_results=1)
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        try:
            file.hardlink_to(draft)
        except FileExistsError:
            pass  # another process was faster
        except OSError:  # a file system without hard links
            draft.rename(file)
    finally:
        event.remove(Engine, "connect", unsynced)
        draft.unlink(missing_ok=True)


def reason(uri: str, error: Exception) -> str:
    """One sentence on a record that does not answer, without its password."""
    text = " ".join(re.sub(r"(://[^/\s:@]*):[^/\s]*@", r"\1@", str(error)).split())
    return f"MLflow at {without_password(uri)} does not answer ({text[:200]})"


def search(client: MlflowClient, experiment: str, query: str) -> Iterator[Run]:
    """All runs of an experiment that match, each once, page by page."""
    token = None
    seen: set[str] = set()
    while True:
        page = client.search_runs([experiment], query, max_results=PAGE, page_token=token)
        for run in page:
            # The latest come first: one that has begun since the last page pushes another into this one.
            if run.info.run_id not in seen:
                seen.add(run.info.run_id)
                yield run
        token = page.token
        if not token:
            return
