"""What a run finds out before anything is trained: files that studies name."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydc.data.dataset import Dataset
from raydc.errors import InputError
from raydc.networks.zoo import initialised
from raydc.spec.study import StudySpec, parse_study
from raydc.store.local import LocalStore
from raydc.study.preflight import ReadyStudy, preflight
from raydc.worker.evaluate import evaluate
from raydc.worker.making import make_everything
from raydc.worker.workbench import Workbench

Ask = Callable[..., ReadyStudy]


@pytest.fixture
def ask(small: Callable[..., StudySpec], store: LocalStore) -> Ask:
    """The small study on an imported set, found possible."""

    def ready(path: Path, *settings: str, images: str = "ipc: 2") -> ReadyStudy:
        chosen = f"base.images={{method: imported, path: {path}, {images}}}"
        return preflight(small(chosen, "teacher.epochs=1", *settings), store)

    return ready


def write(path: Path, soft: bool = True) -> Path:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 10
    images = torch.randn(30, 1, 8, 8, generator=generator)
    torch.save({"images": images, "labels": torch.eye(10)[labels] if soft else labels}, path)
    return path


def test_a_set_of_others_is_evaluated_with_every_kind_of_labels(
    ask: Ask, bench: Workbench, tmp_path: Path
) -> None:
    ready = ask(write(tmp_path / "set.pt"), "grid.labels.kind=[hard, stored, soft]")
    plan = ready.plan
    assert len(plan.sets) == 1
    assert make_everything(plan, bench) == {}
    measured = {p.evaluation.point["labels.kind"]: evaluate(p, bench) for p in plan.evaluations}
    # One-hot soft labels are hard labels that take more room.
    assert measured["stored"].test_acc == measured["hard"].test_acc != measured["soft"].test_acc
    sizes = {kind: one.labels_bytes for kind, one in measured.items()}
    assert sizes == {"hard": 20, "stored": 20 * 20, "soft": 20 * 20}
    assert {one.images_bytes for one in measured.values()} == {20 * 64 * 2}


def test_ids_hold_the_contents_and_not_the_path(ask: Ask, tmp_path: Path) -> None:
    one = ask(write(tmp_path / "a.pt")).plan
    other = ask(Path(shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt"))).plan
    assert [p.id for p in one.evaluations] == [p.id for p in other.evaluations]
    changed = ask(write(tmp_path / "c.pt", soft=False)).plan
    assert changed.evaluations[0].id != one.evaluations[0].id


def test_a_set_that_changes_while_a_study_runs_is_noticed(
    ask: Ask, bench: Workbench, digits: Dataset, tmp_path: Path
) -> None:
    plan = ask(write(tmp_path / "set.pt"), images="ipc: 1").plan
    write(tmp_path / "set.pt", soft=False)
    broken = make_everything(plan, bench)
    assert "whose contents have changed since the run began" in broken[plan.evaluations[0].compressed_set]


@pytest.mark.parametrize(
    ("images", "kind", "said"),
    [
        ("ipc: 2", "stored", "has no soft labels; choose hard or soft"),
        ("ipc: 4", "hard", "has 3 images of the class '0', but images.ipc is 4"),
        ("ipc: 2, space: zca", "hard", "whose space is zca, but the study's inputs are normalised"),
    ],
)
def test_a_set_that_cannot_be_used(ask: Ask, tmp_path: Path, images: str, kind: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        ask(write(tmp_path / "set.pt", soft=False), f"base.labels.kind={kind}", images=images)
    assert said in str(refused.value)
    assert str(refused.value).startswith("small.yaml: ")


def test_labels_that_nobody_brings(ask: Ask, small: Callable[..., StudySpec], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sets of the method random have no soft labels"):
        small("base.labels.kind=stored").evaluations()
    with pytest.raises(InputError, match=r"small\.yaml: images\.path is '.*none\.pt', which cannot be read"):
        ask(tmp_path / "none.pt")


BUFFER = """
name: buffer
dataset: digits
teacher: {arch: convnet-d2-w8, checkpoint: BUFFERS, count: 3}
base:
  images: {method: random, ipc: 1}
  labels: {kind: soft, teacher_epoch: 2}
  student: {arch: convnet-d2-w8}
  train: {recipe: label-worth, steps: 2, augment: none}
"""


def buffers(folder: Path) -> Path:
    """Three trajectories of three epochs in two files, as MTT's buffer.py writes them."""
    folder.mkdir()
    trajectories = [
        [
            [p.detach() for p in initialised("convnet-d2-w8", 1, 10, 8, "t", 10 * t + e).parameters()]
            for e in range(3)
        ]
        for t in range(3)
    ]
    torch.save(trajectories[:2], folder / "replay_buffer_0.pt")
    torch.save(trajectories[2:], folder / "replay_buffer_10.pt")
    return folder


def buffer_study(path: Path, *settings: str) -> StudySpec:
    return parse_study(BUFFER.replace("BUFFERS", str(path)), "buffer.yaml", settings=settings)


def test_trajectories_of_others_label_by_network_and_epoch(bench: Workbench, tmp_path: Path) -> None:
    path = buffers(tmp_path / "buffers")
    study = buffer_study(path, "grid={labels.teacher_epoch: [0, 2], labels.ensemble: [1, 3]}")
    plan = preflight(study, bench.store).plan
    assert len(plan.trajectories) == 3
    assert len(plan.passes) == 2 + 4
    assert make_everything(plan, bench) == {}
    for label_pass in plan.passes.values():
        assert label_pass.epoch is not None
        loaded = bench.teacher(label_pass).teacher.network
        seed = 10 * label_pass.index + label_pass.epoch
        expected = initialised("convnet-d2-w8", 1, 10, 8, "t", seed).parameters()
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), expected, strict=True))
    assert all(evaluate(planned, bench).steps == 2 for planned in plan.evaluations)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("base.labels.teacher_epoch=3",), "end at epoch 2; choose at most that"),
        (("teacher.count=4",), "contains 3 trajectories, but teacher.count needs 4"),
        (("teacher.arch=convnet-d2-w16",), "whose parameters are not those of convnet-d2-w16"),
        (("base.labels.teacher_epoch=null",), "labels.teacher_epoch is missing"),
        (("base.images.method=herding",), "is a buffer of many epochs; add a scorer block"),
        (("teacher.checkpoint=replay_buffer_x.pt",), "cannot be read"),
    ],
)
def test_a_buffer_that_cannot_be_used(
    store: LocalStore, tmp_path: Path, settings: tuple[str, ...], said: str
) -> None:
    path = buffers(tmp_path / "buffers")
    with pytest.raises(InputError) as refused:
        preflight(buffer_study(path, *settings), store)
    assert said in str(refused.value)


def test_a_buffer_is_not_executed(store: LocalStore, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "canary",)

    (tmp_path / "replay_buffer_0.pt").write_bytes(pickle.dumps([[Bomb()]]))
    torch.save([[[Bomb()]]], tmp_path / "replay_buffer_1.pt")
    for name in ("replay_buffer_0.pt", "replay_buffer_1.pt"):
        with pytest.raises(InputError, match="is not a file of tensors"):
            preflight(buffer_study(tmp_path / name, "teacher.count=1"), store)
    assert not (tmp_path / "canary").exists()
