"""The student's worker: a Tune trial that runs a bundle of evaluations, then is used again.

A bundle travels as text in the trial's config, so that Tune's own records stay small. A step runs
evaluations until REPORT_SECONDS have passed and reports their rows; the driver writes them to the
ledger before it asks for more.
"""

from __future__ import annotations

import base64
import json
import logging
import pickle
import time
import zlib
from collections.abc import Sequence
from typing import Any

from ray import tune

from raydc.errors import RaydcError
from raydc.orchestration.teacher_actor import TeacherPool
from raydc.orchestration.watchdog import Watchdog
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.result import Row, failed
from raydc.worker.evaluate import error_text, one_line
from raydc.worker.packs import Attempt, attempt_all
from raydc.worker.workbench import Pruner

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.5
"""A step ends with the first evaluation that ends after this."""


def pack_bundle(bundle: Sequence[Attempt]) -> str:
    """Evaluations, each with the number of this attempt, as text."""
    return base64.b64encode(zlib.compress(pickle.dumps(list(bundle)), 1)).decode()


def unpack_bundle(text: str) -> list[Attempt]:
    """The evaluations of `pack_bundle`; only for text that raydc's own driver made."""
    bundle: list[Attempt] = pickle.loads(zlib.decompress(base64.b64decode(text)))
    return bundle


class StudentWorker(tune.Trainable):
    """Runs bundles of evaluations on this process's workbench."""

    def setup(
        self,
        config: dict[str, Any],
        context: WorkerContext | None = None,
        teachers: TeacherPool | None = None,
        pruner: Pruner | None = None,
        study: str = "",
        dataset_id: str = "",
        timeout_seconds: float | None = None,
    ) -> None:
        assert context is not None
        self._watchdog = Watchdog(timeout_seconds)
        self._study = study
        self._dataset_id = dataset_id
        self._context = context
        self._teachers = teachers
        self._pruner = pruner
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._left = 1  # a bundle that cannot be read is not done
        self._packed = False
        self._error: Exception | None = None
        self._told = False
        try:
            self._begin(unpack_bundle(new_config["bundle"]), new_config["to_come"])
        except Exception as error:
            self._break(error)
        return True

    def _begin(self, bundle: Sequence[Attempt], to_come: int) -> None:
        self._left = len(bundle)
        try:
            bench = self._context.bench(self._teachers)
        except RaydcError as error:  # the store does not answer, or the dataset's images are gone from it
            self._rows = iter([self._failed(bundle, error)])
            return
        if self._pruner is not None:
            bench.pruner = self._pruner
        self._packed = bench.device.type == "cuda"
        self._rows = attempt_all(bundle, bench, study=self._study, to_come=to_come)

    def _break(self, error: Exception) -> None:
        """End with what nobody foresaw; it is of this process or its machine, so another may do better."""
        logger.error("a worker broke", exc_info=error)
        self._error = error

    def _failed(self, bundle: Sequence[Attempt], error: Exception) -> list[Row]:
        text = error_text(error)
        return [
            failed(planned, study=self._study, dataset_id=self._dataset_id, attempts=attempts, error=text)
            for planned, attempts in bundle
        ]

    def step(self) -> dict[str, Any]:
        rows: list[Row] = []
        if self._error is None:
            try:
                self._run(rows)
            except Exception as error:  # a training's own errors are in its row
                self._break(error)
        self._left -= len(rows)
        said: dict[str, Any] = {"rows": json.dumps(rows, allow_nan=False), "done": not self._left}
        if self._error is not None:
            # Tune does not say of what a worker died; so the worker does, before it dies.
            if self._told:
                raise self._error
            self._told = True
            said["broken"] = one_line(self._error)
        return said

    def _run(self, rows: list[Row]) -> None:
        """Add the rows of this step to `rows`."""
        start = time.monotonic()
        while not rows or time.monotonic() - start < REPORT_SECONDS:
            with self._watchdog.for_(self._left if self._packed else 1):
                rows += next(self._rows)
            if len(rows) == self._left:
                break

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: an evaluation is finished or it is not."""
