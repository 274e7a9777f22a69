"""MLflow: the complete public record of a study.

One experiment and one parent run a study, one child run an evaluation. Rows are written by one thread,
in order, in three requests each, and idempotently: a run is found by the tag `raydc.evaluation_id`,
so nothing is recorded twice, whoever was killed when.

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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from raydc import __version__
from raydc.errors import TrackingError, without_password
from raydc.result import LISTS, MEASURES, Row
from raydc.tracking.mlflow_client import AWAY, STATUS, TEXT_TAGS, client_of, quiet, reason, search
from raydc.tracking.mlflow_ids import note_run
from raydc.tracking.names import params, run_name, table_view, text
from raydc.tracking.tracker import TeacherCurve, UsedDataset

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 30.0
_REFUSED = (
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "PERMISSION_DENIED",
    "RESOURCE_DOES_NOT_EXIST",
)


MOST_METRICS = 800
"""In one request, which takes 1,000 metrics, parameters and tags."""
LONGEST_DIGEST = 36
LONGEST_TAG = 5000
"""Characters that MLflow keeps of a tag."""


VIEW = "raydc"
"""Name of the table that every study offers on MLflow's runs page."""


class MlflowTracker:
    """Records the rows of one study; see the module's diagram."""

    def __init__(
        self,
        uri: str,
        study: str,
        folder: Path,
        varying: Sequence[str] = (),
        system_metrics: bool = False,
    ) -> None:
        """`varying`: the keys that runs are named by; `system_metrics`: sampled from here to `close`."""
        quiet()
        self.uri = uri
        self.study = study
        self.folder = folder
        self.varying = varying
        self._monitor: Any = SystemMetricsMonitor if system_metrics else None
        self.experiment_id = ""
        self.parent_id = ""
        self._known: dict[str, Run] = {}
        self._done: dict[str, str] = {}
        self._queue: queue.Queue[Row | None] = queue.Queue()
        self._pending = 0
        self._refused = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="mlflow-writer", daemon=True)

    # --- starting -----------------------------------------------------------------------------

    def start(self) -> None:
        try:
            self.client = client_of(self.uri)
            self.experiment_id = self._experiment()
            self._share_view()
            self.parent_id = self._parent()
            self._known = self._children()
            self._done = {name: run.info.status for name, run in self._known.items()}
            if self._monitor is not None:
                self._monitor = self._monitor(self.parent_id, resume_logging=True, tracking_uri=self.uri)
                self._monitor.start()
        except AWAY as error:
            raise TrackingError(reason(self.uri, error)) from None
        self._thread.start()

    def _experiment(self) -> str:
        known = self.client.get_experiment_by_name(self.study)
        if known is not None:
            if known.lifecycle_stage != "active":
                shown = without_password(self.uri)
                raise TrackingError(
                    f"the MLflow experiment {self.study!r} at {shown} is deleted; restore it or rename it"
                )
            return str(known.experiment_id)
        location = None
        if self.uri.startswith("sqlite:"):
            location = (self.folder.absolute() / "mlartifacts").as_uri()
        tags = {"raydc.study": self.study, "mlflow.experimentKind": "custom_model_development"}
        return str(self.client.create_experiment(self.study, location, tags=tags))

    def _share_view(self) -> None:
        """Offer the runs page with the study's own columns, under a link in the experiment's note."""
        page = (
            f"#/experiments/{self.experiment_id}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
        )
        tags = {
            f"mlflow.sharedViewState.{VIEW}": json.dumps(table_view(self.varying)),
            "mlflow.note.content": f"The evaluations of {self.study}: [the best first]({page})",
        }
        for key, value in tags.items():
            self.client.set_experiment_tag(self.experiment_id, key, value)

    def _parent(self) -> str:
        found = self.client.search_runs([self.experiment_id], "tags.`raydc.role` = 'study'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            return run_id
        run = self.client.create_run(
            self.experiment_id,
            run_name=self.study,
            tags={
                "raydc.role": "study",
                "raydc.study": self.study,
                "raydc.raydc_version": __version__,
            },
        )
        return str(run.info.run_id)

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

    # --- writing ------------------------------------------------------------------------------

    def record(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if row.get("reused_from") is not None:
                continue  # its own study has recorded it
            with self._lock:
                self._pending += 1
            self._queue.put(row)

    def _write_all(self) -> None:
        while (row := self._queue.get()) is not None:
            if self._write_patiently(row):
                with self._lock:
                    self._pending -= 1

    def _write_patiently(self, row: Row) -> bool:
        """Write one row, waiting for a server that does not answer; False if it stays unwritten."""
        wait = 1.0
        heard = False
        while True:
            try:
                if heard:
                    self._recall(row["evaluation_id"])
                self._write(row)
                return True
            except AWAY as error:
                heard = True
                if isinstance(error, MlflowException) and error.error_code in _REFUSED:
                    logger.warning("MLflow refuses %s: %s", row["evaluation_id"], error)
                    with self._lock:
                        self._refused += 1
                        self._pending -= 1
                    return False
                if wait == 1.0:
                    logger.warning("%s; the study goes on", reason(self.uri, error))
                if self._closing.is_set():
                    time.sleep(1.0)
                else:
                    self._closing.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _recall(self, name: str) -> None:
        """Find the run of an evaluation that a request has made whose answer was lost."""
        if name not in self._known:
            query = f"tags.`raydc.evaluation_id` = '{name}'"
            for run in self.client.search_runs([self.experiment_id], query, max_results=1):
                self._known[name] = run

    def _write(self, row: Row) -> None:
        name = row["evaluation_id"]
        status = STATUS[row["status"]]
        run = self._known.get(name)
        if run is not None and self._done.get(name) == status:
            note_run(self.folder, name, run.info.run_id)
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
            self._known[name] = run
        present = run.data.params
        new = [Param(k, v) for k, v in params(row).items() if k not in present]
        self._log(run.info.run_id, _metrics(row), new, tags)
        ended = int(row["finished_at"] * 1000)
        self.client.set_terminated(run.info.run_id, status=status, end_time=ended)
        self._done[name] = status
        note_run(self.folder, name, run.info.run_id)

    def _log(
        self, run_id: str, metrics: list[Metric], given: list[Param], tags: Sequence[RunTag] = ()
    ) -> None:
        """Metrics, parameters and tags of a run, in as few requests as they fit into."""
        self.client.log_batch(run_id, metrics=metrics[:MOST_METRICS], params=given, tags=tags)
        for first in range(MOST_METRICS, len(metrics), MOST_METRICS):
            self.client.log_batch(run_id, metrics[first : first + MOST_METRICS])

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

    # --- the study as a whole --------------------------------------------------------------------

    def describe(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        now = int(time.time() * 1000)
        self._try(
            lambda: self.client.log_batch(
                self.parent_id,
                metrics=[Metric(key, float(value), now, 0) for key, value in metrics.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
        )

    def attach(self, files: Iterable[Path]) -> None:
        for file in files:
            if file.is_dir():
                self._try(lambda p=file: self.client.log_artifacts(self.parent_id, str(p), p.name))
            elif file.exists():
                self._try(lambda p=file: self.client.log_artifact(self.parent_id, str(p)))

    def attach_text(self, text: str, name: str) -> None:
        self._try(lambda: self.client.log_text(self.parent_id, text, name))

    def used(self, data: UsedDataset) -> None:
        described = MlflowDataset(
            data.name,
            data.digest[:LONGEST_DIGEST],
            "local",
            json.dumps({"uri": data.source}),
            profile=json.dumps(data.profile),
        )
        inputs = [DatasetInput(described, [InputTag("mlflow.data.context", "training")])]
        self._try(lambda: self.client.log_inputs(self.parent_id, inputs))

    def teachers(self, curves: Iterable[TeacherCurve]) -> None:
        for curve in curves:
            if self._done.get(curve.id) != "FINISHED":
                self._try(lambda c=curve: self._write_teacher(c))

    def _write_teacher(self, curve: TeacherCurve) -> None:
        """A run a trajectory, with its measures by epoch; written anew if a kill left it open."""
        run = self._known.get(curve.id) or self.client.create_run(
            self.experiment_id,
            run_name=curve.name,
            tags={
                "mlflow.parentRunId": self.parent_id,
                "raydc.role": "teacher",
                "raydc.trajectory_id": curve.id,
                "raydc.study": self.study,
            },
        )
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, epoch) for epoch, key, value in curve.points]
        self._log(run.info.run_id, metrics, [Param(key, text(value)) for key, value in curve.keys.items()])
        self.client.set_terminated(run.info.run_id)
        self._done[curve.id] = "FINISHED"

    def _try(self, action: Any) -> bool:
        """Do something to the parent run; a server that is away only costs a warning. Whether it was done."""
        try:
            action()
        except AWAY as error:
            logger.warning("%s; `raydc sync` mends the record", reason(self.uri, error))
            return False
        return True

    def close(self, status: str, patience_seconds: float) -> int:
        self._closing.set()
        if self._monitor is not None:
            self._try(self._monitor.finish)
        self._queue.put(None)
        behind = self._behind()
        while True:
            # A server that answers is waited for, however much there is to write.
            self._thread.join(patience_seconds)
            before, behind = behind, self._behind()
            if not self._thread.is_alive() or behind == before:
                break
        if not behind and not self._try(lambda: self.client.set_terminated(self.parent_id, status=status)):
            return 1  # the study's own run, which `raydc sync` ends as well
        return behind

    def _behind(self) -> int:
        """Rows that are not written."""
        with self._lock:
            return self._pending + self._refused


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
