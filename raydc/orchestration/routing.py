"""Scheduling decisions as pure functions, tested without Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

BUNDLE_SECONDS = 4.0
"""Target duration of a bundle: long compared to a Tune trial (13 to 34 ms), short compared to a study."""
LARGEST_BUNDLE = 256
SHARE = 3
"""A bundle has at most 1 / SHARE of a worker's part of the remaining work, so that all workers end
together."""
QUEUE_PER_REPLICA = 16
"""If more label passes wait per replica for CROWDED_SECONDS, another replica is started."""
SCALE_UP_SECONDS = 5.0
IDLE_SECONDS = 10.0
"""A replica that has been idle for this long is ended."""


def replica_for(checkpoint: str, replicas: int) -> int:
    """Which of `replicas` teacher actors serves a checkpoint (rendezvous hashing).

    The same checkpoint goes to the same replica, so it is loaded once; a change of the number of replicas
    moves as few checkpoints as possible.
    """

    def weight(replica: int) -> bytes:
        return hashlib.sha256(f"{checkpoint}/{replica}".encode()).digest()

    return max(range(replicas), key=weight)


@dataclass
class Autoscaler:
    """Decides the number of teacher replicas from the number of waiting passes."""

    fewest: int
    most: int
    _queued_since: float | None = None
    _idle_since: float | None = None

    def wanted(self, now: float, replicas: int, waiting: int, *, helps: bool, last_idle: bool) -> int:
        """The wanted number of replicas: one more, one fewer, or unchanged.

        now: seconds of a monotonic clock; waiting: label passes that are not made yet; helps: whether
        one more replica would serve any of them; last_idle: whether the last one serves none of them.
        """
        crowded = helps and waiting > QUEUE_PER_REPLICA * replicas and replicas < self.most
        idle = last_idle and replicas > self.fewest
        self._queued_since = _since(self._queued_since, now) if crowded else None
        self._idle_since = _since(self._idle_since, now) if idle else None
        if self._queued_since is not None and now - self._queued_since >= SCALE_UP_SECONDS:
            self._queued_since = None
            return replicas + 1
        if self._idle_since is not None and now - self._idle_since >= IDLE_SECONDS:
            self._idle_since = None
            return replicas - 1
        return replicas


def _since(before: float | None, now: float) -> float:
    return now if before is None else before


def spread(sizes: Iterable[int], slots: int, most: int) -> list[int]:
    """The number of `slots` threads for each of several concurrent jobs: at least one, at most `most`."""
    count = len(list(sizes))
    return [max(1, min(most, slots // max(1, count)))] * count


class Queue(Generic[T]):
    """Evaluations that wait for a worker, the costliest first.

    With `shape`, items of equal shape are handed out together, a share to each worker. `cost` is in any unit
    proportional to seconds; the seconds per unit are estimated from finished items.
    """

    def __init__(
        self,
        items: Iterable[T],
        cost: Callable[[T], float],
        workers: int,
        *,
        shape: Callable[[T], str] | None = None,
    ) -> None:
        self._cost = cost
        self._workers = max(1, workers)
        self._shape = None if shape is None else _remembered(shape)
        # Items of one shape stay together, so that a bundle contains whole packs.
        self._waiting = sorted(items, key=lambda i: (cost(i), self._shape(i) if self._shape else ""))
        self._alone: list[T] = []
        self._learnt = 0
        self._seconds = 0.0
        self._units = 0.0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._alone)

    def add(self, items: Iterable[T]) -> None:
        """Add items that became known later; they wait behind all others."""
        self._waiting[:0] = reversed(list(items))

    def put_back(self, item: T) -> None:
        """Put back an item whose worker died; it is handed out again, alone."""
        self._alone.append(item)

    def learn(self, item: T, seconds: float) -> None:
        """Record the seconds that an item took."""
        self._learnt += 1
        self._seconds += seconds
        self._units += self._cost(item)

    def seconds_left(self, unknown: int = 0) -> float | None:
        """Worker-seconds of the waiting items and of `unknown` average ones; None before the first result."""
        if self._units == 0:
            return None
        cost = sum(map(self._cost, self._waiting)) + sum(map(self._cost, self._alone))
        return cost * self._seconds / self._units + unknown * self._seconds / self._learnt

    def later(self, item: T) -> int:
        """A worker's share of the number of waiting items with the shape of `item`."""
        if self._shape is None:
            return 0
        alike = sum(self._shape(other) == self._shape(item) for other in self._waiting)
        return alike // self._workers

    def take(self) -> list[T]:
        """The next bundle; empty when nothing waits."""
        if self._alone:
            return [self._alone.pop()]
        if not self._waiting:
            return []
        bundle = [self._waiting.pop()]
        if self._shape is not None:
            return self._pack(bundle[0], self._shape)
        if self._units == 0:
            return bundle
        rate = self._seconds / self._units
        share = sum(map(self._cost, self._waiting)) * rate / (self._workers * SHARE)
        budget = min(BUNDLE_SECONDS, share)
        spent = self._cost(bundle[0]) * rate
        while self._waiting and len(bundle) < LARGEST_BUNDLE:
            spent += self._cost(self._waiting[-1]) * rate
            if spent > budget:
                break
            bundle.append(self._waiting.pop())
        return bundle

    def _pack(self, first: T, shape: Callable[[T], str]) -> list[T]:
        """All waiting items of one shape, or a worker's share of them."""
        alike = [item for item in self._waiting if shape(item) == shape(first)]
        count = min(LARGEST_BUNDLE, -(-(len(alike) + 1) // self._workers))
        chosen = alike[::-1][: count - 1]
        names = {id(item) for item in chosen}
        self._waiting = [item for item in self._waiting if id(item) not in names]
        return [first, *chosen]


def _remembered(shape: Callable[[T], str]) -> Callable[[T], str]:
    """`shape`, cached for each item by identity, because items need not be hashable."""
    known: dict[int, tuple[T, str]] = {}

    def remembered(item: T) -> str:
        # The item is stored with its shape, so that its id is not reused.
        if id(item) not in known:
            known[id(item)] = item, shape(item)
        return known[id(item)][1]

    return remembered
