"""The MLflow tracker: records a whole study.

There is one experiment and one parent run per study, and one child run per evaluation and per trajectory of a
teacher. A separate thread writes the runs of evaluations (`mlflow_writer.py`); the caller writes the rest.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from raydc import __version__
from raydc.errors import InputError, TrackingError, without_password
from raydc.spec.result import Row
from raydc.tracking.mlflow_client import AWAY, STATUS, client_of, default_uri, quiet, reason
from raydc.tracking.mlflow_page import table_view
from raydc.tracking.mlflow_params import text
from raydc.tracking.mlflow_writer import RowWriter, log
from raydc.tracking.tracker import TeacherCurve, TrackerContext, UsedDataset

logger = logging.getLogger(__name__)

LONGEST_DIGEST = 36
VIEW = "raydc"
"""Name of the shared view of MLflow's runs page."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run or an experiment."""


def create(context: TrackerContext) -> MlflowTracker:
    """The tracker of kind mlflow; raises `InputError` if system metrics are requested without psutil."""
    system_metrics = bool(context.options.get("system_metrics"))
    if system_metrics and find_spec("psutil") is None:
        raise InputError(
            "tracking.system_metrics is true, which needs psutil, but psutil is not installed; "
            "run pip install 'raydc[server]'"
        )
    uri = context.uri or default_uri(context.folder)
    return MlflowTracker(uri, context.study, context.folder, context.varying, system_metrics)


class MlflowTracker:
    """Records one study in MLflow."""

    def __init__(
        self,
        uri: str,
        study: str,
        folder: Path,
        varying: Sequence[str] = (),
        system_metrics: bool = False,
    ) -> None:
        """`varying`: keys in the names of runs; `system_metrics`: whether to record them until `close`."""
        quiet()
        self.uri = uri
        self.study = study
        self.folder = folder
        self.varying = varying
        self._monitor: Any = SystemMetricsMonitor if system_metrics else None
        self.experiment_id = ""
        self.parent_id = ""

    # --- starting -----------------------------------------------------------------------------

    def start(self) -> None:
        try:
            self.client = client_of(self.uri)
            self.experiment_id = self._experiment()
            self._share_view()
            self.parent_id = self._parent()
            if self._monitor is not None:
                self._monitor = self._monitor(self.parent_id, resume_logging=True, tracking_uri=self.uri)
                self._monitor.start()
            self.writer = RowWriter(
                self.client, self.uri, self.experiment_id, self.parent_id, self.folder, self.varying
            )
        except AWAY as error:
            raise TrackingError(reason(self.uri, error)) from None

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
        """Share a view of the runs page with the study's columns, and link to it in the experiment's note."""
        page = (
            f"#/experiments/{self.experiment_id}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
        )
        tags = {
            f"mlflow.sharedViewState.{VIEW}": json.dumps(table_view(self.varying)),
            NOTE: f"The evaluations of {self.study}: [the best first]({page})",
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

    # --- the evaluations ------------------------------------------------------------------------

    def record(self, rows: Iterable[Row]) -> None:
        self.writer.record(rows)

    # --- the study as a whole --------------------------------------------------------------------

    def describe(self, measures: Mapping[str, float], note: str | None = None) -> None:
        now = int(time.time() * 1000)
        self._try(
            lambda: self.client.log_batch(
                self.parent_id,
                metrics=[Metric(key, float(value), now, 0) for key, value in measures.items()],
                tags=[] if note is None else [RunTag(NOTE, note)],
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
            if self.writer.done.get(curve.id) != "FINISHED":
                self._try(lambda c=curve: self._write_teacher(c))

    def _write_teacher(self, curve: TeacherCurve) -> None:
        """Write one run per trajectory, with its measures by epoch; again if a kill left it incomplete."""
        run = self.writer.known.get(curve.id) or self.client.create_run(
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
        log(
            self.client,
            run.info.run_id,
            metrics,
            [Param(key, text(value)) for key, value in curve.keys.items()],
        )
        self.client.set_terminated(run.info.run_id)
        self.writer.done[curve.id] = "FINISHED"

    def _try(self, action: Any) -> bool:
        """Call `action`, and log a warning if the server does not answer; returns whether it succeeded."""
        try:
            action()
        except AWAY as error:
            logger.warning("%s; `raydc sync` brings the record up to date", reason(self.uri, error))
            return False
        return True

    def close(self, status: str, patience_seconds: float) -> int:
        if self._monitor is not None:
            self._try(self._monitor.finish)
        behind = self.writer.close(patience_seconds)
        ended = STATUS[status]
        if not behind and not self._try(lambda: self.client.set_terminated(self.parent_id, status=ended)):
            return 1  # the study's own run, which `raydc sync` also ends
        return behind
