"""What a run finds out before anything is trained: files that studies name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydc.data.dataset import Dataset
from raydc.errors import InputError
from raydc.evaluate import evaluate, make_everything
from raydc.launch import Ready, get_ready
from raydc.spec.study import Study
from raydc.store import LocalStore
from raydc.workbench import Workbench

Ask = Callable[..., Ready]


@pytest.fixture
def ask(small: Callable[..., Study], store: LocalStore) -> Ask:
    """The small study on an imported set, found possible."""

    def ready(path: Path, *settings: str, images: str = "ipc: 2") -> Ready:
        chosen = f"base.images={{method: imported, path: {path}, {images}}}"
        return get_ready(small(chosen, "teacher.epochs=1", *settings), store)

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
        ("ipc: 2", "stored", "brings no soft labels; choose hard or soft"),
        ("ipc: 4", "hard", "has 3 images of the class '0', but images.ipc is 4"),
        ("ipc: 2, space: zca", "hard", "whose space is zca, but the study's inputs are normalised"),
    ],
)
def test_a_set_that_cannot_be_used(ask: Ask, tmp_path: Path, images: str, kind: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        ask(write(tmp_path / "set.pt", soft=False), f"base.labels.kind={kind}", images=images)
    assert said in str(refused.value)
    assert str(refused.value).startswith("small.yaml: ")


def test_labels_that_nobody_brings(ask: Ask, small: Callable[..., Study], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sets of the method random bring no labels"):
        small("base.labels.kind=stored").evaluations()
    with pytest.raises(InputError, match=r"small\.yaml: images\.path is '.*none\.pt', which cannot be read"):
        ask(tmp_path / "none.pt")
