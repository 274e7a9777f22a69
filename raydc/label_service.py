"""The label service: one process that labels for many clients at once, without Ray.

    client --label(pass)--> [ waiting, by checkpoint, at most MOST_WAITING ] --batch--> forward thread
       ^                                                                                      |
       +---------- the pass is in the store <---------- writer threads <---logits-------------+

A client waits for its own pass only. A full queue makes further clients wait at the door. Requests for
one checkpoint that wait together are forwarded together; a pass that is already asked for is waited
for, not made twice; one that is in the store is answered at once. The forward runs in a thread and goes
on while others write its labels, so the device does not wait for the disk. Labels go through the store,
where every worker of a machine maps them into memory: neither the driver nor a message ever holds them.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from raydc.spec.plan import LabelPass
from raydc.workbench import Said, Workbench, labelled

MOST_WAITING = 256
"""Requests that may wait in the service; more wait outside."""
MOST_TOGETHER = 32
"""Passes of one checkpoint that are forwarded together."""
MOST_UNWRITTEN = 2 * MOST_TOGETHER
"""Passes that are in memory for want of a disk that is fast enough; the forward waits for it then."""
WRITERS = 4
"""Threads that write labels; most of their time they wait for the disk."""


class LabelService:
    """Labels passes with the teachers of one workbench."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._door = asyncio.Semaphore(MOST_WAITING)
        self._open: dict[str, asyncio.Future[int]] = {}
        self._waiting: dict[tuple[str, int | None], list[LabelPass]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writers = ThreadPoolExecutor(max_workers=WRITERS)
        self._written: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self.forwards = 0
        """Batches of passes forwarded."""

    async def label(self, label_pass: LabelPass) -> int:
        """Return when the pass is in the store; the number of images that were forwarded for it."""
        while (asked := self._open.get(label_pass.id)) is not None:
            # Waited for, not awaited: the client that asked may go away, and is then followed.
            await asyncio.wait([asked])
            if not asked.cancelled():
                asked.result()
            # It may have asked for fewer views than this client, so the store is looked at again.
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        done.add_done_callback(_seen)
        self._open[label_pass.id] = done
        try:
            # A store may be far away, and the other clients do not wait for it.
            there = await loop.run_in_executor(None, labelled, label_pass, self._bench.store)
            if not there:
                await self._door.acquire()
        except BaseException:
            done.cancel()
            del self._open[label_pass.id]
            raise
        if there:
            done.set_result(0)
            del self._open[label_pass.id]
            return 0
        checkpoint = (label_pass.trajectory, label_pass.epoch)
        self._waiting.setdefault(checkpoint, []).append(label_pass)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._serve())
        # A client that goes away leaves its pass to be made: others may wait for it.
        return await asyncio.shield(done)

    async def _serve(self) -> None:
        """Forward what waits, one checkpoint at a time, the longest waiting first."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            checkpoint = next(iter(self._waiting))
            asked = self._waiting.pop(checkpoint)
            together, later = asked[:MOST_TOGETHER], asked[MOST_TOGETHER:]
            if later:
                self._waiting[checkpoint] = later
            outcomes = await loop.run_in_executor(self._thread, self._forward, together)
            for label_pass, outcome in zip(together, outcomes, strict=True):
                task = loop.create_task(self._finish(label_pass.id, outcome))
                self._written.add(task)  # the loop itself keeps no task alive
                task.add_done_callback(self._written.discard)
            while len(self._written) > MOST_UNWRITTEN:
                await asyncio.wait(self._written, return_when=asyncio.FIRST_COMPLETED)

    async def _finish(self, name: str, outcome: Said | Exception) -> None:
        """Store what was said, and tell those who wait for it."""
        if isinstance(outcome, Said):
            try:
                await asyncio.get_running_loop().run_in_executor(self._writers, self._bench.keep, outcome)
            except Exception as error:  # handed to the client that waits for it
                outcome = error
        future = self._open.pop(name)
        self._door.release()
        if isinstance(outcome, Said):
            future.set_result(outcome.images)
        else:
            future.set_exception(outcome)

    def _forward(self, together: list[LabelPass]) -> list[Said | Exception]:
        """What is said for each pass, or why nothing is: a bad pass fails alone."""
        self.forwards += 1
        try:
            return list(self._bench.say(together))
        except Exception as error:  # handed to the client that waits for it
            if len(together) == 1:
                return [error]
        return [outcome for label_pass in together for outcome in self._forward([label_pass])]


def _seen(future: asyncio.Future[int]) -> None:
    """Look at the outcome, so that one that nobody waits for any more is not reported as lost."""
    if not future.cancelled():
        future.exception()
