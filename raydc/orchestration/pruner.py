"""The pruner actor: runs next to the driver and stops students of a search early.

    student --(point, rung, val_acc)--> pruner --continue?--> student    it waits for the answer

Optuna's pruners decide (raydc.search.points.PointPruner), not Tune's schedulers: a Tune trial is a bundle of
students, of which one may be stopped and the others not; and reports are in Optuna's storage, so that a
search resumes after a kill with all of them. The actor runs on the driver's machine, where the storage is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydc.search.points import PointPruner
from raydc.spec.search import SearchSpec


@ray.remote
class PrunerActor:
    """A pruner for students in other processes."""

    def __init__(self, path: Path, name: str, search: SearchSpec) -> None:
        self._pruner = PointPruner(path, name, search)

    def should_continue(self, trial: int, rung: int, val_acc: float) -> bool:
        """As `PointPruner.should_continue`; repeating a report after a restart has no effect."""
        return self._pruner.should_continue(trial, rung, val_acc)


class RemotePruner:
    """The students' client of the actor (`raydc.worker.workbench.Pruner`); it can be sent to other
    processes."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @staticmethod
    def start(path: Path, name: str, search: SearchSpec) -> RemotePruner:
        """Start an actor that Ray restarts after failures."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        remote_class: Any = PrunerActor
        actor = remote_class.options(
            num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
        )
        return RemotePruner(actor.remote(path.absolute(), name, search))  # its working folder differs

    def should_continue(self, trial: int, rung: int, val_acc: float) -> bool:
        answer: bool = ray.get(self._actor.should_continue.remote(trial, rung, val_acc))
        return answer

    def stop(self) -> None:
        ray.kill(self._actor)
