"""The label service: one process that labels for many clients at once, without Ray.

    client --label(pass)--> [ door: MOST_WAITING passes ] --> [ waiting, by checkpoint ]
       ^                                                        | at most MOST_TOGETHER of one checkpoint
       |                                                        v
       |                                                   forward thread (one)
       |                                                        | the logits of a set, or of a segment of
       |                                                        v views; of small sets, HANDED_BYTES together
       +-- the pass is in the store <-- writer threads <-- [ room: UNWRITTEN_BYTES ]

A client waits only for its own pass. A client beyond MOST_WAITING waits at the door until another pass is in
the store or has failed. The forward thread waits for room until writers have stored enough; writers wait only
for the disk, so there is no deadlock.

Passes that wait for the same checkpoint are forwarded together: batches span sets, but sets are read,
labelled and passed on one after the other, so memory does not grow with their number. A pass that is already
requested is not made twice; one that is in the store is answered at once. The forward thread continues while
the writers write, so the device does not wait for the disk. Labels go through the store, where every worker
of a machine maps them into memory: they pass neither through the driver nor through messages.
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
"""Most passes in the service that are not in the store yet; further clients wait at the door."""
MOST_TOGETHER = 32
"""Most passes of one checkpoint that are forwarded together."""
UNWRITTEN_BYTES = 512 << 20
"""Most bytes of logits in memory that are not written yet; beyond it the forward thread waits for the
disk."""
HANDED_BYTES = 16 << 20
"""Bytes of logits that are passed to the writers at a time: passing on small sets one by one would cost up to
a tenth of the forward rate."""
WRITERS = 4
"""Threads that write labels; they mostly wait for the disk."""


class ByteBudget:
    """A limit on the bytes in use; a request larger than the limit waits until it can have all of it."""

    def __init__(self, nbytes: int) -> None:
        self._most = nbytes
        self._taken = 0
        self._changed = Condition()

    def enter(self, nbytes: int) -> None:
        """Wait until `nbytes` are free, and take them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + nbytes <= self._most)
            self._taken += nbytes

    def leave(self, nbytes: int) -> None:
        """Give `nbytes` back."""
        with self._changed:
            self._taken -= nbytes
            self._changed.notify_all()


@dataclass(frozen=True)
class _Outcome:
    """The outcome of forwarding a pass."""

    label_pass: str
    images: int = 0
    """Number of images that were forwarded for it."""
    writes: Sequence[Future[None]] = ()
    """Pending writes of its logits to the store."""
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
        """Number of images labelled so far."""
        return self._bench.relabeller.images_forwarded

    async def label(self, label_pass: LabelPass) -> int:
        """Wait until the pass is in the store; returns the number of images that were forwarded for it."""
        while (asked := self._open.get(label_pass.id)) is not None:
            # asyncio.wait, not await: if the first client is cancelled, this one takes over the request.
            await asyncio.wait([asked])
            if not asked.cancelled():
                asked.result()
            # The first client may have requested fewer views, so the store is checked again.
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        done.add_done_callback(_seen)
        self._open[label_pass.id] = done
        try:
            # The store may be remote; the check must not block the other clients.
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
        # If a client is cancelled, its pass is still made: other clients may wait for it.
        return await asyncio.shield(done)

    async def _serve(self) -> None:
        """Forward the waiting passes, one checkpoint at a time, the longest waiting first."""
        loop = asyncio.get_running_loop()

        def tell(outcomes: list[_Outcome]) -> None:
            loop.call_soon_threadsafe(self._start_finishing, outcomes)

        while self._waiting:
            checkpoint = next(iter(self._waiting))
            asked = self._waiting.pop(checkpoint)
            together, later = asked[:MOST_TOGETHER], asked[MOST_TOGETHER:]
            if later:
                self._waiting[checkpoint] = later
            await loop.run_in_executor(self._thread, self._forward, together, tell)

    def _start_finishing(self, outcomes: list[_Outcome]) -> None:
        for outcome in outcomes:
            task = asyncio.get_running_loop().create_task(self._finish(outcome))
            self._finishing.add(task)  # the event loop holds only weak references to tasks
            task.add_done_callback(self._finishing.discard)

    async def _finish(self, outcome: _Outcome) -> None:
        """Resolve the future of a pass when it is stored, or set the error."""
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
        """Label the passes and submit the writes; a bad pass fails alone. Runs in the forward thread."""
        self.forwards += 1
        left = {label_pass.id: label_pass for label_pass in together}
        images: dict[str, int] = defaultdict(int)
        writes: dict[str, list[Future[None]]] = defaultdict(list)
        failed = None
        try:
            for some in _gathered(self._bench.relabeller.label(together)):
                done = []
                for prediction in some:
                    name = prediction.label_pass
                    images[name] += prediction.images
                    self._budget.enter(prediction.nbytes)
                    writes[name].append(self._writers.submit(self._write, prediction))
                    if prediction.last:
                        del left[name]
                        done.append(_Outcome(name, images[name], writes[name]))
                tell(done)
        except Exception as error:  # raised in the client that waits for it
            failed = error
        for label_pass in left.values():
            if len(together) == 1:
                tell([_Outcome(label_pass.id, writes=writes[label_pass.id], error=failed)])
            else:
                self._forward([label_pass], tell)

    def _write(self, prediction: Prediction) -> None:
        """Store a prediction. Runs in a writer thread."""
        try:
            self._bench.relabeller.store(prediction)
        finally:
            self._budget.leave(prediction.nbytes)


def _gathered(predictions: Iterable[Prediction]) -> Iterator[list[Prediction]]:
    """Predictions in groups of about HANDED_BYTES; on an error, first those made before it."""
    group: list[Prediction] = []
    failed = None
    try:
        for one in predictions:
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
    """Retrieve the exception, so that asyncio does not report it when no client waits any more."""
    if not future.cancelled():
        future.exception()
