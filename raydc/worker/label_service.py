"""The label service: one process that labels for many clients at once, without Ray.

    client --label(pass)--> [ door: MOST_WAITING passes ] --> [ waiting, by checkpoint ]
       ^                                                        | at most MOST_TOGETHER of one checkpoint
       |                                                        v
       |                                                   forward thread (one)
       |                                                        | the logits of a set, or of a segment of
       |                                                        v views; of small sets, HANDED_BYTES together
       +-- the pass is in the store <-- writer threads <-- [ room: UNWRITTEN_BYTES ]

Who waits for what: a client for its own pass only. A client beyond MOST_WAITING waits at the door until a
pass of another is in the store, or has failed. The forward waits for room until writers have stored enough;
writers wait for the disk alone, so there is no circle.

What waits together for one checkpoint is forwarded together: batches span sets, but sets are read, labelled
and handed on one after the other, so memory does not grow with their number. A pass that is already asked for
is waited for, not made twice; one that is in the store is answered at once. The forward goes on while others
write, so the device does not wait for the disk. Labels go through the store, where every worker of a machine
maps them into memory: neither the driver nor a message ever holds them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition

from raydc.spec.plan import LabelPass
from raydc.worker.relabeller import Prediction, labelled
from raydc.worker.workbench import Workbench

MOST_WAITING = 256
"""Passes in the service, until they are in the store; those who ask for more wait outside."""
MOST_TOGETHER = 32
"""Passes of one checkpoint that are forwarded together."""
UNWRITTEN_BYTES = 512 << 20
"""Logits that are in memory for want of a disk that is fast enough; the forward waits for it then."""
HANDED_BYTES = 16 << 20
"""Logits that are handed on at a time: set by set, where sets are small, would take the forward's core again
and again (up to a tenth of its rate)."""
WRITERS = 4
"""Threads that write labels; most of their time they wait for the disk."""


class ByteBudget:
    """So many bytes that may be taken; what is larger than all of it has it alone."""

    def __init__(self, nbytes: int) -> None:
        self._most = nbytes
        self._taken = 0
        self._changed = Condition()

    def enter(self, nbytes: int) -> None:
        """Return when there is room, and take it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + nbytes <= self._most)
            self._taken += nbytes

    def leave(self, nbytes: int) -> None:
        """Give it back."""
        with self._changed:
            self._taken -= nbytes
            self._changed.notify_all()


@dataclass(frozen=True)
class _Outcome:
    """What the forward has made of a pass."""

    label_pass: str
    images: int = 0
    """That were forwarded for it."""
    writes: Sequence[Future[None]] = ()
    """What is to be stored of it."""
    error: Exception | None = None


_Tell = Callable[[list[_Outcome]], None]


class LabelService:
    """Labels passes with the teachers of one workbench."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._door = asyncio.Semaphore(MOST_WAITING)
        self._budget = ByteBudget(UNWRITTEN_BYTES)
        self._open: dict[str, asyncio.Future[int]] = {}
        self._waiting: dict[tuple[str, int | None], list[LabelPass]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writers = ThreadPoolExecutor(max_workers=WRITERS)
        self._finishing: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self.forwards = 0
        """Batches of passes forwarded."""

    @property
    def images_forwarded(self) -> int:
        """Images that were labelled."""
        return self._bench.relabeller.images_forwarded

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

        def tell(outcomes: list[_Outcome]) -> None:
            loop.call_soon_threadsafe(self._said, outcomes)

        while self._waiting:
            checkpoint = next(iter(self._waiting))
            asked = self._waiting.pop(checkpoint)
            together, later = asked[:MOST_TOGETHER], asked[MOST_TOGETHER:]
            if later:
                self._waiting[checkpoint] = later
            await loop.run_in_executor(self._thread, self._forward, together, tell)

    def _said(self, outcomes: list[_Outcome]) -> None:
        for outcome in outcomes:
            task = asyncio.get_running_loop().create_task(self._finish(outcome))
            self._finishing.add(task)  # the loop itself keeps no task alive
            task.add_done_callback(self._finishing.discard)

    async def _finish(self, outcome: _Outcome) -> None:
        """Tell those who wait for a pass when it is stored, or why it is not."""
        writes = [asyncio.wrap_future(write) for write in outcome.writes]
        stored = await asyncio.gather(*writes, return_exceptions=True)
        error = next((one for one in [outcome.error, *stored] if one is not None), None)
        future = self._open.pop(outcome.label_pass)
        self._door.release()
        if error is None:
            future.set_result(outcome.images)
        else:
            future.set_exception(error)

    def _forward(self, together: list[LabelPass], tell: _Tell) -> None:
        """Say what is asked and have it written; a bad pass fails alone. In the forward thread."""
        self.forwards += 1
        left = {label_pass.id: label_pass for label_pass in together}
        images: dict[str, int] = defaultdict(int)
        writes: dict[str, list[Future[None]]] = defaultdict(list)
        failed = None
        try:
            for some in _gathered(self._bench.relabeller.label(together)):
                done = []
                for said in some:
                    name = said.label_pass
                    images[name] += said.images
                    self._budget.enter(said.nbytes)
                    writes[name].append(self._writers.submit(self._write, said))
                    if said.last:
                        del left[name]
                        done.append(_Outcome(name, images[name], writes[name]))
                tell(done)
        except Exception as error:  # handed to the client that waits for it
            failed = error
        for label_pass in left.values():
            if len(together) == 1:
                tell([_Outcome(label_pass.id, writes=writes[label_pass.id], error=failed)])
            else:
                self._forward([label_pass], tell)

    def _write(self, said: Prediction) -> None:
        """Store what was said. In a writer thread."""
        try:
            self._bench.relabeller.store(said)
        finally:
            self._budget.leave(said.nbytes)


def _gathered(said: Iterable[Prediction]) -> Iterator[list[Prediction]]:
    """What is said, some HANDED_BYTES at a time; before an error, what was said until then."""
    group: list[Prediction] = []
    failed = None
    try:
        for one in said:
            group.append(one)
            if sum(each.nbytes for each in group) >= HANDED_BYTES:
                yield group
                group = []
    except Exception as error:  # raised again below
        failed = error
    yield group
    if failed is not None:
        raise failed


def _seen(future: asyncio.Future[int]) -> None:
    """Look at the outcome, so that one that nobody waits for any more is not reported as lost."""
    if not future.cancelled():
        future.exception()
