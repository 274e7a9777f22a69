"""Teacher actors: checkpoints resident on their device, labelling for many clients at once.

    client --label(pass)--> [ waiting, by checkpoint, at most MOST_WAITING ] --batch--> forward thread
       ^                                                                                   |
       +------------------------- the pass is in the store <------------------------------+

A client waits for its own pass only. A full queue makes further clients wait at the door. Requests for
one checkpoint that wait together are forwarded together; a pass that is already asked for is waited
for, not made twice; one that is in the store is answered at once. The forward runs in a thread, so
the actor answers while it computes. If the actor dies, Ray starts it anew and sends open requests
again (labelling is a pure function, so at-least-once is enough); what it had in memory is loaded
from the store.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from raydc.orchestration.routing import replica_for
from raydc.orchestration.site import Site
from raydc.spec.plan import LabelPass
from raydc.workbench import labelled

MOST_WAITING = 256
"""Requests that may wait in the actor; more wait outside."""
MOST_TOGETHER = 32
"""Passes of one checkpoint that are forwarded together."""


class Batcher:
    """The actor's logic, without Ray."""

    def __init__(self, site: Site) -> None:
        self._bench = site.bench()
        self._door = asyncio.Semaphore(MOST_WAITING)
        self._open: dict[str, asyncio.Future[int]] = {}
        self._waiting: dict[tuple[str, int | None], list[LabelPass]] = {}
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._loop: asyncio.Task[None] | None = None
        self.forwards = 0
        """Batches of passes forwarded."""

    async def label(self, label_pass: LabelPass) -> int:
        """Return when the pass is in the store; the number of images that were forwarded for it."""
        if label_pass.id in self._open:
            await asyncio.shield(self._open[label_pass.id])
            return 0
        if labelled(label_pass, self._bench.store):
            return 0
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._open[label_pass.id] = done
        async with self._door:
            checkpoint = (label_pass.trajectory, label_pass.epoch)
            self._waiting.setdefault(checkpoint, []).append(label_pass)
            self._arrived.set()
            if self._loop is None or self._loop.done():
                self._loop = asyncio.create_task(self._serve())
            try:
                return await asyncio.shield(done)
            finally:
                self._open.pop(label_pass.id, None)

    async def _serve(self) -> None:
        """Forward what waits, one checkpoint at a time, the longest waiting first."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            checkpoint = next(iter(self._waiting))
            asked = self._waiting.pop(checkpoint)
            together, later = asked[:MOST_TOGETHER], asked[MOST_TOGETHER:]
            if later:
                self._waiting[checkpoint] = later
            try:
                counts = await loop.run_in_executor(self._thread, self._forward, together)
            except Exception as error:  # handed to every client that waits for it
                for label_pass in together:
                    future = self._open[label_pass.id]
                    future.set_exception(error)
                    future.exception()
            else:
                for label_pass, count in zip(together, counts, strict=True):
                    self._open[label_pass.id].set_result(count)

    def _forward(self, together: list[LabelPass]) -> list[int]:
        self.forwards += 1
        return self._bench.make_logits(together)


@ray.remote
class TeacherActor:
    """One replica of the label service."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._batcher: Batcher | None = None

    async def label(self, label_pass: LabelPass) -> int:
        """As `Batcher.label`."""
        if self._batcher is None:
            self._batcher = Batcher(self._site)
        return await self._batcher.label(label_pass)

    async def ready(self) -> bool:
        """Answers when the actor has started."""
        return True

    async def pid(self) -> int:
        """Process id, for those who look after processes."""
        return os.getpid()


class TeacherPool:
    """The replicas as their clients see them; it may be sent to other processes."""

    def __init__(self, replicas: Sequence[Any]) -> None:
        self.replicas = list(replicas)

    @staticmethod
    def start(site: Site, replicas: int, options: dict[str, Any]) -> TeacherPool:
        """Start replicas that outlive their failures."""
        remote_class: Any = TeacherActor
        actor = remote_class.options(max_restarts=-1, max_task_retries=-1, **options)
        return TeacherPool([actor.remote(site) for _ in range(replicas)])

    def ask(self, label_pass: LabelPass) -> Any:
        """Ask for a pass; the reference is ready when the pass is in the store."""
        checkpoint = f"{label_pass.trajectory}-{label_pass.epoch}"
        return self.replicas[replica_for(checkpoint, len(self.replicas))].label.remote(label_pass)

    def ensure(self, label_pass: LabelPass) -> None:
        """Return when the pass is in the store (`raydc.workbench.Labeller`)."""
        ray.get(self.ask(label_pass))

    def stop(self) -> None:
        for replica in self.replicas:
            ray.kill(replica)
