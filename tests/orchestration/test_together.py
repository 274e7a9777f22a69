"""A teacher that two workers train together: what one alone makes, also after one has died."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from raydc.data.dataset import Dataset
from raydc.errors import EvaluationError, InputError
from raydc.networks.zoo import build
from raydc.orchestration.cluster import Capacity
from raydc.orchestration.progress import Silent
from raydc.orchestration.runner import Runner
from raydc.orchestration.together import Together, make_together
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.plan import Plan, TrajectoryJob
from raydc.spec.study import StudySpec
from raydc.spec.study_file import Resources
from raydc.store.artifact import get
from raydc.store.local import LocalStore
from raydc.store.saved import Saved
from raydc.teachers.expert import checkpoint_name, train_trajectory
from raydc.training.group import Group, check_together
from raydc.worker.trajectory_work import TrajectoryWork
from tests.conftest import DIGITS

EPOCHS = 8
TWO = Together(workers=2, cpus=1, gpu=0.0, retries=2)


@pytest.fixture
def job(small: Callable[..., StudySpec]) -> TrajectoryJob:
    # Parts of 16 and 17, a last batch of 10, and pixels that differ in each epoch.
    study = small("teacher.batch_size=33", f"teacher.epochs={EPOCHS}", "teacher.augment=[crop, cutout]")
    return TrajectoryJob("t0", study.teachers["teacher"], 0, tuple(range(EPOCHS + 1)), scored=1)


def copied(store: LocalStore, root: Path) -> LocalStore:
    """A store with the images of another, and nothing that was trained."""
    for kind in ("pixels", "source", "statistics"):
        target = root / kind
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(store.root / kind)
    return LocalStore(root)


def worker_pids() -> list[int]:
    """Processes of Ray Train's workers that descend from this process."""
    parents: dict[int, int] = {}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"RayTrainWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue

    def mine(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 1)
        return pid == os.getpid()

    return [pid for pid in found if mine(pid)]


@pytest.mark.slow
def test_two_workers_make_what_one_makes_though_one_dies(
    tmp_path: Path, digits: Dataset, store: LocalStore, job: TrajectoryJob, ray_cluster: object
) -> None:
    alone, together = LocalStore(tmp_path / "alone"), copied(store, tmp_path / "together")
    train_trajectory(digits, job, alone, torch.device("cpu"), Saved(alone, job.id))
    seen: list[int] = []

    def on_progress(done: int, total: int) -> None:
        assert total == EPOCHS
        seen.append(done)
        if done == 2 and seen.count(2) == 1:
            pids = worker_pids()
            assert len(pids) == 2
            os.kill(pids[-1], signal.SIGKILL)

    work = TrajectoryWork(job)
    make_together(WorkerContext(DIGITS, digits.cache, together.uri), work, TWO, on_progress)
    assert seen[:3] == [0, 1, 2]
    assert seen[-1] == EPOCHS
    # It goes on from what was saved: the first epochs are not trained again.
    assert seen.count(1) == 1
    assert len(seen) > EPOCHS + 1
    assert together.names("checkpoint") == alone.names("checkpoint")
    assert together.names("scores") == alone.names("scores")
    for epoch in job.epochs:
        one, other = (get(s, "checkpoint", checkpoint_name("t0", epoch)) for s in (alone, together))
        mine, theirs = (load_file(a.path("weights.safetensors")) for a in (one, other))
        for name, value in mine.items():
            torch.testing.assert_close(theirs[name], value, atol=1e-5, rtol=1e-5)
        assert other.meta["test_acc"] == pytest.approx(one.meta["test_acc"], abs=0.002)
    assert together.names("progress") == []


@pytest.mark.slow
def test_a_training_that_diverges_says_so(
    tmp_path: Path, digits: Dataset, store: LocalStore, small: Callable[..., StudySpec], ray_cluster: object
) -> None:
    hopeless = TrajectoryJob("t0", small("teacher.lr=1e30").teachers["teacher"], 0, (1,))
    own = copied(store, tmp_path / "store")
    with pytest.raises(EvaluationError, match=r"the loss is nan at step 1; lower train\.lr"):
        make_together(
            WorkerContext(DIGITS, digits.cache, own.uri),
            TrajectoryWork(hopeless),
            replace(TWO, retries=0),
            lambda done, total: None,
        )


@pytest.mark.slow
def test_a_study_asks_for_workers(
    tmp_path: Path,
    digits: Dataset,
    store: LocalStore,
    small: Callable[..., StudySpec],
    planned: Callable[[StudySpec], Plan],
    ray_cluster: Callable[[Resources], Capacity],
) -> None:
    study = small("base.labels.kind=soft", "resources.teacher_workers=2", "resources.workers=2")
    own = copied(store, tmp_path / "store")
    plan = planned(study)
    assert {p.id for p in plan.evaluations} == {
        p.id for p in planned(small("base.labels.kind=soft")).evaluations
    }
    rows: list[object] = []

    def runner(plan: Plan) -> Runner:
        return Runner(
            plan,
            context=WorkerContext(DIGITS, digits.cache, own.uri),
            facts=digits.facts,
            store=own,
            resources=study.resources,
            study=study.name,
            progress=Silent(),
            sink=rows.extend,
            decode=lambda: None,
        )

    with pytest.raises(InputError, match=r"resources\.teacher_workers is 2, but there are 1 CPU cores"):
        runner(plan).run(Capacity(cpus=1, node_cpus=1, gpus=0, workers=1), lambda: None)
    runner(plan).run(ray_cluster(study.resources), lambda: None)
    assert [row["status"] for row in rows] == ["finished"]  # type: ignore[index]


def test_parts_of_a_batch_cover_it() -> None:
    for size, count in ((2, 33), (3, 10), (4, 4)):
        parts = [list(range(count))[Group(rank, size).rows(count)] for rank in range(size)]
        assert [row for part in parts for row in part] == list(range(count))
        assert all(parts)


def test_what_cannot_be_trained_together_is_refused(job: TrajectoryJob) -> None:
    recipe = job.teacher.recipe
    plain, normed = build("convnet-d2-w4", 1, 10, 8), build("convnet-d2-w4-bn", 1, 10, 8)
    check_together(recipe, plain, 1000, 2, gpus=False)
    check_together(recipe, normed, 1000, 2, gpus=True)
    with pytest.raises(InputError, match="batch norm over several workers on GPUs only"):
        check_together(recipe, normed, 1000, 2, gpus=False)
    with pytest.raises(InputError, match="cutmix mixes images of different workers"):
        check_together(replace(recipe, augment=("cutmix",)), plain, 1000, 2, gpus=False)
    with pytest.raises(InputError, match="the last batch of 991 images has 1;"):
        check_together(recipe, plain, 991, 2, gpus=False)
