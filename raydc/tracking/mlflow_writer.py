"""One thread that writes the rows of a study to MLflow, beside the students.

Rows are written in order, in three requests each, and idempotently: a run is found by the tag
`raydc.evaluation_id`, so nothing is recorded twice, whoever was killed when. SQLite takes what waits in
transactions of a bounded time.

    record() -> queue -> writer thread -> MLflow     the queue holds rows, the ledger has them too
                            | no answer: waits 1, 2, 4 ... 30 s and tries the same row again
    close()  -> waits for the queue, at most its patience; what is left is counted, not lost
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
_REFUSED = (
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "PERMISSION_DENIED",
    "RESOURCE_DOES_NOT_EXIST",
)
TURN_SECONDS, PAUSE_SECONDS = 0.3, 0.12
"""How long a transaction of several rows keeps others from the database, and what it leaves them before the
next: who finds SQLite locked looks again every 0.1 s."""
MOST_UNTAKEN = 3
"""Such transactions that fail in a row."""
MOST_METRICS = 800
"""In one request, which takes 1,000 metrics, parameters and tags."""
LONGEST_TAG = 5000
"""Characters that MLflow keeps of a tag."""


class RowWriter:
    """Writes child runs below one run of MLflow; see the module's diagram."""

    def __init__(
        self,
        client: MlflowClient,
        uri: str,
        experiment_id: str,
        parent_id: str,
        folder: Path,
        varying: Sequence[str] = (),
    ) -> None:
        """Begin with the runs that are there; `varying` are the keys that new ones are named by."""
        self.client = client
        self.uri = uri
        self.experiment_id = experiment_id
        self.parent_id = parent_id
        self.folder = folder
        self.varying = varying
        self.sqlite = sqlite_store(client)
        self.known = self._children()
        """Child runs by the evaluation or the trajectory that they record."""
        self.done = {name: run.info.status for name, run in self.known.items()}
        """The status of each that is complete."""
        self.pending = 0
        """Rows that wait for MLflow."""
        self._queue: queue.Queue[Row | None] = queue.Queue()
        self._refused = 0
        self._moved = 0
        self._untaken = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="mlflow-writer", daemon=True)
        self._thread.start()

    def _children(self) -> dict[str, Run]:
        """Child runs by what they record: an evaluation or a trajectory."""
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
        """Wait for what is queued while MLflow takes any; how many rows it lacks."""
        self._closing.set()
        self._queue.put(None)
        now = self._behind(), self._moved
        while True:
            # A server that answers is waited for, however much there is to write.
            self._thread.join(patience_seconds)
            before, now = now, (self._behind(), self._moved)
            if not self._thread.is_alive() or now == before:
                return self._behind()

    def _behind(self) -> int:
        """Rows that are not written."""
        with self._lock:
            return self.pending + self._refused

    def _write_all(self) -> None:
        waiting: deque[Row] = deque()
        others_until = 0.0
        while self._fill(waiting):
            store = self.sqlite
            if store is None:
                tried = [waiting.popleft()]
            else:
                time.sleep(max(0.0, others_until - time.monotonic()))
                tried = self._write_together(store, waiting)
                others_until = time.monotonic() + PAUSE_SECONDS
            for row in tried:
                self._write_patiently(row, heard=store is not None)

    def _fill(self, waiting: deque[Row]) -> bool:
        """Take what is queued, waiting for a row if there is none; False when that was the end."""
        while not waiting or not self._queue.empty():
            row = self._queue.get()
            if row is None:
                self._queue.put(None)  # for the next look
                break
            waiting.append(row)
        return bool(waiting)

    def _write_together(self, store: SqlAlchemyStore, waiting: deque[Row]) -> list[Row]:
        """Take rows and write them in one transaction; they are left to be noted, or to be tried alone."""
        rows: list[Row] = []
        before: dict[str, tuple[Run | None, str | None]] = {}
        until = time.monotonic() + TURN_SECONDS
        try:
            with one_transaction(store):
                while waiting and time.monotonic() < until:
                    name = waiting[0]["evaluation_id"]
                    if name in before:
                        break  # its earlier row is noted first
                    before[name] = self.known.get(name), self.done.get(name)
                    rows.append(waiting.popleft())
                    self._write(rows[-1])
                    self._moved += 1
            self._untaken = 0
        except Exception as error:  # whatever it is, the row that it concerns says it when it is tried alone
            for name, (run, status) in before.items():
                _put(self.known, name, run)
                _put(self.done, name, status)
            self._untaken += 1
            if self._untaken == MOST_UNTAKEN:
                logger.warning(
                    "MLflow's SQLite does not take several runs at once (%s); they are written one by one",
                    error,
                )
                self.sqlite = None
        return rows or [waiting.popleft()]

    def _write_patiently(self, row: Row, *, heard: bool) -> None:
        """Write one row, waiting for a server that does not answer; one that is refused stays unwritten.

        `heard`: MLflow may have taken it already.
        """
        wait = 1.0
        while True:
            try:
                if heard:
                    self._recall(row["evaluation_id"])
                self._write(row)
                note_run(self.folder, row["evaluation_id"], self.known[row["evaluation_id"]].info.run_id)
                with self._lock:
                    self.pending -= 1
                return
            except AWAY as error:
                heard = True
                if self._is_refusal(error):
                    logger.warning("MLflow refuses %s: %s", row["evaluation_id"], error)
                    with self._lock:
                        self._refused += 1
                        self.pending -= 1
                    return
                if wait == 1.0:
                    logger.warning("%s; the study goes on", reason(self.uri, error))
                if self._closing.is_set():
                    time.sleep(1.0)
                else:
                    self._closing.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _is_refusal(self, error: Exception) -> bool:
        """Whether it is about the row itself, which waiting does not mend."""
        if not isinstance(error, MlflowException):
            return False
        # A server's internal error may pass; of a database here it is a value that this cannot hold.
        own = self.uri.startswith("sqlite:") and error.error_code == "INTERNAL_ERROR"
        return own or error.error_code in _REFUSED

    def _recall(self, name: str) -> None:
        """Find the run of an evaluation that a request has made whose answer was lost."""
        if name not in self.known:
            query = f"tags.`raydc.evaluation_id` = '{name}'"
            for run in self.client.search_runs([self.experiment_id], query, max_results=1):
                self.known[name] = run

    def _write(self, row: Row) -> None:
        """Bring the run of a row up to date."""
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
    """Log metrics, parameters and tags of a run, in as few requests as they fit into."""
    client.log_batch(run_id, metrics=metrics[:MOST_METRICS], params=given, tags=tags)
    for first in range(MOST_METRICS, len(metrics), MOST_METRICS):
        client.log_batch(run_id, metrics[first : first + MOST_METRICS])


def _put(table: dict[str, Any], name: str, value: Any) -> None:
    """Have `table` hold a value, or nothing for None."""
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
    looks = row.get("test_acc_by_epoch") or ()
    return single + [
        Metric("test_acc_by_epoch", accuracy, when, number * every)
        for number, accuracy in enumerate(looks, 1)
    ]
