"""Writes the results of a run: first to the ledger, then to the tracker and, periodically, to the store."""

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
"""Time between copies of finished results to the store, where other studies find them."""


class Record:
    """The tracker of a run; it starts while teachers are trained.

    A new study is refused if its tracker does not start; a resumed study continues without it, and
    `raydc sync` updates the record later.
    """

    def __init__(self, ready: ReadyStudy, out: Path, *, resuming: bool, pool: ThreadPoolExecutor) -> None:
        self._tracking = ready.study.tracking
        self._resuming = resuming
        self._tracker: Tracker | None = None
        self._starting = pool.submit(_start_tracker, ready, out, resuming)
        if not (self._tracking.entry.local and self._tracking.has_defaults):
            self.tracker()  # Wait, because an invalid setting must be refused now.

    @property
    def label(self) -> str:
        """Name of the tracker in messages."""
        return self._tracking.entry.label

    def tracker(self) -> Tracker:
        """Wait for the tracker to start and return it; `InputError` if a new study's tracker does not
        start."""
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
        logger.warning("%s; the study continues, and `raydc sync` updates the record later", error)
        return _Unreachable()


def _start_tracker(ready: ReadyStudy, out: Path, resuming: bool) -> Tracker:
    varying = varying_keys([spec_columns(planned.evaluation) for planned in ready.plan.evaluations])
    tracker = trackers.create(ready.study, out, varying, resuming=resuming)
    tracker.start()
    tracker.describe({PLANNED: ready.evaluations})
    return tracker


class _Unreachable(NoTracker):
    """Replaces a tracker that did not answer when a study was resumed."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = 0

    def record(self, rows: Iterable[Row]) -> None:
        self._rows += sum(1 for row in rows if row.get("reused_from") is None)

    def close(self, status: str, patience_seconds: float) -> int:
        return self._rows


class Recorder:
    """Records rows as they end: first in the ledger, then in the tracker and, periodically, in the store."""

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
        """Copy finished results to the store; if it does not answer, retry at growing intervals."""
        if share(self._store, self._dataset_id, self._unshared):
            self._unshared = []
            self._pause_seconds = SHARE_SECONDS
        else:
            self._pause_seconds *= 3
        self._shared_at = time.monotonic()


def share(store: Store, dataset_id: str, rows: Sequence[Row]) -> bool:
    """Copy results to the store for other studies; returns whether it succeeded. The ledger has them
    anyway."""
    try:
        store.append_results(dataset_id, rows)
    except StoreError as error:
        logger.warning("%s; results will be shared with other studies later", error)
        return False
    return True
