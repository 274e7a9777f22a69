"""Artifacts that are damaged or vanish in the middle of a run are made again, and the run goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from raydc.data.dataset import Dataset, open_dataset
from raydc.errors import ArtifactError
from raydc.orchestration.cluster import Capacity
from raydc.orchestration.prerequisites import Prerequisites
from raydc.orchestration.progress import Silent
from raydc.orchestration.runner import Runner
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.plan import Plan
from raydc.spec.study import StudySpec
from raydc.spec.study_file import Resources
from raydc.store.local import LocalStore
from raydc.worker.label_work import LABELS
from raydc.worker.work import Work
from tests.conftest import DIGITS


@pytest.fixture
def cluster(ray_cluster: Callable[[Resources], Capacity]) -> Capacity:
    return ray_cluster(Resources(workers=1))


class Rig:
    """A run of one worker on a store of its own, with what it wrote."""

    def __init__(self, plan: Plan, data: Dataset, root: Path, retries: int) -> None:
        self.root = root
        self.store = LocalStore(root)
        self.rows: dict[str, dict[str, Any]] = {}
        self.plan = plan
        self.runner = Runner(
            plan,
            context=WorkerContext(DIGITS, data.cache, str(root)),
            facts=data.facts,
            store=self.store,
            resources=Resources(workers=1, retries=retries),
            study="small",
            progress=Silent(),
            sink=lambda rows: self.rows.update({row["evaluation_id"]: row for row in rows}),
            decode=lambda: open_dataset(DIGITS, self.store),
        )

    def run(self, cluster: Capacity, damage: Callable[[], None]) -> None:
        """Run, and do the damage once, when everything is made that the evaluations wait for."""
        done: list[bool] = []

        def once() -> None:
            if not done:
                damage()
            done.append(True)

        self.runner.run(cluster, once)

    def vanish(self, kind: str, *names: str) -> None:
        for name in names or [path.name for path in (self.root / kind).iterdir()]:
            shutil.rmtree(self.root / kind / name)

    def flip(self, kind: str, name: str) -> None:
        """Change one bit in the middle of each file of an artifact."""
        for file in (self.root / kind / name).iterdir():
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 4
            file.write_bytes(content)


@pytest.fixture
def rig(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], digits: Dataset, tmp_path: Path
) -> Callable[..., Rig]:
    def make(*settings: str, retries: int = 2) -> Rig:
        plan = planned(small(*settings))
        data = open_dataset(DIGITS, LocalStore(tmp_path / "store"))
        return Rig(plan, data, tmp_path / "store", retries)

    return make


def outcome(rig: Rig) -> list[tuple[str, int]]:
    return [(rig.rows[p.id]["status"], rig.rows[p.id]["attempts"]) for p in rig.plan.evaluations]


def test_what_is_damaged_between_the_stages_is_made_again(rig: Callable[..., Rig], cluster: Capacity) -> None:
    one = rig("grid.labels.kind=[hard, soft]", "grid.images.ipc=[1, 2, 3]")
    hard = [p for p in one.plan.evaluations if not p.passes]
    names = {p.evaluation.ipc: p.compressed_set for p in hard}

    def damage() -> None:
        one.flip("set", names[1])
        one.vanish("set", names[2])
        # Labels are made anew as they are asked for, by the teacher that is still in its actor's memory.
        one.flip("logits", next(iter(one.plan.passes)))
        one.vanish("logits", *list(one.plan.passes)[1:])
        one.vanish("checkpoint")

    one.run(cluster, damage)
    ipcs = [p.evaluation.ipc for p in one.plan.evaluations]
    assert {status for status, _ in outcome(one)} == {"finished"}
    assert [attempts for _, attempts in outcome(one)] == [1 if ipc == 3 else 2 for ipc in ipcs]
    assert not list(one.root.glob("*/.damaged*"))


def test_the_images_of_the_dataset_are_decoded_again(rig: Callable[..., Rig], cluster: Capacity) -> None:
    one = rig("seeds=2")
    one.run(cluster, lambda: one.vanish("pixels"))
    assert outcome(one) == [("finished", 2)] * 2


def test_a_process_opens_images_again_that_were_made_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    data = open_dataset(DIGITS, store)
    context = WorkerContext(DIGITS, data.cache, str(tmp_path))
    first = context.bench()
    assert context.bench() is first
    shutil.rmtree(tmp_path / "pixels")
    with pytest.raises(ArtifactError, match="pixels/"):
        context.bench()
    open_dataset(DIGITS, store)
    again = context.bench()
    assert again is not first
    assert context.bench() is again
    assert again.dataset.id == first.dataset.id


def test_retries_are_bounded(rig: Callable[..., Rig], cluster: Capacity) -> None:
    one = rig("seeds=2", retries=0)
    one.run(cluster, lambda: one.vanish("set", one.plan.evaluations[0].compressed_set))
    assert outcome(one) == [("failed", 1), ("finished", 1)]
    assert one.rows[one.plan.evaluations[0].id]["error"].startswith("ArtifactError: set/")


def test_what_vanishes_while_things_are_made_is_made_again(
    rig: Callable[..., Rig], cluster: Capacity, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = rig("grid.labels.kind=[hard, soft]")
    real, calls = Prerequisites.make, []

    def make(self: Prerequisites, works: list[Work], *arguments: Any) -> None:
        if works[0].kind is LABELS:
            if not calls:
                one.vanish("checkpoint")
            calls.append(self)
        real(self, works, *arguments)

    monkeypatch.setattr(Prerequisites, "make", make)
    one.run(cluster, lambda: None)
    # The soft one never began, so this is its first attempt.
    assert sorted(outcome(one)) == [("finished", 1)] * 2
    assert len(calls) == 2
    assert ray.is_initialized()
