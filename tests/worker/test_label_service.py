"""The label service without Ray: batched, each pass forwarded once, bounded, bad passes alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raydc.errors import EvaluationError
from raydc.spec.plan import Plan
from raydc.spec.study import StudySpec
from raydc.store.local import LocalStore
from raydc.worker import label_service, relabeller
from raydc.worker.label_service import ByteBudget, LabelService
from raydc.worker.making import make
from raydc.worker.planned_work import work_of
from raydc.worker.relabeller import Prediction, labelled
from raydc.worker.workbench import Workbench

Fresh = Callable[[], Workbench]


@pytest.fixture
def fresh(bench: Workbench) -> Fresh:
    """`fresh()`: a workbench that has nothing in memory."""
    return lambda: Workbench(bench.dataset, LocalStore(bench.store.root), bench.device)


@pytest.fixture
def plan(small: Callable[..., StudySpec], unlabelled: Callable[[StudySpec], Plan]) -> Plan:
    """Twelve sets to be labelled by two checkpoints."""
    grid = "grid={images.ipc: [1, 2], labels.teacher_epoch: [1, 2]}"
    return unlabelled(small("base.labels={kind: soft}", "seeds=6", grid))


def test_requests_that_wait_together_are_forwarded_together_and_once(fresh: Fresh, plan: Plan) -> None:
    async def ask_for_all() -> tuple[LabelService, list[int]]:
        service = LabelService(fresh())
        passes = list(plan.passes.values()) * 3  # three clients want the same
        return service, await asyncio.gather(*(service.label(p) for p in passes))

    service, counts = asyncio.run(ask_for_all())
    images = sum(10 * plan.sets[p.compressed_set].evaluation.ipc for p in plan.passes.values())
    assert len(plan.passes) == 24
    assert sum(counts) == images == service.images_forwarded
    assert service.forwards <= 4


def test_a_pass_that_cannot_be_made_tells_its_clients_and_no_others(fresh: Fresh, plan: Plan) -> None:
    passes = list(plan.passes.values())
    bad = replace(passes[0], id="bad", compressed_set="nowhere", epoch=1)
    good = next(p for p in passes if p.epoch == 2)

    async def ask() -> list[object]:
        service = LabelService(fresh())
        return await asyncio.gather(service.label(bad), service.label(good), return_exceptions=True)

    failed, done = asyncio.run(ask())
    assert "set/nowhere is not in the store" in str(failed)
    assert done in (10, 20)


def test_labels_that_cannot_be_written_are_told_and_others_are(
    fresh: Fresh, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = [p for p in plan.passes.values() if p.epoch == 1]
    write = relabeller.write_logits
    written: list[str] = []

    def full(folder: Path, logits: np.ndarray) -> None:
        written.append(threading.current_thread().name)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        write(folder, logits)

    async def ask() -> list[object]:
        service = LabelService(fresh())
        return await asyncio.gather(*map(service.label, passes), return_exceptions=True)

    monkeypatch.setattr(relabeller, "write_logits", full)
    said = asyncio.run(ask())
    assert len(written) == len(passes) == 12
    assert sum(isinstance(one, OSError) for one in said) == 1
    assert sum(isinstance(one, int) and one in (10, 20) for one in said) == 11
    assert len(set(written)) > 1  # the forward did not write


# --- what bounds the service ----------------------------------------------------------------------


class Gate:
    """Writers wait here until it is opened."""

    def __init__(self, bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.came = threading.Semaphore(0)
        self.kept: list[str] = []
        """Passes whose writing has begun."""
        keep = bench.relabeller.store

        def late(said: Prediction) -> None:
            self.kept.append(said.label_pass)
            self.came.release()
            assert self.opened.wait(60)
            keep(said)

        monkeypatch.setattr(bench.relabeller, "store", late)

    async def wait_for(self, writes: int) -> None:
        """Return when so many more writes have begun."""
        for _ in range(writes):
            assert await asyncio.to_thread(self.came.acquire, timeout=60)


class Door(asyncio.Semaphore):
    """Says who stands outside."""

    def __init__(self, places: int) -> None:
        super().__init__(places)
        self.knocked = asyncio.Event()

    async def acquire(self) -> bool:
        if self.locked():
            self.knocked.set()
        return await super().acquire()


def test_a_client_waits_at_the_door_while_most_waiting_passes_are_inside(
    fresh: Fresh, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = [p for p in plan.passes.values() if p.epoch == 1][:4]
    monkeypatch.setattr(asyncio, "Semaphore", Door)
    monkeypatch.setattr(label_service, "MOST_WAITING", 3)

    async def ask() -> None:
        bench = fresh()
        gate = Gate(bench, monkeypatch)
        service = LabelService(bench)
        door = service._door
        assert isinstance(door, Door)
        inside = [asyncio.create_task(service.label(p)) for p in passes[:3]]
        await gate.wait_for(3)
        assert not door.knocked.is_set()
        late = asyncio.create_task(service.label(passes[3]))
        await asyncio.wait_for(door.knocked.wait(), 60)
        assert passes[3].id not in gate.kept
        assert not any(p.id == passes[3].id for waiting in service._waiting.values() for p in waiting)
        assert not any(task.done() for task in inside)
        gate.opened.set()
        assert all(await asyncio.gather(*inside, late))

    asyncio.run(ask())
    assert all(fresh().store.find("logits", p.id) is not None for p in passes)


def test_the_forward_waits_while_unwritten_bytes_are_in_memory(
    fresh: Fresh, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sets of ten images: 400 bytes of logits each.
    small = {p.id for p in plan.passes.values() if plan.sets[p.compressed_set].evaluation.ipc == 1}
    passes = [p for p in plan.passes.values() if p.epoch == 1 and p.id in small]
    assert len(passes) == 6
    monkeypatch.setattr(label_service, "UNWRITTEN_BYTES", 1000)
    monkeypatch.setattr(label_service, "HANDED_BYTES", 1)
    full = threading.Event()
    enter = ByteBudget.enter

    def watched(self: ByteBudget, nbytes: int) -> None:
        if self._taken + nbytes > self._most:
            full.set()
        enter(self, nbytes)

    monkeypatch.setattr(ByteBudget, "enter", watched)

    async def ask() -> None:
        bench = fresh()
        gate = Gate(bench, monkeypatch)
        service = LabelService(bench)
        asked = [asyncio.create_task(service.label(p)) for p in passes]
        assert await asyncio.to_thread(full.wait, 60)
        await gate.wait_for(2)
        # Two are with the writers, one is at hand; there are as many writers as would take four.
        assert (len(gate.kept), service._budget._taken, bench.relabeller.images_forwarded) == (2, 800, 30)
        gate.opened.set()
        assert await asyncio.gather(*asked) == [10] * 6
        assert service._budget._taken == 0

    assert label_service.WRITERS >= 4
    asyncio.run(ask())


def test_a_room_takes_what_is_larger_than_it_alone_and_lets_nobody_else_in() -> None:
    budget = ByteBudget(10)
    budget.enter(6)
    budget.enter(4)
    with ThreadPoolExecutor(2) as threads:
        large = threads.submit(budget.enter, 25)
        budget.leave(6)
        assert not large.done()
        budget.leave(4)
        large.result(60)
        small = threads.submit(budget.enter, 1)
        assert not small.done()
        budget.leave(25)
        small.result(60)


def test_labels_that_cannot_be_written_leave_their_room(
    fresh: Fresh, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = [p for p in plan.passes.values() if p.epoch == 1]
    monkeypatch.setattr(label_service, "UNWRITTEN_BYTES", 1)
    monkeypatch.setattr(label_service, "HANDED_BYTES", 1)

    def full(folder: Path, logits: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    async def ask() -> list[object]:
        service = LabelService(fresh())
        said = await asyncio.gather(*map(service.label, passes), return_exceptions=True)
        assert service._budget._taken == 0
        assert service._door._value == label_service.MOST_WAITING
        return said

    monkeypatch.setattr(relabeller, "write_logits", full)
    said = asyncio.run(ask())
    assert len(said) == 12
    assert all(isinstance(one, OSError) for one in said)


# --- passes over views ----------------------------------------------------------------------------


@pytest.fixture
def mixed(small: Callable[..., StudySpec], unlabelled: Callable[[StudySpec], Plan]) -> Plan:
    """Sets to be labelled by two checkpoints, image by image and view by view."""
    return unlabelled(
        small(
            "seeds=2",
            "base.train={augment: [flip], batch_size: 8, steps: 7}",
            "grid={labels.kind: [soft, per_view], labels.teacher_epoch: [1, 2]}",
        )
    )


def test_views_and_images_of_several_checkpoints_are_forwarded_once_and_written_by_writers(
    fresh: Fresh, mixed: Plan, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raydc.labels.views.SEGMENT_ROWS", 20)  # three segments of 7 steps
    passes = list(mixed.passes.values())
    views = [p for p in passes if p.views is not None]
    assert (len(passes), len(views), len({p.epoch for p in passes})) == (8, 4, 2)
    write, said_in, written_in = relabeller.write_logits, set(), set()

    def watched(folder: Path, logits: np.ndarray) -> None:
        written_in.add(threading.current_thread())
        write(folder, logits)

    async def ask() -> tuple[LabelService, list[int]]:
        service = LabelService(fresh())
        forward = service._forward

        def noted(*given: object) -> None:
            said_in.add(threading.current_thread())
            forward(*given)

        monkeypatch.setattr(service, "_forward", noted)
        return service, await asyncio.gather(*(service.label(p) for p in passes * 2))

    monkeypatch.setattr(relabeller, "write_logits", watched)
    service, counts = asyncio.run(ask())
    assert sum(counts) == service.images_forwarded == 4 * 20 + 4 * 48
    assert len(said_in) == 1
    assert said_in.isdisjoint(written_in)
    store = LocalStore(bench.store.root)
    assert all(labelled(p, store) for p in passes)
    assert len(store.names("logits")) == 4 + 4 * 3
    # What the service makes is what a bench alone makes.
    alone = Workbench(bench.dataset, LocalStore(tmp_path / "alone"), bench.device)
    for work in work_of(mixed, 10):
        if work.label_pass is None:
            make(work, alone)
    for one in views:
        made, _ = bench.view_logits((one,), 20, 7)
        again, _ = alone.view_logits((one,), 20, 7)
        assert np.array_equal(made.whole(), again.whole())


def test_a_pass_over_views_fails_with_a_segment_that_cannot_be_written(
    fresh: Fresh, mixed: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raydc.labels.views.SEGMENT_ROWS", 20)
    one = next(p for p in mixed.passes.values() if p.views is not None)
    write, failed = relabeller.write_logits, []

    def once(folder: Path, logits: np.ndarray) -> None:
        if not failed:
            failed.append(folder)
            raise OSError(28, "No space left on device")
        write(folder, logits)

    async def ask() -> int:
        service = LabelService(fresh())
        with pytest.raises(OSError, match="No space left"):
            await service.label(one)
        return await service.label(one)

    monkeypatch.setattr(relabeller, "write_logits", once)
    assert asyncio.run(ask()) > 0
    assert labelled(one, fresh().store)


def test_a_teacher_that_says_nan_fails_its_own_passes_alone(fresh: Fresh, mixed: Plan) -> None:
    passes = list(mixed.passes.values())
    bad = next(p for p in passes if p.epoch == 1)

    async def ask() -> list[object]:
        bench = fresh()
        next(bench.teacher(bad).teacher.network.parameters()).fill_(np.nan)
        service = LabelService(bench)
        return await asyncio.gather(*map(service.label, passes), return_exceptions=True)

    for label_pass, outcome in zip(passes, asyncio.run(ask()), strict=True):
        if label_pass.epoch == 1:
            assert isinstance(outcome, EvaluationError)
            assert "the teacher 'teacher' (network 0) after epoch 1 produced non-finite logits" in str(
                outcome
            )
        else:
            assert outcome in (20, 48)


def test_a_client_that_goes_away_harms_nobody(fresh: Fresh, plan: Plan) -> None:
    passes = list(plan.passes.values())

    async def ask() -> list[int]:
        service = LabelService(fresh())
        leaving = asyncio.create_task(service.label(passes[0]))
        staying = [asyncio.create_task(service.label(p)) for p in passes]
        await asyncio.sleep(0)
        leaving.cancel()
        return await asyncio.wait_for(asyncio.gather(*staying), 60)

    counts = asyncio.run(ask())
    assert sum(counts) <= sum(10 * plan.sets[p.compressed_set].evaluation.ipc for p in passes)
    assert all(fresh().store.find("logits", p.id) is not None for p in passes)
