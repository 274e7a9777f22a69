"""Pure decisions: who serves a checkpoint, and what makes a bundle."""

from __future__ import annotations

from raydc.orchestration.routing import BUNDLE_SECONDS, LARGEST_BUNDLE, Queue, replica_for, spread


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
