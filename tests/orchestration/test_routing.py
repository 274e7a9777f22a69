"""Pure decisions: who serves a checkpoint, and what makes a bundle."""

from __future__ import annotations

from itertools import pairwise

from raydc.orchestration.routing import (
    BUNDLE_SECONDS,
    IDLE_SECONDS,
    LARGEST_BUNDLE,
    QUEUE_PER_REPLICA,
    SCALE_UP_SECONDS,
    Autoscaler,
    Queue,
    replica_for,
    spread,
)


def test_a_checkpoint_stays_with_its_replica() -> None:
    names = [f"t-{i}" for i in range(1000)]
    four = {name: replica_for(name, 4) for name in names}
    assert four == {name: replica_for(name, 4) for name in names}
    counts = [list(four.values()).count(i) for i in range(4)]
    assert min(counts) > 180
    five = {name: replica_for(name, 5) for name in names}
    moved = [name for name in names if four[name] != five[name]]
    assert all(five[name] == 4 for name in moved)
    assert len(moved) < 300


def staffed(
    autoscaler: Autoscaler,
    seconds: float,
    replicas: int,
    waiting: int,
    helps: bool = True,
    idle: bool = False,
) -> int:
    """Replicas after so many seconds of the same, looked at twice a second."""
    for moment in range(int(2 * seconds) + 1):
        wanted = autoscaler.wanted(moment / 2, replicas, waiting, helps=helps, last_idle=idle)
        if wanted != replicas:
            return wanted
    return replicas


def test_a_replica_is_added_where_many_passes_wait_for_long() -> None:
    assert staffed(Autoscaler(1, 4), SCALE_UP_SECONDS, 1, QUEUE_PER_REPLICA + 1) == 2
    assert staffed(Autoscaler(1, 4), SCALE_UP_SECONDS - 1, 1, QUEUE_PER_REPLICA + 1) == 1
    assert staffed(Autoscaler(1, 4), 100, 1, QUEUE_PER_REPLICA) == 1
    assert staffed(Autoscaler(1, 4), 100, 3, 3 * QUEUE_PER_REPLICA + 1) == 4
    assert staffed(Autoscaler(1, 4), 100, 4, 1000 * QUEUE_PER_REPLICA) == 4  # no more than there may be
    assert (
        staffed(Autoscaler(1, 4), 100, 2, 1000 * QUEUE_PER_REPLICA, helps=False) == 2
    )  # none that nobody would ask
    assert staffed(Autoscaler(3, 3), 100, 3, 1000 * QUEUE_PER_REPLICA) == 3


def test_a_crowd_that_comes_and_goes_adds_nothing() -> None:
    autoscaler = Autoscaler(1, 4)
    for second in range(100):
        assert (
            autoscaler.wanted(
                second, 1, QUEUE_PER_REPLICA + 1 if second % 4 else 0, helps=True, last_idle=False
            )
            == 1
        )


def test_growth_is_a_replica_at_a_time() -> None:
    autoscaler, replicas, grew = Autoscaler(1, 4), 1, []
    for second in range(30):
        wanted = autoscaler.wanted(second, replicas, 1000 * QUEUE_PER_REPLICA, helps=True, last_idle=False)
        if wanted > replicas:
            grew.append(second)
        replicas = wanted
    assert replicas == 4
    assert [b - a for a, b in pairwise(grew)] == [SCALE_UP_SECONDS + 1] * 2


def test_a_replica_without_work_is_ended_after_a_while() -> None:
    assert staffed(Autoscaler(1, 4), IDLE_SECONDS, 3, 5, idle=True) == 2
    assert staffed(Autoscaler(1, 4), IDLE_SECONDS - 1, 3, 5, idle=True) == 3
    assert staffed(Autoscaler(1, 4), 100, 3, 5, idle=False) == 3
    assert staffed(Autoscaler(2, 4), 100, 2, 0, idle=True) == 2


def test_threads_are_shared_by_jobs_that_run_at_once() -> None:
    assert spread([5], 8, 8) == [8]
    assert spread([5], 64, 8) == [8]  # what a node has
    assert spread([1, 1, 1], 8, 8) == [2, 2, 2]
    assert spread([1] * 10, 2, 8) == [1] * 10


def drain(queue: Queue[float], rate: float = 1.0) -> list[list[float]]:
    bundles = []
    while bundle := queue.take():
        bundles.append(bundle)
        for item in bundle:
            queue.learn(item, item * rate)
    return bundles


def test_the_costliest_come_first_and_all_come_once() -> None:
    items = [float(i) for i in range(1, 101)]
    bundles = drain(Queue(items, float, 2), rate=0.01)
    flat = [item for bundle in bundles for item in bundle]
    assert flat == sorted(items, reverse=True)


def test_bundles_are_single_until_a_rate_is_known_then_about_the_wanted_length() -> None:
    queue: Queue[float] = Queue([1.0] * 1000, float, 2)
    assert len(queue.take()) == len(queue.take()) == 1
    queue.learn(1.0, 0.1)
    assert 0.7 * BUNDLE_SECONDS <= 0.1 * len(queue.take()) <= BUNDLE_SECONDS + 1e-6


def test_bundles_shrink_at_the_end_so_that_workers_end_together() -> None:
    bundles = drain(Queue([1.0] * 60, float, 4), rate=0.5)
    assert max(map(len, bundles[-4:])) == 1
    slow = drain(Queue([1.0] * 10, float, 2), rate=60.0)
    assert all(len(bundle) == 1 for bundle in slow)


def test_what_comes_back_is_handed_out_alone() -> None:
    queue: Queue[float] = Queue([1.0] * 50, float, 1)
    queue.learn(1.0, 0.01)
    queue.put_back(7.0)
    assert queue.take() == [7.0]
    assert len(queue.take()) > 1


def test_the_time_left_is_learnt() -> None:
    queue: Queue[float] = Queue([2.0, 3.0], float, 1)
    assert queue.seconds_left() is None
    queue.learn(1.0, 0.5)
    assert queue.seconds_left() == 2.5


def test_packs_are_handed_out_by_shape_and_split_among_workers() -> None:
    items = [("a", i) for i in range(10)] + [("b", i) for i in range(3)]
    queue: Queue[tuple[str, int]] = Queue(items, lambda item: 1.0, 2, shape=lambda item: item[0])
    bundles = []
    while bundle := queue.take():
        bundles.append(bundle)
    assert sorted(item for bundle in bundles for item in bundle) == sorted(items)
    assert all(len({shape for shape, _ in bundle}) == 1 for bundle in bundles)
    # Half of what waits of a shape for each of two workers: the whole pack is out after a few bundles.
    assert [len(bundle) for bundle in bundles] == [2, 1, 5, 3, 1, 1]


def test_a_single_worker_gets_a_whole_pack() -> None:
    queue: Queue[int] = Queue(range(300), lambda item: 1.0, 1, shape=lambda item: "same")
    assert len(queue.take()) == LARGEST_BUNDLE
    assert len(queue.take()) == 300 - LARGEST_BUNDLE
    assert queue.take() == []


def test_a_bundle_knows_how_many_of_its_shape_come_later() -> None:
    asked = []

    def shape(item: int) -> str:
        asked.append(item)
        return "even" if item % 2 == 0 else "odd"

    queue: Queue[int] = Queue(range(1200), lambda item: 1.0, 2, shape=shape)
    (first, *others) = queue.take()
    assert len(others) == LARGEST_BUNDLE - 1
    assert queue.later(first) == (600 - LARGEST_BUNDLE) // 2
    while queue.take():
        pass
    assert queue.later(first) == 0
    assert sorted(asked) == list(range(1200))  # each item once
