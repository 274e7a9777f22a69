"""FKD files: written, read back and rendered as the views that they name; nothing in them is executed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydc.augmentation.views import Views
from raydc.errors import InputError
from raydc.labels.fkd import FkdBatch, FkdFolder, batches, export_views, read_batch, write_batch
from raydc.spec.evaluation import Recipe
from raydc.spec.plan import Plan
from raydc.spec.seeding import seed_of
from raydc.spec.study import StudySpec
from raydc.worker.making import make_everything
from raydc.worker.workbench import Workbench


@pytest.mark.parametrize("augment", ["[rrc, flip, cutmix]", "[rrc, mixup]", "[flip]", "none"])
def test_exported_views_come_back_as_they_were(
    small: Callable[..., StudySpec],
    planned: Callable[[StudySpec], Plan],
    bench: Workbench,
    tmp_path: Path,
    augment: str,
) -> None:
    study = small(
        "base.labels={kind: per_view}",
        f"base.train.augment={augment}",
        "base.train.batch_size=8",
        "base.train.steps=7",
    )
    plan = planned(study)
    make_everything(plan, bench)
    (one,) = plan.evaluations
    logits, _ = bench.view_logits(one.passes, 20, 7)
    views = Views(one.evaluation.recipe, 20, seed_of("student views", 0), bench.device)
    assert export_views(tmp_path, views, logits, bench.dataset.resolution, 7) == 7
    files = batches(tmp_path)
    assert [(e, b) for e, b, _ in files] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    images = bench.set_inputs(one.compressed_set)
    labels = FkdFolder(tmp_path)
    assert (labels.epochs, labels.steps, labels.per_epoch) == (3, 7, 3)
    assert (labels.batch_size, labels.images) == (8, 20)
    for step in views.steps(0, 7):
        batch = labels.batch(step.epoch, step.batch)
        torch.testing.assert_close(batch.render(images[step.index]), views.render(images, step).images)
        torch.testing.assert_close(
            batch.logits.float(), logits.at(step.epoch, step.batch)[0], atol=2e-2, rtol=1e-3
        )


def test_other_views_cannot_be_exported(tmp_path: Path) -> None:
    views = Views(Recipe("sgd", 0.1, 0, "constant", 8, augment=("dsa",)), 8, 1, torch.device("cpu"))
    with pytest.raises(InputError, match="dsa"):
        export_views(tmp_path, views, None, 8, 1)


def test_less_than_an_epoch_cannot_be_exported(tmp_path: Path) -> None:
    views = Views(Recipe("sgd", 0.1, 0, "constant", 8, augment=("flip",)), 20, 1, torch.device("cpu"))
    with pytest.raises(InputError, match=r"end after 2 steps, but .* a whole epoch of 3"):
        export_views(tmp_path, views, None, 8, 2)
    assert list(tmp_path.iterdir()) == []


def published(**changes: object) -> list[object]:
    """A batch as published files hold it: NumPy numbers in the box, a NumPy lambda."""
    content: dict[str, object] = {
        "coordinates": torch.tensor([[0.1, 0.2, 0.5, 0.6]] * 4),
        "flips": [True, False, True, False],
        "partner": torch.tensor([1, 0, 3, 2]),
        "share": np.float64(0.25),
        "box": [np.int64(1), np.int64(2), np.int64(5), np.int64(7)],
        "logits": torch.zeros(4, 3, dtype=torch.float16),
    }
    return list({**content, **changes}.values())


def test_published_files_with_numpy_numbers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "batch_0.tar"
    torch.save(published(), path)
    batch = read_batch(path)
    assert batch.box == (1, 2, 5, 7)
    assert batch.share == 0.25
    assert batch.render(torch.randn(4, 3, 8, 8)).shape == (4, 3, 8, 8)


@pytest.mark.parametrize(
    "changes",
    [
        {"coordinates": torch.tensor([[0.25, 0.0, 0.7502, 1.0005]] * 4)},
        {"coordinates": torch.tensor([[0.1, 0.2, 0.9, 0.8]] * 4).half()},
        {"coordinates": torch.tensor([[-3e-8, 0.0, 1.0, 1.0]] * 4)},
        {"flips": torch.tensor([1, 0, 0, 1], dtype=torch.uint8)},
        {"flips": (0, 1, 1, 0)},
        {"partner": torch.tensor([3, 3, 3, 3], dtype=torch.uint8)},
        {"partner": torch.tensor([3.0, 2.0, 1.0, 0.0])},
        {"share": 0, "box": None},
        {"share": 1.0, "box": [0, 0, 0, 0]},
        {"share": torch.tensor([0.5], dtype=torch.float64)},
        {"share": None, "box": torch.tensor([0, 0, 1 << 16, 1 << 16])},
        {"box": [torch.tensor(side, dtype=torch.uint8) for side in (1, 1, 8, 8)]},
        {"partner": None, "share": None, "box": None},
        {"logits": torch.full((4, 2), -65504.0)},
        {"logits": torch.nn.Parameter(torch.zeros(4, 1000))},
    ],
)
def test_what_others_write_differently_is_read(tmp_path: Path, changes: dict[str, object]) -> None:
    """float16 coordinates, uint8 indices, boxes of tensors, as smaller labels are saved; and the bounds."""
    torch.save(published(**changes), tmp_path / "batch_0.tar")
    batch = read_batch(tmp_path / "batch_0.tar")
    assert batch.logits.dtype == torch.float16
    assert not batch.logits.requires_grad
    assert batch.flips.dtype == torch.bool
    assert batch.partner is None or batch.partner.dtype == torch.int64
    assert batch.render(torch.randn(4, 3, 8, 8)).isfinite().all()
    write_batch(tmp_path / "again.tar", batch)
    again = read_batch(tmp_path / "again.tar")
    assert again.coordinates.equal(batch.coordinates)
    assert (again.share, again.box) == (batch.share, batch.box)


class _Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def crops(*row: float) -> torch.Tensor:
    """Whole images, but for the third."""
    coordinates = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 4)
    coordinates[2] = torch.tensor(row)
    return coordinates


def logits(number: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[4, 3] zeros, but for one."""
    values = torch.zeros(4, 3, dtype=dtype)
    values[1, 2] = number
    return values


NAN, INF = float("nan"), float("inf")
ODD: list[tuple[object, str]] = [
    ("text", "not a list of coordinates, flips"),
    ("sixsix", "not a list of coordinates, flips"),
    (dict(enumerate(published())), "not a list of coordinates, flips"),
    (torch.zeros(6, 4), "not a list of coordinates, flips"),
    (published()[:5], "not a list of coordinates, flips"),
    (published(logits=logits(NAN)), "some of its logits are NaN"),
    (published(logits=logits(INF)), "logits overflow float16, whose largest value is 65,504"),
    (published(logits=logits(-INF, torch.float16)), "logits overflow float16"),
    (published(logits=logits(65520.0)), "logits overflow float16"),
    (published(logits=torch.zeros(4, 3, dtype=torch.complex64)), "logits are complex"),
    (published(logits=torch.zeros(4, 3, dtype=torch.bool)), "logits are Boolean, not numbers"),
    (published(logits=torch.zeros(4, 1)), r"logits are \[4, 1\].*at least two classes"),
    (published(logits=torch.zeros(4, 0)), r"logits are \[4, 0\]"),
    (published(logits=torch.zeros(2, 4, 3)), r"logits are \[2, 4, 3\]"),
    (published(logits=torch.tensor(1.0)), r"logits are \[\]"),
    (published(logits=[1.0, 2.0]), r"logits are \[2\]"),
    (published(logits="text"), "logits are not a tensor"),
    (published(logits=None), "logits are not a tensor"),
    (
        [torch.zeros(0, 4), [], None, None, None, torch.zeros(0, 3)],
        r"logits are \[0, 3\], but must be \[images, classes\]",
    ),
    (published(coordinates=torch.zeros(3, 4)), "lengths of its parts differ"),
    (published(coordinates=None), "coordinates are not a tensor"),
    (published(coordinates=[[0.0, 0.0, 1.0, 1.0]] * 4), "nested lists"),
    (published(coordinates=crops(0, 0, 1, 1).to(torch.complex64)), "coordinates are complex"),
    (published(coordinates=crops(NAN, 0, 1, 1)), "crop 2 is not inside the image: .* are nan, 0, 1, 1"),
    (published(coordinates=crops(0, 0, 1, NAN)), "crop 2 is not inside the image"),
    (published(coordinates=crops(1e30, 0, 1, 1)), "crop 2 is not inside the image"),
    (published(coordinates=crops(0, -INF, 1, 1)), "crop 2 is not inside the image"),
    (published(coordinates=crops(-0.1, 0, 1, 1)), "crop 2 is not inside the image: .* are -0.1, 0, 1, 1"),
    (published(coordinates=crops(0, -0.1, 0.5, 0.5)), "crop 2 is not inside the image"),
    (published(coordinates=crops(0, 0, 0, 1)), "crop 2 is not inside the image"),
    (published(coordinates=crops(0, 0, 1, -0.5)), "crop 2 is not inside the image"),
    (published(coordinates=crops(0.5, 0, 0.51, 1)), "crop 2 is not inside the image"),
    (published(coordinates=crops(0, 0.5, 1, 0.51)), "crop 2 is not inside the image"),
    (published(flips=[True]), "lengths of its parts differ"),
    (published(flips=[0, 1, 7, 0]), "flips are not all true or false"),
    (published(flips=torch.tensor([0.0, 1.0, NAN, 0.0])), "flips are not all true or false"),
    (published(flips=torch.tensor([0.0, 1.0, 0.5, 0.0])), "flips are not all true or false"),
    (published(flips="TFTF"), "flips are not a tensor"),
    (published(flips=["a", "b", "c", "d"]), "other values than numbers"),
    (published(partner=torch.tensor([9, 0, 1, 2])), "mix indices are out of the batch"),
    (published(partner=torch.tensor([-1, 0, 1, 2])), "mix indices are out of the batch"),
    (published(partner=torch.tensor([1, 0, 3])), "mix indices are out of the batch"),
    (published(partner=torch.tensor([1, 0, 3.5, 2])), "mix indices are not whole numbers"),
    (published(partner=torch.tensor([1, 0, NAN, 2])), "mix indices are not whole numbers"),
    (published(partner=torch.tensor([True, False, True, True])), "mix indices are not whole numbers"),
    (published(partner=7), "mix indices are not a tensor"),
    (published(partner=None), "a lambda or a box, but no mix indices"),
    (published(partner=None, share=None), "a lambda or a box, but no mix indices"),
    (published(partner=None, box=None), "a lambda or a box, but no mix indices"),
    (published(share=None, box=None), "neither lambda nor box"),
    (published(share=NAN), "lambda is nan, but must be 0 to 1"),
    (published(share=np.float64("nan")), "lambda is nan, but must be 0 to 1"),
    (published(share=-3), "lambda is -3, but must be 0 to 1"),
    (published(share=1e300), r"lambda is 1e\+300, but must be 0 to 1"),
    (published(share=10**400), "number has too many bits"),
    (published(share="0.5"), "lambda is not a number"),
    (published(share=True), "lambda is not a number"),
    (published(share=0.5j), "lambda is not a number"),
    (published(share=torch.tensor([0.5, 0.5])), "lambda is not a number"),
    (published(box=[5, 2, 1, 7]), "box is not first row, .* in order"),
    (published(box=[1, 7, 5, 2]), "box is not first row"),
    (published(box=[-1, 0, 5, 5]), "box is not first row"),
    (published(box=[0, -1, 5, 5]), "box is not first row"),
    (published(box=[0, 0, 10**9, 5]), "box is not first row, .* 0 to 65,536"),
    (published(box=[0, 0, 5, 1e300]), "box is not first row"),
    (published(box=[0, 0, 5, 10**400]), "number has too many bits"),
    (published(box=[0, 0, 5.5, 5]), "box has numbers that are not whole"),
    (published(box=[0, 0, NAN, 5]), "box has numbers that are not whole"),
    (published(box=[0, 0, 5, "5"]), "box is not a number"),
    (published(box=[0, 0, 5]), "box does not have four numbers"),
    (published(box=[0, 0, 5, 5, 5]), "box does not have four numbers"),
    (published(box=torch.tensor(3)), "box does not have four numbers"),
    (published(box={0: 1}), "box does not have four numbers"),
]


@pytest.mark.parametrize(("content", "said"), ODD)
def test_what_is_no_batch_is_refused(tmp_path: Path, content: object, said: str) -> None:
    path = tmp_path / "batch_0.tar"
    torch.save(content, path)
    with pytest.raises(InputError, match=rf"batch_0\.tar: it is not a batch of FKD labels \(.*{said}.*\)$"):
        read_batch(path)


def valid_batch(images: int = 2, classes: int = 3, **changes: Any) -> FkdBatch:
    """A batch of whole images."""
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * images)
    made = FkdBatch(whole, torch.zeros(images, dtype=torch.bool), torch.zeros(images, classes).half())
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"logits": torch.full((2, 3), 1e5)}, "overflow float16"),
        ({"logits": torch.full((2, 3), NAN)}, "some of its logits are NaN"),
        ({"coordinates": torch.zeros(2, 4)}, "crop 0 is not inside the image"),
        ({"share": 0.5}, "no mix indices"),
    ],
)
def test_what_would_be_refused_is_not_written(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = tmp_path / "batch_0.tar"
    with pytest.raises(InputError, match=f"would not be a valid batch of FKD labels .*{said}"):
        write_batch(path, valid_batch(**changes))
    assert not path.exists()


def test_code_is_not_executed(tmp_path: Path) -> None:
    path, mark = tmp_path / "batch_0.tar", tmp_path / "mark"
    torch.save(published(share=_Evil(mark)), path)
    with pytest.raises(InputError, match="not a batch of FKD labels"):
        read_batch(path)
    assert not mark.exists()


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch_0.tar"
    write_batch(path, valid_batch())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="not a batch of FKD labels"):
        read_batch(path)


def labelled(folder: Path, epochs: int = 2, sizes: tuple[int, ...] = (3, 3, 2)) -> Path:
    """A folder of labels of three classes."""
    for epoch in range(epochs):
        (folder / f"epoch_{epoch}").mkdir(parents=True)
        for number, images in enumerate(sizes):
            write_batch(folder / f"epoch_{epoch}" / f"batch_{number}.tar", valid_batch(images))
    return folder


def test_batches_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Eleven an epoch, so that the order of their names is another."""
    labelled(tmp_path, epochs=2, sizes=(1,) * 11)
    (tmp_path / "README").touch()
    (tmp_path / "epoch_x").mkdir()
    files = batches(tmp_path)
    assert [(epoch, number) for epoch, number, _ in files] == [(e, b) for e in range(2) for b in range(11)]
    assert all(path == tmp_path / f"epoch_{e}" / f"batch_{b}.tar" for e, b, path in files)


def _emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _replaced(path: Path) -> None:
    path.unlink()
    path.mkdir()


ODD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a gap of epochs": (lambda f: (f / "epoch_1").rename(f / "epoch_2"), "epoch_1 is missing, but epoch_2"),
    "no first epoch": (lambda f: shutil.rmtree(f / "epoch_0"), "epoch_0 is missing, but epoch_1"),
    "a far epoch": (lambda f: (f / f"epoch_{10**30}").mkdir(), "epoch_2 is missing"),
    "a gap of batches": (
        lambda f: (f / "epoch_1" / "batch_1.tar").unlink(),
        r"epoch_1: batch_1\.tar is missing, but batch_2\.tar",
    ),
    "a short epoch": (
        lambda f: (f / "epoch_0" / "batch_2.tar").unlink(),
        r"epoch 0 lacks batch_2\.tar, but epoch 1 has 3 batches",
    ),
    "a long epoch": (
        lambda f: (f / "epoch_1" / "batch_3.tar").touch(),
        r"epoch 0 lacks batch_3\.tar, but epoch 1 has 4 batches",
    ),
    "an empty epoch": (lambda f: (f / "epoch_2").mkdir(), r"epoch 2 lacks batch_0\.tar"),
    "only empty epochs": (
        lambda f: [_emptied(f / f"epoch_{epoch}") for epoch in range(2)],
        r"its epochs contain no batch_\*\.tar",
    ),
    "an epoch twice": (lambda f: (f / "epoch_00").mkdir(), "epoch_0 and epoch_00 have the same number"),
    "a batch twice": (
        lambda f: (f / "epoch_1" / "batch_02.tar").touch(),
        r"epoch_1: batch_02\.tar and batch_2\.tar have the same number",
    ),
    "a folder for a batch": (
        lambda f: _replaced(f / "epoch_0" / "batch_1.tar"),
        r"epoch_0/batch_1\.tar: it is a folder, but must be a file",
    ),
    "a file for an epoch": (
        lambda f: (f / "epoch_2").touch(),
        "epoch_2: it is a file, but must be a folder",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), ODD_FOLDERS.values(), ids=ODD_FOLDERS)
def test_folders_that_are_not_whole_are_refused(
    spoil: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    spoil(labelled(tmp_path / "labels"))
    for reader in (batches, FkdFolder):
        with pytest.raises(InputError, match=said) as refusal:
            reader(tmp_path / "labels")
        assert "\n" not in str(refusal.value)


def test_what_is_no_folder_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no epoch_"):
        batches(tmp_path)
    with pytest.raises(InputError, match="absent: it does not exist; give the folder"):
        batches(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: it is a file; give the folder that holds epoch_0"):
        batches(tmp_path / "file")
    with pytest.raises(InputError, match="below: it does not exist"):
        batches(tmp_path / "file" / "below")


@pytest.mark.parametrize("sizes", [(3, 3, 2), (3, 3, 3), (3, 1), (3,)])
def test_a_folder_knows_its_sizes_from_two_files(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """The others may even be broken until they are asked for."""
    labelled(tmp_path, epochs=2, sizes=sizes)
    (tmp_path / "epoch_1" / "batch_0.tar").write_bytes(b"")
    labels = FkdFolder(tmp_path)
    assert (labels.epochs, labels.per_epoch, labels.classes) == (2, len(sizes), 3)
    assert (labels.batch_size, labels.images) == (3, sum(sizes))
    assert [len(labels.batch(0, number).logits) for number in range(len(sizes))] == list(sizes)
    with pytest.raises(InputError, match=r"epoch_1/batch_0\.tar: it is not a batch"):
        labels.batch(1, 0)


@pytest.mark.parametrize(("epoch", "number"), [(2, 0), (0, 3), (-1, 0), (0, -1)])
def test_batches_that_a_folder_does_not_have(tmp_path: Path, epoch: int, number: int) -> None:
    with pytest.raises(InputError, match=f"no batch {number} of epoch {epoch}, but 6 batches, 3 per epoch"):
        FkdFolder(labelled(tmp_path)).batch(epoch, number)


@pytest.mark.parametrize(
    ("place", "images", "classes"),
    [((0, 1), 2, 3), ((0, 1), 3, 4), ((1, 0), 2, 3), ((1, 2), 3, 3), ((1, 2), 2, 2)],
)
def test_a_file_that_differs_is_refused_when_it_is_read(
    tmp_path: Path, place: tuple[int, int], images: int, classes: int
) -> None:
    path = labelled(tmp_path) / f"epoch_{place[0]}" / f"batch_{place[1]}.tar"
    write_batch(path, valid_batch(images, classes))
    labels = FkdFolder(tmp_path)
    labels.batch(0, 0)
    with pytest.raises(
        InputError, match=f"{path}: it has {images} images and {classes} classes, but epoch 0"
    ):
        labels.batch(*place)


@pytest.mark.parametrize(("images", "classes"), [(4, 3), (2, 5)])
def test_a_last_batch_that_does_not_fit_the_first(tmp_path: Path, images: int, classes: int) -> None:
    path = labelled(tmp_path) / "epoch_0" / "batch_2.tar"
    write_batch(path, valid_batch(images, classes))
    with pytest.raises(
        InputError, match=f"{path}: it has {images} images and {classes} classes, but batch_0"
    ):
        FkdFolder(tmp_path)
