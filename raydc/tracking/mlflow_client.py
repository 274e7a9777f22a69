"""Access to MLflow: its default URI, its client, and error messages if it does not answer."""

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

# raydc retries failed requests itself, because a request whose answer was lost may have succeeded.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# MLflow would print two lines per evaluation, including the password if the URI contains one.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event

PAGE = 500
"""Runs per page: a server needs 5 ms per run, so a much slower one still answers before the timeout."""
AWAY = (MlflowException, requests.RequestException, OSError)
"""Exceptions that are raised if MLflow does not answer."""
STATUS = {FINISHED: "FINISHED", FAILED: "FAILED", STOPPED: "KILLED"}
"""MLflow's status of a run, by the status of a row."""
TEXT_TAGS = ("raydc_version", "device", "engine", "dataset_id", "set_id", "labels_id", "error")
"""Columns that child runs store as tags of text, even if the text looks like a number."""


def default_uri(folder: Path) -> str:
    """The URI of a SQLite database in the study's folder."""
    return f"sqlite:///{folder.absolute() / 'mlflow.db'}"


def quiet() -> None:
    """Suppress log messages about migrations of a new database and tracebacks of a full one."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Database errors are also raised, and reported once.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def client_of(uri: str) -> MlflowClient:
    """A client for the MLflow at `uri`, after checking that it answers; raises `TrackingError`."""
    probe(uri)
    named = uri.partition("///")[2]
    if uri.startswith("sqlite:") and named in ("", ":memory:"):
        raise TrackingError(
            f"the tracking URI is {uri!r}, which has no file; give one, such as sqlite:////data/mlflow.db"
        )
    file = Path(named)
    if uri.startswith("sqlite:") and not file.parent.is_dir():
        raise TrackingError(
            f"the tracking URI is {uri!r}, but there is no folder {str(file.parent)!r}; make it"
        )
    try:
        if uri.startswith("sqlite:") and "?" not in uri and not file.exists():
            _create_database(file)
        return MlflowClient(tracking_uri=uri)
    except Exception as error:  # a database driver may raise any error
        raise TrackingError(reason(uri, error)) from None


def _create_database(file: Path) -> None:
    """Create MLflow's tables in a new SQLite file, atomically.

    MLflow creates them in about fifty migrations, and cannot open a database whose migrations were
    interrupted by a kill or a full disk. So the file is created under another name and renamed when it is
    complete. It is synced once instead of after each migration, which would take most of the time.
    """
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.{os.getpid()}")
    for leftover in file.parent.glob(f".{file.name}.*"):
        owner = leftover.name.rpartition(".")[2].partition("-")[0]  # SQLite's journals have a suffix
        if not Path("/proc", owner).exists():
            leftover.unlink(missing_ok=True)  # left by a process that was killed

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
            pass  # another process has created it
        except OSError:  # a file system without hard links
            draft.rename(file)
    finally:
        event.remove(Engine, "connect", unsynced)
        draft.unlink(missing_ok=True)


def reason(uri: str, error: Exception) -> str:
    """The message that MLflow does not answer, without the password of the URI."""
    text = " ".join(re.sub(r"(://[^/\s:@]*):[^/\s]*@", r"\1@", str(error)).split())
    return f"MLflow at {without_password(uri)} does not answer ({text[:200]})"


def search(client: MlflowClient, experiment: str, query: str) -> Iterator[Run]:
    """All runs of an experiment that match a query, each once, fetched page by page."""
    token = None
    seen: set[str] = set()
    while True:
        page = client.search_runs([experiment], query, max_results=PAGE, page_token=token)
        for run in page:
            # The newest runs come first, so a run that was created meanwhile shifts runs to the next page.
            if run.info.run_id not in seen:
                seen.add(run.info.run_id)
                yield run
        token = page.token
        if not token:
            return
