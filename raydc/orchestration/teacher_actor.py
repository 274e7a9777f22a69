"""Teacher actors: replicas of the label service (raydc.worker.label_service) on Ray.

If an actor dies, Ray restarts it and resends open requests (labelling is a pure function, so at-least-once is
enough), MOST_DEATHS times; its state is loaded from the store again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from raydc.orchestration.routing import replica_for
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.plan import LabelPass
from raydc.worker.label_service import LabelService

MOST_DEATHS = 10
"""Number of times that a pass is retried after its replica died; then it fails."""
COUNTING_SECONDS = 5.0
"""Longest wait for the image counts of replicas; one that is restarting does not answer."""
PLACING_SECONDS = 30.0
"""Longest wait for a place on a GPU, which other users of the cluster may occupy."""


@ray.remote
class TeacherActor:
    """One replica of the label service."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._service: LabelService | None = None

    async def label(self, label_pass: LabelPass) -> int:
        """As `LabelService.label`."""
        if self._service is None:
            self._service = LabelService(self._context.bench())
        return await self._service.label(label_pass)

    async def images_forwarded(self) -> int:
        """Number of images that it has labelled since it was started."""
        return 0 if self._service is None else self._service.images_forwarded

    async def ready(self) -> bool:
        """Return when the actor has started."""
        return True

    async def pid(self) -> int:
        """Process id, for monitoring."""
        return os.getpid()


@ray.remote
class _Holder:
    """Reserves a share of a GPU and does nothing with it."""

    def ready(self) -> bool:
        return True


@contextmanager
def only_free(share: float, gpus: int) -> Iterator[None]:
    """Within the block, each GPU has only `share` free, so that new actors are spread over all GPUs.

    Ray packs small shares on one GPU as long as they fit, and then no student fits next to them.
    """
    holder_class: Any = _Holder
    holders = [holder_class.options(num_cpus=0, num_gpus=1 - share).remote() for _ in range(gpus)]
    try:
        ray.wait([holder.ready.remote() for holder in holders], num_returns=gpus, timeout=PLACING_SECONDS)
        yield
    finally:
        for holder in holders:
            ray.kill(holder)


class TeacherPool:
    """Client of the replicas; it can be sent to other processes, which see the replicas at that time."""

    def __init__(self, context: WorkerContext, more: dict[str, Any]) -> None:
        """`more`: resources that Ray is asked for per temporary replica."""
        self._context = context
        self._more = more
        self.replicas: list[Any] = []
        self._coming: list[tuple[Any, Any]] = []
        """Replicas that are starting, each with an object reference that is ready when the replica is."""

    @staticmethod
    def start(
        context: WorkerContext, replicas: int, options: dict[str, Any], more: dict[str, Any] | None = None
    ) -> TeacherPool:
        """Start replicas that Ray restarts after failures."""
        pool = TeacherPool(context, more or options)
        pool.replicas = [pool._new(options) for _ in range(replicas)]
        return pool

    def _new(self, options: dict[str, Any]) -> Any:
        remote_class: Any = TeacherActor
        return remote_class.options(max_restarts=-1, max_task_retries=MOST_DEATHS, **options).remote(
            self._context
        )

    @property
    def size(self) -> int:
        """Number of replicas, including those that are starting."""
        return len(self.replicas) + len(self._coming)

    def wait(self) -> None:
        """Wait until all replicas, or those for which there is room, have started."""
        started = [replica.ready.remote() for replica in self.replicas]
        ray.wait(started, num_returns=len(started), timeout=PLACING_SECONDS)

    def staff(self, wanted: int) -> bool:
        """Start or end replicas; returns whether the set of active replicas has changed.

        A new replica becomes active when it is ready; one that is ended must have no open passes.
        """
        before = len(self.replicas)
        while self.size < wanted:
            actor = self._new(self._more)
            self._coming.append((actor, actor.ready.remote()))
        while self.size > wanted:
            ray.kill(self._coming.pop()[0] if self._coming else self.replicas.pop())
        for coming in list(self._coming):
            if ray.wait([coming[1]], timeout=0)[0]:
                self._coming.remove(coming)
                self.replicas.append(coming[0])
        return len(self.replicas) != before

    def serves(self, label_pass: LabelPass, replicas: int | None = None) -> int:
        """Index of the replica that labels a pass; the same for all passes of a checkpoint."""
        checkpoint = f"{label_pass.trajectory}-{label_pass.epoch}"
        return replica_for(checkpoint, len(self.replicas) if replicas is None else replicas)

    def ask(self, label_pass: LabelPass) -> Any:
        """Request a pass; the returned object reference is ready when the pass is in the store."""
        return self.replicas[self.serves(label_pass)].label.remote(label_pass)

    def ensure(self, label_pass: LabelPass) -> None:
        """Wait until the pass is in the store (`raydc.worker.workbench.Labeller`); raises the teacher's
        error."""
        try:
            ray.get(self.ask(label_pass))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    def images_forwarded(self) -> int:
        """Number of images that the replicas have labelled; a replica that died loses its count."""
        asked = [replica.images_forwarded.remote() for replica in self.replicas]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=COUNTING_SECONDS) if asked else ([], [])
        return sum(ray.get(answered))

    def stop(self) -> None:
        self.staff(0)
