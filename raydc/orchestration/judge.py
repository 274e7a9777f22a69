"""The judge: an actor beside the driver that stops students of a search early.

    student --(point, rung, val_acc)--> judge --goes on?--> student      it waits for the answer

Optuna's pruners decide (raydc.orchestration.points.Referee), and not Tune's schedulers: a Tune trial is a
bundle of students, of which one may be stopped and the others not; and what was reported is in Optuna's
storage, so that a search goes on after a kill with all that it had seen. The actor runs on the driver's
machine, where the storage is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydc.search.points import Referee
from raydc.spec.search import SearchSpec


@ray.remote
class JudgeActor:
    """A referee for students of other processes."""

    def __init__(self, path: Path, name: str, search: SearchSpec) -> None:
        self._referee = Referee(path, name, search)

    def goes_on(self, trial: int, rung: int, val_acc: float) -> bool:
        """As `Referee.goes_on`; a report that is sent again after a restart changes nothing."""
        return self._referee.goes_on(trial, rung, val_acc)


class RemoteJudge:
    """The judge as students see it (`raydc.workbench.Judge`); it may be sent to other processes."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @staticmethod
    def start(path: Path, name: str, search: SearchSpec) -> RemoteJudge:
        """Start an actor that outlives its failures."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        remote_class: Any = JudgeActor
        actor = remote_class.options(
            num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
        )
        return RemoteJudge(actor.remote(path, name, search))

    def goes_on(self, trial: int, rung: int, val_acc: float) -> bool:
        answer: bool = ray.get(self._actor.goes_on.remote(trial, rung, val_acc))
        return answer

    def stop(self) -> None:
        ray.kill(self._actor)
