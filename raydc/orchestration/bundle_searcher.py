"""The bundle searcher: gives Tune the next bundle and takes its results.

Queue --bundle--> Tune trial --rows--> sink (ledger, then the rest) --> more (new points of a search)
  ^ ^                |                                                        |
  | +-- put back ----+ the worker died: each unfinished evaluation alone, at most `retries` times
  +---------------------------------------------------------------------------+

In a search, evaluations whose compressed set or learned labels are not made wait for that work
(raydc.orchestration.pending), which is handed out as a separate bundle. Evaluations that found an artifact
missing or damaged are set aside in `lost`, for the runner to rebuild the artifact.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from raydc.errors import ArtifactError
from raydc.orchestration.pending import PendingWork
from raydc.orchestration.routing import Queue
from raydc.orchestration.trainable import pack, pack_bundle
from raydc.spec.plan import Planned
from raydc.spec.result import Row, compact, failed, lost_artifact
from raydc.worker.packs import pack_key
from raydc.worker.work import Work

Sink = Callable[[Sequence[Row]], None]
More = Callable[[Sequence[Row]], Sequence[Planned]]
"""Returns the evaluations to run next, given new rows."""


OnWork = Callable[[Work, int, int], None]
"""Called with (work, steps done, steps in total); both counts are 0 when the work has ended."""


def no_more(rows: Sequence[Row]) -> Sequence[Planned]:
    """No further evaluations, for a study whose evaluations are known from the start."""
    del rows
    return ()


def ignore_work(work: Work, done: int, total: int) -> None:
    """Ignore the progress of work."""
    del work, done, total


class CannotGoOn(BaseException):
    """A result cannot be stored, or the search failed. Not an `Exception`, because Tune continues after
    those."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class BundleSearcher(Searcher):
    """Hands out bundles and takes in rows; runs entirely on the driver's thread."""

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
        rebuilds: bool = True,
        pending: PendingWork | None = None,
        on_work: OnWork = ignore_work,
    ) -> None:
        """`attempts`: number of earlier attempts of evaluations and work, by id, updated in place;
        `rebuilds`: whether the caller rebuilds artifacts and retries `lost`, otherwise such evaluations fail;
        `pending`: the work that evaluations wait for, None if all is made."""
        super().__init__()
        self._pending = pending
        self._on_work = on_work
        self._making: dict[str, dict[str, Work]] = {}
        """Unfinished work, by the trial that makes it."""
        ready = evaluations if pending is None else pending.admit(evaluations)
        self.queue = Queue(ready, cost, workers, shape=pack_key if packed else None)
        self._packed = packed
        self._retries = retries
        self._study = study
        self._dataset_id = dataset_id
        self._sink = sink
        self._more = more
        self._timeout = timeout_seconds
        self._attempts = {} if attempts is None else attempts
        self._rebuilds = rebuilds
        self.lost: list[Planned] = []
        """Evaluations that found an artifact missing or damaged and may be tried again."""
        self._running: dict[str, dict[str, Planned]] = {}
        self._heard_at: dict[str, float] = {}
        self._broken: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        # Quick work first: it releases many students, which are then packed together. Long work starts only
        # if no student waits, so that points are told early.
        works = [] if self._pending is None else self._pending.take_quick()
        bundle = [] if works else self.queue.take()
        if self._pending is not None and not works and not bundle:
            works = self._pending.take_long()
        if works:
            return self._hand_out(trial_id, works)
        if not bundle:
            # A running bundle may be put back.
            return None if self._running or self._making else str(Searcher.FINISHED)
        self._running[trial_id] = {planned.id: planned for planned in bundle}
        self._heard_at[trial_id] = time.monotonic()
        for planned in bundle:
            self._attempts[planned.id] = self._attempts.get(planned.id, 0) + 1
        return {
            "bundle": pack_bundle([(p, self._attempts[p.id]) for p in bundle]),
            "to_come": len(bundle) + self.queue.later(bundle[0]),
        }

    def seconds_left(self, unknown: int = 0) -> float | None:
        """Worker-seconds of the unfinished evaluations and `unknown` others; None before the first result."""
        waiting = 0 if self._pending is None else len(self._pending)
        return self.queue.seconds_left(unknown + waiting)

    def _hand_out(self, trial_id: str, works: Sequence[Work]) -> dict[str, Any]:
        self._making[trial_id] = {work.id: work for work in works}
        for work in works:
            self._attempts[work.id] = self._attempts.get(work.id, 0) + 1
        return {"works": pack(list(works))}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        rows: list[Row] = []
        running = self._running.get(trial_id, {})
        if "broken" in result:
            self._broken[trial_id] = result["broken"]
        if trial_id in self._making:
            self._take_work_result(trial_id, result)
            return
        for row in map(compact, json.loads(result.get("rows", "[]"))):
            planned = running.pop(row["evaluation_id"], None)
            if planned is not None and self._rebuilds and lost_artifact(row) and self._may_try(planned):
                self.lost.append(planned)
                continue
            if planned is not None:
                self.queue.learn(planned, row["finished_at"] - row["started_at"])
            rows.append(row)
        self._heard_at[trial_id] = time.monotonic()
        self._pass_on(rows)

    def _may_try(self, tried: Planned | Work) -> bool:
        """Whether an evaluation or work that has just failed may be tried again."""
        return self._attempts[tried.id] <= self._retries

    def _pass_on(self, rows: Sequence[Row]) -> None:
        try:
            self._sink(rows)
            more = self._more(rows)
            self.queue.add(more if self._pending is None else self._pending.admit(more))
        except Exception as error:  # any error ends the run
            raise CannotGoOn(error) from error

    # --- work that evaluations wait for -------------------------------------------------------

    def _take_work_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Process a worker's report on the work that it makes."""
        making = self._making[trial_id]
        if (steps := result.get("work_steps")) is not None and steps[0] in making:
            self._on_work(making[steps[0]], steps[1], steps[2])
        for name, error in json.loads(result.get("made", "[]")):
            if (work := making.pop(name, None)) is not None:
                self._end_work(work, error)

    def _end_work(self, work: Work, error: str | None) -> None:
        """Process the end of a piece of work: its evaluations can start, or fail with `error`."""
        assert self._pending is not None
        self._on_work(work, 0, 0)
        if error is None:
            del self._attempts[work.id]
            self.queue.add(self._pending.made(work))
            return
        lost, rows = error.startswith(f"{ArtifactError.__name__}: "), []
        reason = f"{work.title}: {error}" if work.title else error
        for planned in self._pending.failed(work):
            self._attempts[planned.id] = self._attempts.get(planned.id, 0) + lost
            if lost and self._rebuilds and self._may_try(planned):
                self.lost.append(planned)
            else:
                attempts = self._attempts[planned.id]
                rows.append(self._row(planned, attempts, f"not started: {reason}"))
        if rows:
            self._pass_on(rows)

    def _end_of_worker(self, trial_id: str, reason: str | None) -> None:
        """Put back or fail the work of a dead worker; only its first piece was in progress when it died."""
        assert self._pending is not None
        for number, work in enumerate(self._making.pop(trial_id).values()):
            self._attempts[work.id] -= number > 0
            if number > 0 or self._may_try(work):
                self._pending.put_back(work, alone=number == 0)
            else:
                self._end_work(work, f"WorkerDied: {_died(self._attempts[work.id], reason)}")

    # --- ends of trials -------------------------------------------------------------------------

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result and not error:
            self.on_trial_result(trial_id, result)
        if trial_id in self._making:
            self._end_of_worker(trial_id, self._broken.pop(trial_id, None))
            return
        lost = list(self._running.pop(trial_id, {}).values())
        since = self._heard_at.pop(trial_id, time.monotonic())
        broken = self._broken.pop(trial_id, None)
        given_up = []
        for number, planned in enumerate(lost):
            # Only the first was in progress, unless they were trained together; the others had not started.
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
        reason = _died(attempts, broken)
        if broken is None and self._timeout is not None and waited > self._timeout:
            reason += (
                f", the last time {waited:.0f} s after it was given the evaluation, whose time limit is "
                f"{self._timeout:g} s (resources.evaluation_timeout_seconds)"
            )
        return self._row(planned, attempts, f"WorkerDied: {reason}")

    def _row(self, planned: Planned, attempts: int, error: str) -> Row:
        return failed(planned, study=self._study, dataset_id=self._dataset_id, attempts=attempts, error=error)

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Tune pickles its searcher for a restore that raydc never uses."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: raydc resumes from its ledger."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("raydc resumes from its ledger")


def _died(attempts: int, broken: str | None) -> str:
    """The message for a worker that died `attempts` times, with the last error if it reported one."""
    text = f"its worker process died {attempts} time{'s' * (attempts > 1)}"
    return text if broken is None else f"{text}, the last time with {broken}"
