"""A teacher that several workers train together: Ray Train around the core's training.

    task --fit--> controller of Ray Train --> workers, each with its part of every batch
     ^                                          |
     +------ progress <--- queue <--- the first worker, which also measures and saves

A worker that dies ends the others; Ray Train starts all anew, and they go on from the last state in the
store. What comes out is what one worker alone would make, up to the order of sums.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Any

from ray.util.queue import Queue

from raydc.errors import RaydcError
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.plan import TrajectoryJob
from raydc.training.group import Group

PATIENCE_SECONDS = 6 * 3600
"""How long workers wait for the first one, which may be measuring."""


@dataclass(frozen=True)
class Together:
    """How several workers train one teacher."""

    workers: int
    cpus: int
    """Of each worker."""
    gpu: float
    """Part of a GPU that each worker takes; above a half, so that no two share one. 0 without GPUs."""
    retries: int
    """How often they are started anew after one has died."""


def train_together(
    context: WorkerContext, job: TrajectoryJob, how: Together, on_progress: Callable[[int, int], None]
) -> None:
    """Make a trajectory with several workers; raises raydc's own errors, or Ray Train's."""
    # A second to load, which only such a training needs.
    from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchConfig, TorchTrainer

    queue = Queue(actor_options={"num_cpus": 0})
    relay = Thread(target=_relay, args=(queue, on_progress), daemon=True)
    relay.start()
    # Ray Train wants a place of its own; states travel through the store.
    folder = tempfile.mkdtemp(prefix="raydc-train-")
    try:
        TorchTrainer(
            _work,
            train_loop_config={"site": context, "job": job, "queue": queue},
            torch_config=TorchConfig(timeout_s=PATIENCE_SECONDS),
            scaling_config=ScalingConfig(
                num_workers=how.workers,
                use_gpu=how.gpu > 0,
                resources_per_worker={"CPU": how.cpus} | ({"GPU": how.gpu} if how.gpu else {}),
            ),
            run_config=RunConfig(
                name=job.id, storage_path=folder, failure_config=FailureConfig(max_failures=how.retries)
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


def _relay(queue: Queue, on_progress: Callable[[int, int], None]) -> None:
    while (event := queue.get()) is not None:
        on_progress(*event)


def _work(config: dict[str, Any]) -> None:
    """What each worker does."""
    queue = config["queue"]
    bench = config["site"].bench()
    bench.make_trajectory(config["job"], lambda done, total: queue.put((done, total)), Group.current())
