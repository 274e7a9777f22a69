"""Teacher actors: replicas of the label service (raydc.label_service) on Ray.

If an actor dies, Ray starts it anew and sends open requests again (labelling is a pure function, so
at-least-once is enough), MOST_DEATHS times; what it had in memory is loaded from the store.
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
"""So often a pass is asked again whose replica has died; then it cannot be made."""
COUNTING_SECONDS = 5.0
"""Longest wait for what replicas have labelled; one that starts anew does not answer."""
PLACING_SECONDS = 30.0
"""Longest wait for a place on a GPU, which others may use."""


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
        """Images that it has labelled since it was started."""
        return 0 if self._service is None else self._service.images_forwarded

    async def ready(self) -> bool:
        """Answers when the actor has started."""
        return True

    async def pid(self) -> int:
        """Process id, for those who look after processes."""
        return os.getpid()


@ray.remote
class _Holder:
    """Takes what is asked of a GPU, and does nothing with it."""

    def ready(self) -> bool:
        return True


@contextmanager
def only_free(share: float, gpus: int) -> Iterator[None]:
    """Within, each of the GPUs has only `share` free, so that what starts there is on all of them.

    Ray puts small shares on one GPU for as long as they fit, and then no student fits beside them.
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
    """The replicas as their clients see them; it may be sent to other processes, which know only these."""

    def __init__(self, context: WorkerContext, more: dict[str, Any]) -> None:
        """`more`: what Ray is asked for each replica that comes and goes."""
        self._context = context
        self._more = more
        self.replicas: list[Any] = []
        self._coming: list[tuple[Any, Any]] = []
        """Replicas that are being started, each with the reference that is ready when it is."""

    @staticmethod
    def start(
        context: WorkerContext, replicas: int, options: dict[str, Any], more: dict[str, Any] | None = None
    ) -> TeacherPool:
        """Start replicas that outlive their failures."""
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
        """Replicas, those that are being started among them."""
        return len(self.replicas) + len(self._coming)

    def wait(self) -> None:
        """Return when all replicas have started, or those have that find a place."""
        started = [replica.ready.remote() for replica in self.replicas]
        ray.wait(started, num_returns=len(started), timeout=PLACING_SECONDS)

    def staff(self, wanted: int) -> bool:
        """Start or end replicas; whether others than before are asked from now on.

        One that is started is asked when it is ready; one that is ended must have nothing open.
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
        """Which replica labels a pass, of so many: the same for all passes of a checkpoint."""
        checkpoint = f"{label_pass.trajectory}-{label_pass.epoch}"
        return replica_for(checkpoint, len(self.replicas) if replicas is None else replicas)

    def ask(self, label_pass: LabelPass) -> Any:
        """Ask for a pass; the reference is ready when the pass is in the store."""
        return self.replicas[self.serves(label_pass)].label.remote(label_pass)

    def ensure(self, label_pass: LabelPass) -> None:
        """Return when the pass is in the store (`raydc.workbench.Labeller`); raises the teacher's error."""
        try:
            ray.get(self.ask(label_pass))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    def images_forwarded(self) -> int:
        """Images that the replicas have labelled; one that died has forgotten its own."""
        asked = [replica.images_forwarded.remote() for replica in self.replicas]
        said, _ = ray.wait(asked, num_returns=len(asked), timeout=COUNTING_SECONDS) if asked else ([], [])
        return sum(ray.get(said))

    def stop(self) -> None:
        self.staff(0)
