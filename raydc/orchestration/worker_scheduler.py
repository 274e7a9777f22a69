"""Selects the trial that gets a free worker.

Tune gives a free worker to the trial that its scheduler chooses, and cancels the start of that trial's own
worker. The default scheduler chooses the oldest pending trial: if bundles take less time than the start of a
process, a second worker, or a replacement for a dead one, would never start.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler


class WorkerScheduler(FIFOScheduler):
    """Chooses the oldest pending trial, except those whose own workers are starting."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self._workers = workers

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        trials = tune_controller.get_trials()
        waiting = [trial for trial in trials if trial.status == Trial.PENDING]
        if not waiting:
            return None
        running = sum(1 for trial in trials if trial.status == Trial.RUNNING)
        # One of the trials that do not run is the one with the free worker.
        starting = max(0, self._workers - running - 1)
        return waiting[min(starting, len(waiting) - 1)]
