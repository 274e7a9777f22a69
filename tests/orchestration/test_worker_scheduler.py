"""Whose turn it is: a worker that is being started is let start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raydc.orchestration.worker_scheduler import WorkerScheduler


@pytest.mark.parametrize(
    ("statuses", "chosen"),
    [
        ("RRPP", 2),  # all workers run: the oldest that waits
        ("TRPP", 2),  # one is free: the oldest
        ("TPPP", 2),  # one is free, one is being started: not the one that it is started for
        ("TTRPPT", 3),
        ("TP", 1),  # nothing else waits
        ("TRTE", None),
        ("", None),
    ],
)
def test_a_free_worker_goes_to_whom_none_is_started_for(statuses: str, chosen: int | None) -> None:
    names = {"R": "RUNNING", "P": "PENDING", "T": "TERMINATED", "E": "ERROR"}
    trials = [SimpleNamespace(status=names[letter]) for letter in statuses]
    found = WorkerScheduler(workers=2).choose_trial_to_run(SimpleNamespace(get_trials=lambda: trials))
    assert found is (None if chosen is None else trials[chosen])
