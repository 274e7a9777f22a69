"""The label stage: sends passes to the teachers and scales their number with the work.

    passes --by checkpoint--> queue of each replica --at most OPEN_PASSES--> teacher actor --> the store
                                | long for some seconds: one more replica starts; when it is ready, some
                                | checkpoints move to it. Idle for some seconds: the last replica ends.

Replicas are added and removed in this stage only: students, which may request labels of views, know only the
permanent ones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ray

from raydc.orchestration.routing import Autoscaler
from raydc.orchestration.teacher_actor import TeacherPool
from raydc.spec.plan import LabelPass

OPEN_PASSES = 64
"""Most label passes that are open at one replica at a time."""


def label_all(
    passes: Iterable[LabelPass], pool: TeacherPool, autoscaler: Autoscaler
) -> Iterator[tuple[LabelPass, int | Exception]]:
    """Yield each pass when it is in the store with the number of images forwarded for it, or its error."""
    # By checkpoint, so that a replica loads each once and forwards its sets together.
    queues = _routed(sorted(passes, key=_checkpoint), pool)
    asked: dict[Any, tuple[LabelPass, int]] = {}
    try:
        while asked or any(queues):
            under_way = Counter(replica for _, replica in asked.values())
            for replica, queue in enumerate(queues):
                while queue and under_way[replica] < OPEN_PASSES:
                    label_pass = queue.pop()
                    asked[pool.ask(label_pass)] = label_pass, replica
                    under_way[replica] += 1
            ready, _ = ray.wait(list(asked), num_returns=min(16, len(asked)), timeout=0.5)
            for reference in ready:
                label_pass, _ = asked.pop(reference)
                try:
                    yield label_pass, ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield label_pass, error
            if autoscaler.most > autoscaler.fewest and pool.staff(_wanted(autoscaler, pool, queues, asked)):
                queues = _routed(sorted((p for queue in queues for p in queue), key=_checkpoint), pool)
    finally:
        pool.staff(autoscaler.fewest)


def _routed(waiting: Iterable[LabelPass], pool: TeacherPool) -> list[list[LabelPass]]:
    """The passes that wait for each replica, in reverse order."""
    queues: list[list[LabelPass]] = [[] for _ in pool.replicas]
    for label_pass in waiting:
        queues[pool.serves(label_pass)].append(label_pass)
    return [queue[::-1] for queue in queues]


def _wanted(
    autoscaler: Autoscaler,
    pool: TeacherPool,
    queues: list[list[LabelPass]],
    asked: Mapping[Any, tuple[LabelPass, int]],
) -> int:
    busy = {number for number, queue in enumerate(queues) if queue}
    busy |= {number for _, number in asked.values()}
    left = {_checkpoint(p): p for queue in queues for p in queue}
    size = pool.size
    return autoscaler.wanted(
        time.monotonic(),
        size,
        sum(map(len, queues)) + len(asked),
        helps=any(pool.serves(label_pass, size + 1) == size for label_pass in left.values()),
        last_idle=size == len(pool.replicas) and size - 1 not in busy,
    )


def _checkpoint(label_pass: LabelPass) -> tuple[str, int]:
    return label_pass.trajectory, label_pass.epoch or 0
