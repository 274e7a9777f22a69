"""A thread that writes the rows of a study to MLflow while students are trained.

Rows are written in order, with three requests each, and idempotently: a run is found by the tag
`raydc.evaluation_id`, so nothing is recorded twice, even if a process is killed. For SQLite, waiting rows are
combined in transactions of limited duration.

    record() -> queue -> writer thread -> MLflow     rows in the queue are also in the ledger
                            | no answer: waits 1, 2, 4 ... 30 s and tries the same row again
    close()  -> waits for the queue until its patience is exhausted; returns the number of remaining rows
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from raydc.spec.result import LISTS, MEASURES, Row
from raydc.tracking.mlflow_client import AWAY, STATUS, TEXT_TAGS, reason, search
from raydc.tracking.mlflow_params import params
from raydc.tracking.mlflow_transaction import one_transaction, sqlite_store
from raydc.tracking.names import run_name
from raydc.tracking.run_ids import note_run

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 30.0
_REJECTED = (
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "PERMISSION_DENIED",
    "RESOURCE_DOES_NOT_EXIST",
)
TURN_SECONDS, PAUSE_SECONDS = 0.3, 0.12
"""Duration of a transaction of several rows, which locks the database, and the pause before the next one, in
which other processes can write; a process that finds SQLite locked retries every 0.1 s."""
MOST_FAILED_TRANSACTIONS = 3
"""Number of consecutive failed transactions after which rows are written one by one."""
MOST_METRICS = 800
"""Largest number of metrics in one request, which may hold 1,000 metrics, parameters and tags."""
LONGEST_TAG = 5000
"""Largest number of characters of a tag in MLflow."""


class RowWriter:
    """Writes child runs of one MLflow run; see the diagram of the module."""

    def __init__(
        self,
        client: MlflowClient,
        uri: str,
        experiment_id: str,
        parent_id: str,
        folder: Path,
        varying: Sequence[str] = (),
    ) -> None:
        """Read the existing child runs and start the thread; `varying`: keys in the names of new runs."""
        self.client = client
        self.uri = uri
        self.experiment_id = experiment_id
        self.parent_id = parent_id
        self.folder = folder
        self.varying = varying
        self.sqlite = sqlite_store(client)
        self.known = self._children()
        """Child runs by the id of the evaluation or the trajectory that they record."""
        self.done = {name: run.info.status for name, run in self.known.items()}
        """Status of the complete child runs, by the same ids."""
        self.pending = 0
        """Number of rows that are not written yet."""
        self._queue: queue.Queue[Row | None] = queue.Queue()
        self._rejected = 0
        self._attempted = 0
        self._failed_transactions = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="mlflow-writer", daemon=True)
        self._thread.start()

    def _children(self) -> dict[str, Run]:
        """Child runs by the id of the evaluation or the trajectory that they record."""
        query = f"tags.`mlflow.parentRunId` = '{self.parent_id}'"
        found = {}
        for run in search(self.client, self.experiment_id, query):
            tags = run.data.tags
            name = tags.get("raydc.evaluation_id") or tags.get("raydc.trajectory_id")
            if name is not None:
                found[name] = run
        return found

    def record(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if row.get("reused_from") is not None:
                continue  # its own study has recorded it
            with self._lock:
                self.pending += 1
            self._queue.put(row)

    def close(self, patience_seconds: float) -> int:
        """Wait for the queue while rows are written; returns the number of rows that are not recorded."""
        self._closing.set()
        self._queue.put(None)
        now = self._behind(), self._attempted
        while True:
            # While the server answers, wait until all rows are written.
            self._thread.join(patience_seconds)
            before, now = now, (self._behind(), self._attempted)
            if not self._thread.is_alive() or now == before:
                return self._behind()

    def _behind(self) -> int:
        """Number of rows that are not recorded."""
        with self._lock:
            return self.pending + self._rejected

    def _write_all(self) -> None:
        waiting: deque[Row] = deque()
        pause_until = 0.0
        while self._fill(waiting):
            store = self.sqlite
            if store is None:
                rows = [waiting.popleft()]
            else:
                time.sleep(max(0.0, pause_until - time.monotonic()))
                rows = self._write_together(store, waiting)
                pause_until = time.monotonic() + PAUSE_SECONDS
            for row in rows:
                self._write_with_retries(row, may_exist=store is not None)

    def _fill(self, waiting: deque[Row]) -> bool:
        """Take all queued rows, waiting for a row if there is none; returns False at the end of the queue."""
        while not waiting or not self._queue.empty():
            row = self._queue.get()
            if row is None:
                self._queue.put(None)  # for the next call
                break
            waiting.append(row)
        return bool(waiting)

    def _write_together(self, store: SqlAlchemyStore, waiting: deque[Row]) -> list[Row]:
        """Write waiting rows in one transaction; returns them, to be noted, or written alone if it failed."""
        rows: list[Row] = []
        before: dict[str, tuple[Run | None, str | None]] = {}
        until = time.monotonic() + TURN_SECONDS
        try:
            with one_transaction(store):
                while waiting and time.monotonic() < until:
                    name = waiting[0]["evaluation_id"]
                    if name in before:
                        break  # the earlier row of this evaluation is noted first
                    before[name] = self.known.get(name), self.done.get(name)
                    rows.append(waiting.popleft())
                    self._write(rows[-1])
                    self._attempted += 1
            self._failed_transactions = 0
        except Exception as error:  # any error is reported for its row when the row is written alone
            for name, (run, status) in before.items():
                _put(self.known, name, run)
                _put(self.done, name, status)
            self._failed_transactions += 1
            if self._failed_transactions == MOST_FAILED_TRANSACTIONS:
                logger.warning(
                    "MLflow's SQLite does not accept several runs at once (%s); they are written one by one",
                    error,
                )
                self.sqlite = None
        return rows or [waiting.popleft()]

    def _write_with_retries(self, row: Row, *, may_exist: bool) -> None:
        """Write one row, waiting for a server that does not answer; a rejected row is not written.

        `may_exist`: an earlier attempt may have created the run.
        """
        wait = 1.0
        while True:
            try:
                if may_exist:
                    self._find(row["evaluation_id"])
                self._write(row)
                note_run(self.folder, row["evaluation_id"], self.known[row["evaluation_id"]].info.run_id)
                with self._lock:
                    self.pending -= 1
                return
            except AWAY as error:
                may_exist = True
                if self._is_rejection(error):
                    logger.warning("MLflow rejects %s: %s", row["evaluation_id"], error)
                    with self._lock:
                        self._rejected += 1
                        self.pending -= 1
                    return
                if wait == 1.0:
                    logger.warning("%s; the study continues", reason(self.uri, error))
                if self._closing.is_set():
                    time.sleep(1.0)
                else:
                    self._closing.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _is_rejection(self, error: Exception) -> bool:
        """Whether an error is caused by the row itself, so that a retry does not help."""
        if not isinstance(error, MlflowException):
            return False
        # An internal error of a server may be temporary; a local database raises it for an invalid value.
        local = self.uri.startswith("sqlite:") and error.error_code == "INTERNAL_ERROR"
        return local or error.error_code in _REJECTED

    def _find(self, name: str) -> None:
        """Find the run of an evaluation that may have been created by a request whose answer was lost."""
        if name not in self.known:
            query = f"tags.`raydc.evaluation_id` = '{name}'"
            for run in self.client.search_runs([self.experiment_id], query, max_results=1):
                self.known[name] = run

    def _write(self, row: Row) -> None:
        """Create or update the run of a row."""
        name = row["evaluation_id"]
        status = STATUS[row["status"]]
        run = self.known.get(name)
        if run is not None and self.done.get(name) == status:
            return
        tags: list[RunTag] = []
        if run is not None:
            given = self._tags(row)
            if "raydc.error" in run.data.tags and "raydc.error" not in given:
                self.client.delete_tag(run.info.run_id, "raydc.error")
            tags = [RunTag(key, value) for key, value in given.items()]
        else:
            run = self.client.create_run(
                self.experiment_id,
                start_time=int(row["started_at"] * 1000),
                run_name=run_name(row, self.varying),
                tags=self._tags(row),
            )
            self.known[name] = run
        present = run.data.params
        new = [Param(k, v) for k, v in params(row).items() if k not in present]
        log(self.client, run.info.run_id, _metrics(row), new, tags)
        ended = int(row["finished_at"] * 1000)
        self.client.set_terminated(run.info.run_id, status=status, end_time=ended)
        self.done[name] = status

    def _tags(self, row: Row) -> dict[str, str]:
        tags = {
            "mlflow.parentRunId": self.parent_id,
            "raydc.evaluation_id": row["evaluation_id"],
            "raydc.study": row["study"],
        }
        for key in ("protocol_version", "trial", *TEXT_TAGS):
            if row.get(key) is not None:
                tags[f"raydc.{key}"] = str(row[key])[:LONGEST_TAG]
        for key in LISTS:
            if row.get(key) and len(listed := json.dumps(row[key])) <= LONGEST_TAG:
                tags[f"raydc.{key}"] = listed
        return tags


def log(
    client: MlflowClient,
    run_id: str,
    metrics: list[Metric],
    given: Sequence[Param],
    tags: Sequence[RunTag] = (),
) -> None:
    """Log metrics, parameters and tags of a run, with as few requests as possible."""
    client.log_batch(run_id, metrics=metrics[:MOST_METRICS], params=given, tags=tags)
    for first in range(MOST_METRICS, len(metrics), MOST_METRICS):
        client.log_batch(run_id, metrics[first : first + MOST_METRICS])


def _put(table: dict[str, Any], name: str, value: Any) -> None:
    """Set an entry of `table`, or remove it if the value is None."""
    if value is None:
        table.pop(name, None)
    else:
        table[name] = value


def _metrics(row: Row) -> list[Metric]:
    when = int(row["finished_at"] * 1000)
    single = [
        Metric(key, float(row[key]), when, 0)
        for key in (*MEASURES, "attempts")
        if isinstance(row.get(key), int | float)
    ]
    every = row.get("train.test_every") or 0
    accuracies = row.get("test_acc_by_epoch") or ()
    return single + [
        Metric("test_acc_by_epoch", accuracy, when, number * every)
        for number, accuracy in enumerate(accuracies, 1)
    ]
