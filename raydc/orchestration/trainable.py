"""The student's worker: a Tune trial that runs a bundle of evaluations, then is used again.

A bundle travels as text in the trial's config, so that Tune's own records stay small. A step runs
evaluations until REPORT_SECONDS have passed and reports their rows; the driver writes them to the
ledger before it asks for more.
"""

from __future__ import annotations

import base64
import json
import pickle
import time
import zlib
from collections.abc import Sequence
from typing import Any

from ray import tune

from raydc.orchestration.site import Site
from raydc.orchestration.teacher_actor import TeacherPool
from raydc.orchestration.watchdog import Watchdog
from raydc.packs import attempt_all
from raydc.result import Row
from raydc.spec.plan import Planned
from raydc.workbench import Judge

REPORT_SECONDS = 0.5
"""A step ends with the first evaluation that ends after this."""


def pack_bundle(bundle: Sequence[tuple[Planned, int]]) -> str:
    """Evaluations, each with the number of this attempt, as text."""
    return base64.b64encode(zlib.compress(pickle.dumps(list(bundle)), 1)).decode()


def unpack_bundle(text: str) -> list[tuple[Planned, int]]:
    """The evaluations of `pack_bundle`; only for text that raydc's own driver made."""
    bundle: list[tuple[Planned, int]] = pickle.loads(zlib.decompress(base64.b64decode(text)))
    return bundle


class StudentWorker(tune.Trainable):
    """Runs bundles of evaluations on this process's workbench."""

    def setup(
        self,
        config: dict[str, Any],
        site: Site | None = None,
        teachers: TeacherPool | None = None,
        judge: Judge | None = None,
        study: str = "",
        timeout_seconds: float | None = None,
    ) -> None:
        assert site is not None
        self._watchdog = Watchdog(timeout_seconds)
        self._study = study
        self._bench = site.bench(teachers)
        if judge is not None:
            self._bench.judge = judge
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        bundle = unpack_bundle(new_config["bundle"])
        self._left = len(bundle)
        self._rows = attempt_all(bundle, self._bench, study=self._study)
        return True

    def step(self) -> dict[str, Any]:
        rows: list[Row] = []
        start = time.monotonic()
        while not rows or time.monotonic() - start < REPORT_SECONDS:
            together = self._left if self._bench.device.type == "cuda" else 1
            with self._watchdog.for_(together):
                rows += next(self._rows)
            if len(rows) == self._left:
                break
        self._left -= len(rows)
        return {"rows": json.dumps(rows, allow_nan=False), "done": not self._left}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: an evaluation is finished or it is not."""
