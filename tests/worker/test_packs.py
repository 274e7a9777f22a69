"""Packs of evaluations: the same rows as one by one, and a broken one harms nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from raydc.networks.zoo import build
from raydc.spec.plan import Plan, Planned, SearchOrigin
from raydc.spec.result import Row
from raydc.spec.study import StudySpec
from raydc.training import kernels
from raydc.training.kernels import students_that_fit
from raydc.worker import evaluate, packs
from raydc.worker.evaluate import attempt
from raydc.worker.making import make_everything
from raydc.worker.packs import Attempt, attempt_all, attempt_packs, pack_key
from raydc.worker.workbench import Workbench

GRID = (
    "grid.labels.kind=[hard, soft, per_view]",
    "grid.labels.temperature=[1, 4]",
    "grid.train.lr=[0.05, 0.1]",
    "base.train.augment=[crop, flip]",
    "base.train.loss=kl",
    "base.train.batch_size=8",
    "base.train.steps=9",
)


@pytest.fixture
def on_this_device(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A bench that packs although it may have no GPU."""
    monkeypatch.setattr(bench.engines, "kernel", lambda *_: "grouped")
    monkeypatch.setattr(bench.engines, "students_at_once", lambda _: 100)
    return bench


def one_pack(group: list[Attempt], bench: Workbench) -> list[Row]:
    """The rows of a group that must go through in one pack."""
    (rows,) = attempt_packs(group, bench, study="small")
    return rows


def test_a_pack_gives_the_rows_of_single_runs(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], on_this_device: Workbench
) -> None:
    plan = planned(small(*GRID, "seeds=2", "base.train.test_every=2"))
    make_everything(plan, on_this_device)
    groups: dict[str, list] = {}
    for p in plan.evaluations:
        groups.setdefault(pack_key(p), []).append((p, 1))
    # Hard labels have another loss; labels of views come in tables.
    assert sorted(map(len, groups.values())) == [4, 8, 8]
    for group in groups.values():
        for (p, _), row in zip(group, one_pack(group, on_this_device), strict=True):
            single = attempt(p, on_this_device, study="small")
            assert row["evaluation_id"] == single["evaluation_id"] == p.id
            assert row["engine"] == "packed-grouped"
            for name in ("test_loss", "test_acc", "val_acc", "train_acc", "best_test_acc"):
                assert row[name] == pytest.approx(single[name], rel=2e-3, abs=4e-3), name
            for name in ("steps", "labels_bytes", "images_bytes", "teacher_test_acc", "status"):
                assert row[name] == single[name], name


def test_times_add_up(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], on_this_device: Workbench
) -> None:
    plan = planned(small("grid.train.lr=[0.01, 0.05, 0.1]"))
    make_everything(plan, on_this_device)
    rows = one_pack([(p, 1) for p in plan.evaluations], on_this_device)
    for one, following in pairwise(rows):
        assert one["finished_at"] == pytest.approx(following["started_at"])
    assert all(row["train_seconds"] <= row["finished_at"] - row["started_at"] for row in rows)


def test_a_student_that_diverges_is_the_only_failed_row(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], on_this_device: Workbench
) -> None:
    plan = planned(small("grid.train.lr=[0.05, 1e30, 0.1]", "base.train.steps=30"))
    make_everything(plan, on_this_device)
    rows = one_pack([(p, 2) for p in plan.evaluations], on_this_device)
    assert [row["status"] for row in rows] == ["finished", "failed", "finished"]
    assert "at step" in rows[1]["error"]
    assert rows[1]["attempts"] == 2


def test_students_that_a_scheduler_stops_leave_their_pack(
    small: Callable[..., StudySpec],
    planned: Callable[[StudySpec], Plan],
    on_this_device: Workbench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = small("grid.train.lr=[0.02, 0.05, 0.1, 1e30, 0.2]", "base.train.steps=54")
    plan = planned(study)
    make_everything(plan, on_this_device)
    group = [(_asked(p, number, plan), 1) for number, p in enumerate(plan.evaluations)]
    strict = Strict({0: 1, 2: 3, 4: 1})
    monkeypatch.setattr(on_this_device, "pruner", strict)
    rows = one_pack(group, on_this_device)
    # The one that diverged fails, as it would alone.
    assert [row["status"] for row in rows] == ["stopped", "finished", "stopped", "failed", "stopped"]
    heard = strict.heard
    assert not [trial for trial, _, _ in heard if trial == 3]
    assert [[rung for trial, rung, _ in heard if trial == n] for n in (0, 1, 2, 4)] == [
        [1],
        [1, 3, 9],
        [1, 3],
        [1],
    ]
    strict.heard = []
    for (p, _), row in zip(group, rows, strict=True):
        single = attempt(p, on_this_device, study="small")
        assert (row["status"], row["steps"]) == (single["status"], single["steps"])
        assert row["test_acc"] is None
        if row["status"] == "finished":
            assert row["val_acc"] == pytest.approx(single["val_acc"], abs=4e-3)
        if row["status"] == "stopped":
            assert row["error"].split(",")[0] == single["error"].split(",")[0]
    for trial, rung, accuracy in strict.heard:
        assert trial == 3 or (trial, rung, pytest.approx(accuracy, abs=4e-3)) in heard


class Strict:
    """Stops points at the given rungs, and hears what students report."""

    def __init__(self, ends: dict[int, int]) -> None:
        self.ends = ends
        self.heard: list[tuple[int, int, float]] = []

    def should_continue(self, trial: int, rung: int, val_acc: float) -> bool:
        self.heard.append((trial, rung, val_acc))
        return self.ends.get(trial) != rung


def _asked(planned: Planned, trial: int, plan: Plan) -> Planned:
    """As a search asks for an evaluation."""
    return replace(planned, origin=SearchOrigin(trial, plan.sets[planned.compressed_set], prunable=True))


def test_on_a_cpu_evaluations_come_one_by_one(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    plan = planned(small("grid.train.lr=[0.05, 0.1]"))
    make_everything(plan, bench)
    rows = list(attempt_all([(p, 1) for p in plan.evaluations], bench, study="small"))
    assert [[r["evaluation_id"] for r in part] for part in rows] == [[p.id] for p in plan.evaluations]
    assert {part[0]["engine"] for part in rows} == {"eager"}


def test_pack_size_follows_memory_and_batch() -> None:
    network = build("convnet-d3-w128", 3, 10, 32)
    sizes = [students_that_fit(network, batch, (3, 32, 32), 100e9) for batch in (10, 100, 256)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2] > 10
    assert students_that_fit(network, 256, (3, 32, 32), 1e6) == 1


@pytest.mark.parametrize(("to_come", "tried"), [(2, False), (4, True)])
def test_a_road_is_compiled_where_the_packs_of_its_shape_take_long(
    monkeypatch: pytest.MonkeyPatch, to_come: int, tried: bool
) -> None:
    monkeypatch.setattr(kernels, "kernels_for", lambda _: ("grouped", "compiled-unfold"))
    monkeypatch.setattr(
        kernels,
        "_step_seconds",
        lambda _, members, kernel, *__: {"grouped": 1.0, "compiled-unfold": 0.5}[kernel],
    )
    monkeypatch.setattr(kernels, "COMPILE_SECONDS", 7.5)
    member = Mock(recipe=Mock(total_steps=lambda _: 10), inputs=[])
    found = kernels.fastest_kernel(Mock(), [member, member], torch.device("cpu"), None, to_come)
    assert found == ("compiled-unfold" if tried else "grouped")


@pytest.mark.gpu
def test_on_a_gpu_evaluations_are_packed(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    cuda = Workbench(bench.dataset, bench.store, torch.device("cuda"))
    plan = planned(small(*GRID))
    make_everything(plan, cuda)
    rows = [r for part in attempt_all([(p, 1) for p in plan.evaluations], cuda, study="small") for r in part]
    assert {row["status"] for row in rows} == {"finished"}
    assert all(row["engine"].startswith("packed-") for row in rows)


def test_pruned_views_with_a_smaller_last_batch_are_packed(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], on_this_device: Workbench
) -> None:
    settings = (
        "base.labels={kind: per_view, keep_views: 0.3}",
        "base.train.augment=[crop, flip]",
        "base.train.batch_size=8",  # 20 images: 8, 8 and 4
        "base.train.steps=30",
        "seeds=3",
    )
    plan = planned(small(*settings))
    make_everything(plan, on_this_device)
    group = [(p, 1) for p in plan.evaluations]
    rows = one_pack(group, on_this_device)
    for (p, _), row in zip(group, rows, strict=True):
        assert row["status"] == "finished", row["error"]
        single = attempt(p, on_this_device, study="small")
        assert row["test_loss"] == pytest.approx(single["test_loss"], rel=2e-3)


def test_memory_that_does_not_suffice_halves_the_pack(
    small: Callable[..., StudySpec],
    planned: Callable[[StudySpec], Plan],
    on_this_device: Workbench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planned(small("grid.train.lr=[0.01, 0.02, 0.03, 0.04, 0.05]"))
    make_everything(plan, on_this_device)
    sizes = []
    real = packs.train_pack

    def tight(ready: list, bench: Workbench, to_come: int) -> dict:
        sizes.append(len(ready))
        if len(ready) > 2:
            raise torch.OutOfMemoryError("too many")
        return real(ready, bench, to_come)

    monkeypatch.setattr(packs, "train_pack", tight)
    monkeypatch.setattr(on_this_device.engines, "students_at_once", lambda *_: 4)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    parts = list(attempt_packs([(p, 1) for p in plan.evaluations], on_this_device, study="small"))
    assert sizes == [4, 2, 2, 1]
    assert [r["evaluation_id"] for part in parts for r in part] == [p.id for p in plan.evaluations]
    assert {r["status"] for part in parts for r in part} == {"finished"}
    # How often each was tried: the first four in a pack of 4 and in one of 2.
    assert [r["attempts"] for part in parts for r in part] == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("said", ["CUBLAS_STATUS_ALLOC_FAILED when calling", "Triton Error: out of memory"])
def test_memory_that_other_libraries_lack_counts_too(said: str) -> None:
    assert evaluate.out_of_memory(RuntimeError(said))
    assert not evaluate.out_of_memory(RuntimeError("an illegal memory access"))
    assert not evaluate.out_of_memory(ValueError(said))


def test_students_that_cannot_be_trained_together_are_trained_alone(
    small: Callable[..., StudySpec],
    planned: Callable[[StudySpec], Plan],
    on_this_device: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plan = planned(small("grid.train.lr=[0.01, 0.02, 0.03]"))
    make_everything(plan, on_this_device)

    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("vmap: this network changes something in place")

    monkeypatch.setattr(packs, "fit_pack", refused)
    monkeypatch.setattr(on_this_device.engines, "students_at_once", lambda _: 2)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    parts = list(attempt_packs([(p, 1) for p in plan.evaluations], on_this_device, study="small"))
    assert [len(part) for part in parts] == [1, 1, 1]
    assert {(r["status"], r["engine"], r["attempts"]) for part in parts for r in part} == {
        ("finished", "eager", 1)
    }
    assert "are trained one by one: RuntimeError: vmap: this network" in caplog.text


def test_a_student_that_does_not_fit_alone_fails_in_one_sentence(
    small: Callable[..., StudySpec],
    planned: Callable[[StudySpec], Plan],
    on_this_device: Workbench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planned(small("grid.train.lr=[0.01, 0.02]"))
    make_everything(plan, on_this_device)
    large = plan.evaluations[0].id
    real = evaluate.fit

    def none_fit(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    def the_second_fits(*arguments: Any, **options: Any) -> Any:
        return none_fit() if arguments[3].lr == 0.01 else real(*arguments, **options)

    monkeypatch.setattr(packs, "train_pack", none_fit)
    monkeypatch.setattr(evaluate, "fit", the_second_fits)
    monkeypatch.setattr(on_this_device.engines, "students_at_once", lambda *_: 4)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    parts = attempt_packs([(p, 1) for p in plan.evaluations], on_this_device, study="small")
    rows = {row["evaluation_id"]: row for part in parts for row in part}
    assert [rows[p.id]["status"] for p in plan.evaluations] == ["failed", "finished"]
    assert "a single student does not fit into the device's memory; lower" in rows[large]["error"]
    assert "Tried to allocate 9.00 GiB" in rows[large]["error"]


@pytest.mark.parametrize("jump_seconds", [-3600.0, 24 * 3600.0])
def test_a_clock_that_jumps_changes_no_duration(
    small: Callable[..., StudySpec],
    planned: Callable[[StudySpec], Plan],
    on_this_device: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    jump_seconds: float,
) -> None:
    plan = planned(small("grid.train.lr=[0.01, 0.02]"))
    make_everything(plan, on_this_device)
    group = [(p, 1) for p in plan.evaluations]
    real, looked = time.time, 0

    def jumping() -> float:
        """A clock that is set between the first and the second look at it."""
        nonlocal looked
        looked += 1
        return real() + (jump_seconds if looked > 1 else 0.0)

    monkeypatch.setattr(time, "time", jumping)
    rows = [
        *one_pack(group, on_this_device),
        *(attempt(p, on_this_device, study="small") for p in plan.evaluations),
    ]
    assert looked >= 2
    assert all(0 < row["train_seconds"] <= row["finished_at"] - row["started_at"] < 60 for row in rows)
