"""Work that several workers make together, such as a teacher, with Ray Train.

    task --fit--> controller of Ray Train --> workers, each with its part of every batch
     ^                                          |
     +------ progress <--- queue <--- the first worker, which also evaluates and saves

If a worker dies, the others end; Ray Train restarts all of them, and they resume from the last state in the
store. The result is the same as with one worker, up to the order of sums.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from threading import Thread
from typing import Any

from ray.util.queue import Queue

from raydc.errors import InputError, RaydcError
from raydc.networks import zoo
from raydc.orchestration.cluster import Capacity
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.facts import DataFacts
from raydc.spec.plan import Plan
from raydc.spec.study_file import Resources
from raydc.store.saved import OnProgress
from raydc.training.group import check_together
from raydc.worker.making import make
from raydc.worker.work import Work

PATIENCE_SECONDS = 6 * 3600
"""Timeout for workers that wait for the first one, which may be evaluating."""


@dataclass(frozen=True)
class Together:
    """Resources of several workers that make one piece of work."""

    workers: int
    cpus: int
    """CPU cores per worker."""
    gpu: float
    """Fraction of a GPU per worker; above a half, so that no two share a GPU. 0 without GPUs."""
    retries: int
    """How often the workers are restarted after one has died."""


def check_workers(plan: Plan, facts: DataFacts, resources: Resources, capacity: Capacity) -> None:
    """Raise `InputError` if teachers cannot be trained by the requested number of workers."""
    workers = resources.teacher_workers
    if workers == 1:
        return
    there = int(capacity.gpus) or capacity.cpus
    if workers > there:
        raise InputError(
            f"resources.teacher_workers is {workers}, but there are {there} "
            f"{'GPUs' if capacity.gpus else 'CPU cores'}; choose at most {there}"
        )
    for job in plan.trajectories.values():
        if job.teacher.trained_here:
            network = zoo.build(job.teacher.arch, facts.channels, facts.classes, facts.resolution)
            images = sum(facts.train_counts)
            check_together(job.teacher.recipe, network, images, workers, gpus=capacity.gpus > 0)


def make_together(context: WorkerContext, work: Work, how: Together, on_progress: OnProgress) -> None:
    """Make a piece of work with several workers; raises raydc's own errors, or Ray Train's."""
    # Imported here because it takes a second, and only such a training needs it.
    from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchConfig, TorchTrainer

    queue = Queue(actor_options={"num_cpus": 0})
    relay = Thread(target=_relay, args=(queue, on_progress), daemon=True)
    relay.start()
    # Ray Train needs its own storage folder; states go through the store.
    folder = tempfile.mkdtemp(prefix="raydc-train-")
    try:
        TorchTrainer(
            _work,
            train_loop_config={"site": context, "work": work, "queue": queue},
            torch_config=TorchConfig(timeout_s=PATIENCE_SECONDS),
            scaling_config=ScalingConfig(
                num_workers=how.workers,
                use_gpu=how.gpu > 0,
                resources_per_worker={"CPU": how.cpus} | ({"GPU": how.gpu} if how.gpu else {}),
            ),
            run_config=RunConfig(
                name=work.id, storage_path=folder, failure_config=FailureConfig(max_failures=how.retries)
            ),
        ).fit()
    except WorkerGroupError as error:
        own = (e for e in error.worker_failures.values() if isinstance(e, RaydcError))
        raise next(own, error) from None
    finally:
        queue.put(None)
        relay.join()
        queue.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _relay(queue: Queue, on_progress: OnProgress) -> None:
    while (event := queue.get()) is not None:
        on_progress(*event)


def _work(config: dict[str, Any]) -> None:
    """The training function of each worker."""
    queue = config["queue"]
    make(config["work"], config["site"].bench(), lambda done, total: queue.put((done, total)))
