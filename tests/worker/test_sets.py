"""Compressed sets of every method, made by a workbench of real digits and a real scorer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raydc.data.dataset import open_dataset
from raydc.data.image_set import CompressedSet
from raydc.spec import catalog
from raydc.spec.facts import bind
from raydc.spec.plan import Plan, make_plan
from raydc.spec.study import StudySpec
from raydc.store.local import LocalStore
from raydc.worker.making import make, make_everything
from raydc.worker.planned_work import work_of
from raydc.worker.set_work import SETS
from raydc.worker.trajectory_work import TEACHERS
from raydc.worker.workbench import Workbench
from tests.conftest import DIGITS

SCORER_EPOCHS = max(score.least_epochs for score in catalog.SCORES)


def set_up(folder: Path, study: StudySpec) -> tuple[Workbench, Plan]:
    """A workbench on a store of its own, and the study's plan."""
    store = LocalStore(folder)
    digits = open_dataset(DIGITS, store)
    evaluations = bind(study.evaluations(), digits.facts, study.source)
    return Workbench(digits, store, torch.device("cpu")), make_plan(evaluations, digits.id)


def sets_of(bench: Workbench, plan: Plan) -> dict[str, CompressedSet]:
    return {name: bench.compressed_set(name)[0] for name in plan.sets}


@pytest.fixture
def every_method(small: Callable[..., StudySpec], tmp_path: Path) -> StudySpec:
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.save({"images": images, "labels": torch.arange(30) % 10}, tmp_path / "set.pt")
    names = [method.name for method in catalog.METHODS if method.name != "imported"]
    grids = (
        f"[{{images.method: [{', '.join(names)}], images.ipc: [1, 3]}}, "
        f"{{images.method: [imported], images.path: ['{tmp_path / 'set.pt'}'], images.ipc: [1, 3]}}]"
    )
    return small(f"teacher.epochs={SCORER_EPOCHS}", "teacher.batch_size=256", f"grid={grids}")


def test_the_sets_are_whole_and_do_not_depend_on_the_order_of_making(
    every_method: StudySpec, tmp_path: Path
) -> None:
    bench, plan = set_up(tmp_path / "a", every_method)
    assert make_everything(plan, bench) == {}
    other, _ = set_up(tmp_path / "b", every_method)
    works = work_of(plan, 10)
    for work in (w for w in works if w.kind is TEACHERS):
        make(work, other)
    for work in reversed([w for w in works if w.kind is SETS]):
        make(work, other)
    first, second = sets_of(bench, plan), sets_of(other, plan)
    for name, job in plan.sets.items():
        one, again = first[name], second[name]
        assert np.bincount(one.labels).tolist() == [job.evaluation.ipc] * 10
        assert one.images.shape[1:] == (1, 8, 8)
        np.testing.assert_array_equal(one.images, again.images)
        if one.sources is not None:
            source = bench.dataset.train
            labels = dict(zip(source.index.tolist(), source.labels.tolist(), strict=True))
            assert [[labels[row] for row in tiles] for tiles in one.sources.tolist()] == [
                [label] * one.sources.shape[1] for label in one.labels.tolist()
            ]


def test_an_observer_sees_what_rded_keeps(tmp_path: Path, small: Callable[..., StudySpec]) -> None:
    """One whole-image crop an image: the kept ones are those with the smallest cross-entropy."""
    study = small("base.images={method: rded, ipc: 3, combine: 1x1, crops: 1, mipc: 40}", "teacher.epochs=3")
    bench, plan = set_up(tmp_path, study)
    assert make_everything(plan, bench) == {}
    (job,) = plan.sets.values()
    assert job.scoring is not None
    assert (job.scoring.what, job.scoring.epoch, job.scoring.networks) == ("observer", 3, 1)
    observer = bench.compressor.observer(job)
    pixels, labels = bench.dataset.train.images[:20], bench.dataset.train.labels[:20]
    network = observer._loaded.teacher.network
    with torch.no_grad():
        logits = network(bench.dataset.inputs(torch.from_numpy(pixels)))
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
        # A smaller crop lies in the middle of an image that is 0 in the network's inputs.
        small_one = bench.dataset.inputs(torch.from_numpy(pixels)).zero_()
        small_one[:, :, 2:6, 2:6] = bench.dataset.inputs(torch.from_numpy(pixels))[:, :, :4, :4]
        padded = torch.nn.functional.cross_entropy(
            network(small_one), torch.from_numpy(labels), reduction="none"
        )
    np.testing.assert_allclose(observer(pixels, labels), expected, atol=1e-5)
    np.testing.assert_allclose(observer(pixels[:, :, :4, :4], labels), padded, atol=1e-5)
    kept, _ = bench.compressed_set(job.id)
    surprise = observer(kept.images, kept.labels).reshape(10, 3)
    assert (np.diff(surprise, axis=1) >= -1e-5).all()


def test_each_switch_of_pca_alone(tmp_path: Path, small: Callable[..., StudySpec]) -> None:
    """Every score prunes; without pruning no scorer is needed; combining and cropping are free of both."""
    scores = ", ".join(catalog.SCORES.names())
    study = small(
        f"teacher.epochs={SCORER_EPOCHS}",
        f"grid={{images.method: [pca], images.prune: [none, {scores}], images.combine: [1x1, 2x2], "
        "train.augment: [rrc, tile_crop]}",
    )
    bench, plan = set_up(tmp_path, study)
    assert len(plan.evaluations) == 4 * (1 + len(catalog.SCORES))
    assert len(plan.sets) == 2 * (1 + len(catalog.SCORES))
    assert make_everything(plan, bench) == {}
    for job in plan.sets.values():
        point, one = job.evaluation.point, bench.compressed_set(job.id)[0]
        assert bool(job.scorers) == (point["images.prune"] != "none")
        side = int(point["images.combine"][0])
        assert one.grid == (side, side)
        assert one.sources is not None
        if point["images.prune"] != "none":
            hardness = bench.compressor.scores(job)[point["images.prune"]]
            train = bench.dataset.train
            for label in range(10):
                members = np.flatnonzero(train.labels == label)
                easiest = members[np.argsort(hardness[members], kind="stable")][: 2 * side * side]
                chosen = one.sources[one.labels == label].ravel()
                assert set(train.index[easiest].tolist()) == set(chosen.tolist())
    without = small("base.images={method: pca, ipc: 1, prune: none, combine: 2x2}")
    assert without.evaluations()[0].scorer is None
