"""Where the results of a run go: the ledger first, then the tracker and, now and then, the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raydc.analysis.curves import varying_keys
from raydc.errors import InputError, StoreError, TrackingError
from raydc.spec.result import FINISHED, Row, spec_columns, untested
from raydc.store.artifact import Store
from raydc.study.preflight import ReadyStudy
from raydc.tracking import trackers
from raydc.tracking.ledger import Ledger
from raydc.tracking.tracker import PLANNED, NoTracker, Tracker

logger = logging.getLogger(__name__)

SHARE_SECONDS = 20.0
"""How often finished results are copied to the store, where other studies find them."""


class Record:
    """The tracker of a run, which starts while teachers are trained.

    A new study is refused when its tracker does not start; one that is resumed goes on without, and
    `raydc sync` brings the record up to date.
    """

    def __init__(self, ready: ReadyStudy, out: Path, *, resuming: bool, pool: ThreadPoolExecutor) -> None:
        self._tracking = ready.study.tracking
        self._resuming = resuming
        self._tracker: Tracker | None = None
        self._starting = pool.submit(_start_tracker, ready, out, resuming)
        if not (self._tracking.entry.local and self._tracking.has_defaults):
            self.tracker()  # What was given may be refused, so it is waited for.

    @property
    def label(self) -> str:
        """What messages call the tracker."""
        return self._tracking.entry.label

    def tracker(self) -> Tracker:
        """The started tracker, waited for if need be; `InputError` for a new study without one."""
        if self._tracker is None:
            try:
                self._tracker = self._starting.result()
            except TrackingError as error:
                self._tracker = self._without(error)
        assert self._tracker is not None
        return self._tracker

    def _without(self, error: TrackingError) -> Tracker:
        if not self._resuming:
            advice = "start the server or give another --tracking-uri"
            if "uri" not in self._tracking.options:
                advice = "record nothing with --set tracking.kind=none, or choose another tracker"
            raise InputError(f"{error}; {advice}")
        logger.warning("%s; the study goes on and `raydc sync` brings the record up to date", error)
        return _Unreachable()


def _start_tracker(ready: ReadyStudy, out: Path, resuming: bool) -> Tracker:
    varying = varying_keys([spec_columns(planned.evaluation) for planned in ready.plan.evaluations])
    tracker = trackers.create(ready.study, out, varying, resuming=resuming)
    tracker.start()
    tracker.describe({PLANNED: ready.evaluations})
    return tracker


class _Unreachable(NoTracker):
    """Stands in for a tracker that did not answer when a study was resumed."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = 0

    def record(self, rows: Iterable[Row]) -> None:
        self._rows += sum(1 for row in rows if row.get("reused_from") is None)

    def close(self, status: str, patience_seconds: float) -> int:
        return self._rows


class Recorder:
    """Takes rows as they end: ledger first, then the tracker and, now and then, the store."""

    def __init__(self, ledger: Ledger, record: Record, store: Store, dataset_id: str) -> None:
        self._ledger = ledger
        self._record = record
        self._store = store
        self._dataset_id = dataset_id
        self._unshared: list[Row] = []
        self._shared_at = time.monotonic()
        self._pause_seconds = SHARE_SECONDS

    def __call__(self, rows: Sequence[Row]) -> None:
        self._ledger.append(rows)
        self._record.tracker().record(rows)
        self._unshared += [r for r in rows if r["status"] == FINISHED and not untested(r)]
        if time.monotonic() - self._shared_at > self._pause_seconds:
            self.share()

    def share(self) -> None:
        """Copy finished results to the store; a store that does not answer is asked more and more rarely."""
        if share(self._store, self._dataset_id, self._unshared):
            self._unshared = []
            self._pause_seconds = SHARE_SECONDS
        else:
            self._pause_seconds *= 3
        self._shared_at = time.monotonic()


def share(store: Store, dataset_id: str, rows: Sequence[Row]) -> bool:
    """Copy results to the store for other studies; whether it could be done. The ledger has them anyway."""
    try:
        store.append_results(dataset_id, rows)
    except StoreError as error:
        logger.warning("%s; results are shared with other studies later", error)
        return False
    return True
