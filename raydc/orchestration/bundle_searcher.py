"""The feeder: what Tune asks for the next bundle, and tells what became of it.

Queue --bundle--> Tune trial --rows--> sink (ledger, then everyone else) --> more (a search asks anew)
  ^ ^                |                                                        |
  | +-- put back ----+ the worker died: each unfinished evaluation alone, at most `retries` times
  +---------------------------------------------------------------------------+

What met an artifact that is missing or damaged is set aside (`lost`), for the runner to mend.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from raydc.orchestration.routing import Queue
from raydc.orchestration.trainable import pack_bundle
from raydc.spec.plan import Planned
from raydc.spec.result import Row, compact, failed, lost_artifact
from raydc.worker.packs import pack_key

Sink = Callable[[Sequence[Row]], None]
More = Callable[[Sequence[Row]], Sequence[Planned]]
"""What is to be evaluated next, now that some rows are there."""


def no_more(rows: Sequence[Row]) -> Sequence[Planned]:
    """Of a study whose evaluations are known from the start."""
    del rows
    return ()


class CannotGoOn(BaseException):
    """A result cannot be kept, or nothing more be asked. No `Exception`: Tune goes on after those."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class BundleSearcher(Searcher):
    """Hands out bundles and takes in rows; all on the driver's thread."""

    def __init__(
        self,
        evaluations: Sequence[Planned],
        *,
        cost: Callable[[Planned], float],
        workers: int,
        retries: int,
        study: str,
        dataset_id: str,
        sink: Sink,
        more: More = no_more,
        timeout_seconds: float | None = None,
        packed: bool = False,
        attempts: dict[str, int] | None = None,
        mends: bool = True,
    ) -> None:
        """`attempts`: how often evaluations were tried before, by id, which is counted on; `mends`: whether
        somebody looks after `lost`, or such evaluations have failed."""
        super().__init__()
        self.queue = Queue(evaluations, cost, workers, shape=pack_key if packed else None)
        self._packed = packed
        self._retries = retries
        self._study = study
        self._dataset_id = dataset_id
        self._sink = sink
        self._more = more
        self._timeout = timeout_seconds
        self._attempts = {} if attempts is None else attempts
        self._rebuilds = mends
        self.lost: list[Planned] = []
        """Evaluations that met a missing or damaged artifact and may be tried again."""
        self._running: dict[str, dict[str, Planned]] = {}
        self._heard: dict[str, float] = {}
        self._broken: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        bundle = self.queue.take()
        if not bundle:
            # A bundle that is still out may come back.
            return None if self._running else str(Searcher.FINISHED)
        self._running[trial_id] = {planned.id: planned for planned in bundle}
        self._heard[trial_id] = time.monotonic()
        for planned in bundle:
            self._attempts[planned.id] = self._attempts.get(planned.id, 0) + 1
        return {
            "bundle": pack_bundle([(p, self._attempts[p.id]) for p in bundle]),
            "to_come": len(bundle) + self.queue.later(bundle[0]),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        rows: list[Row] = []
        running = self._running.get(trial_id, {})
        if "broken" in result:
            self._broken[trial_id] = result["broken"]
        for row in map(compact, json.loads(result.get("rows", "[]"))):
            planned = running.pop(row["evaluation_id"], None)
            if planned is not None and self._rebuilds and lost_artifact(row) and self._may_try(planned):
                self.lost.append(planned)
                continue
            if planned is not None:
                self.queue.learn(planned, row["finished_at"] - row["started_at"])
            rows.append(row)
        self._heard[trial_id] = time.monotonic()
        self._pass_on(rows)

    def _may_try(self, planned: Planned) -> bool:
        """Whether an evaluation that has just been tried may be tried again."""
        return self._attempts[planned.id] <= self._retries

    def _pass_on(self, rows: Sequence[Row]) -> None:
        try:
            self._sink(rows)
            self.queue.add(self._more(rows))
        except Exception as error:  # of whatever kind: the run ends with it
            raise CannotGoOn(error) from error

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result and not error:
            self.on_trial_result(trial_id, result)
        lost = list(self._running.pop(trial_id, {}).values())
        since = self._heard.pop(trial_id, time.monotonic())
        broken = self._broken.pop(trial_id, None)
        given_up = []
        for number, planned in enumerate(lost):
            # Only the first was under way, unless they were trained together; the others had not begun.
            innocent = number > 0 and not self._packed
            self._attempts[planned.id] -= innocent
            if innocent or self._may_try(planned):
                self.queue.put_back(planned)
            else:
                given_up.append(self._failed(planned, since, broken))
        if given_up:
            self._pass_on(given_up)

    def _failed(self, planned: Planned, since: float, broken: str | None) -> Row:
        waited = time.monotonic() - since
        attempts = self._attempts[planned.id]
        reason = f"its worker process died {attempts} time{'s' * (attempts > 1)}"
        if broken is not None:
            reason += f", at last of {broken}"
        elif self._timeout is not None and waited > self._timeout:
            reason += (
                f", at last {waited:.0f} s after it was given the evaluation, which may take "
                f"{self._timeout:g} s (resources.evaluation_timeout_seconds) and is ended then"
            )
        return failed(
            planned,
            study=self._study,
            dataset_id=self._dataset_id,
            attempts=attempts,
            error=f"WorkerDied: {reason}",
        )

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that raydc never asks for."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("raydc resumes from its ledger")
