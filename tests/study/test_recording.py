"""Where the rows of a run go: all to the ledger, finished ones to other studies when that is possible."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from raydc.errors import StoreError
from raydc.store.local import LocalStore
from raydc.study.recording import SHARE_SECONDS, Recorder
from raydc.tracking.ledger import Ledger
from raydc.tracking.tracker import NoTracker


class Away(LocalStore):
    """A store that takes no results while it is away."""

    away = True
    asked = 0

    def append_results(self, dataset: str, rows: Sequence[Any]) -> None:
        self.asked += 1
        if self.away:
            raise StoreError("the store does not answer after 6 tries")
        super().append_results(dataset, rows)


class Record:
    """The record of a study that has none."""

    def tracker(self) -> NoTracker:
        return NoTracker()


def test_a_store_that_is_away_costs_no_result_and_is_asked_more_and_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    store = Away(tmp_path / "store")
    with Ledger(tmp_path) as ledger:
        recorder = Recorder(ledger, Record(), store, "data")  # type: ignore[arg-type]
        for number in range(200):
            now = number * SHARE_SECONDS
            recorder([{"evaluation_id": f"e{number}", "status": "finished", "test_acc": 0.5}])
        assert 2 < store.asked < 8
        assert len(ledger.finished()) == 200
        store.away = False
        recorder.share()
    assert {row["evaluation_id"] for row in store.results("data")} == ledger.finished()
