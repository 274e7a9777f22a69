"""Whose turn it is when a worker is free.

Tune gives a free worker to the trial that its scheduler names, and ends the one that was being started for
it. Its own scheduler names the oldest that waits: where a bundle takes less time than the start of a process,
no second worker would ever come up, nor one in the place of another that died.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler


class WorkerScheduler(FIFOScheduler):
    """The oldest trial that waits, but not those whose own workers are being started."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self._workers = workers

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        trials = tune_controller.get_trials()
        waiting = [trial for trial in trials if trial.status == Trial.PENDING]
        if not waiting:
            return None
        running = sum(1 for trial in trials if trial.status == Trial.RUNNING)
        # One of those that do not run is the worker that is free.
        starting = max(0, self._workers - running - 1)
        return waiting[min(starting, len(waiting) - 1)]
