"""Imported sets: every layout, whose labels, what is refused, and that nothing in a file is executed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from raydc.data.image_set import CompressedSet, encode_image
from raydc.data.imported import digest_of, read_set
from raydc.errors import InputError
from raydc.methods.imported import select
from raydc.methods.pool import Pool

NAMES = ("ant", "bee", "cat")
FLOATS = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
SOFT = np.eye(3, dtype=np.float32)[LABELS] * 0.7 + 0.1


def as_pair(folder: Path) -> str:
    torch.save(torch.from_numpy(FLOATS), folder / "images_best.pt")
    torch.save(torch.from_numpy(SOFT), folder / "labels_best.pt")
    return str(folder / "images_best.pt")


def as_list(folder: Path) -> str:
    torch.save({"data": [[torch.from_numpy(FLOATS), torch.from_numpy(LABELS)]]}, folder / "res.pt")
    return str(folder / "res.pt")


def as_dict(folder: Path) -> str:
    torch.save({"images": torch.from_numpy(FLOATS), "labels": torch.from_numpy(SOFT)}, folder / "set.pt")
    return str(folder / "set.pt")


def as_hdf5(folder: Path) -> str:
    with h5py.File(folder / "set.h5", "w") as file:
        file["data"], file["label"] = FLOATS, SOFT
    return str(folder / "set.h5")


@pytest.mark.parametrize("write", [as_pair, as_list, as_dict, as_hdf5])
def test_float_sets(write: Callable[[Path], str], tmp_path: Path) -> None:
    found = read_set(write(tmp_path), NAMES)
    np.testing.assert_array_equal(found.images, FLOATS)
    np.testing.assert_array_equal(found.labels, LABELS)
    if write is as_list:
        assert found.soft_labels is None
    else:
        np.testing.assert_array_equal(found.soft_labels, SOFT)


@pytest.mark.parametrize("folders", [NAMES, ("new000", "new001", "new002"), ("n01", "n02", "n03")])
def test_class_folders(folders: tuple[str, ...], tmp_path: Path) -> None:
    """By name, by number, or by order where neither fits."""
    for number, (image, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (tmp_path / folders[label]).mkdir(exist_ok=True)
        (tmp_path / folders[label] / f"{number}.png").write_bytes(encode_image(image, "png"))
    found = read_set(str(tmp_path), NAMES)
    order = np.argsort(LABELS, kind="stable")
    np.testing.assert_array_equal(found.images, PIXELS[order])
    np.testing.assert_array_equal(found.labels, LABELS[order])


def test_parquet_of_a_hub_and_of_our_own(tmp_path: Path) -> None:
    images = pa.array([{"bytes": encode_image(image, "png"), "path": None} for image in PIXELS])
    (tmp_path / "hub").mkdir()
    table = pa.table({"image": images, "label": LABELS, "soft_label": SOFT.tolist()})
    pq.write_table(table, tmp_path / "hub" / "train-00000-of-00001.parquet")
    own = CompressedSet(FLOATS, LABELS, 0, space="zca", grid=(2, 2), soft_labels=SOFT)
    (tmp_path / "own").mkdir()
    own.save(tmp_path / "own", "png", NAMES)
    hub = read_set(str(tmp_path / "hub"), NAMES)
    np.testing.assert_array_equal(hub.images, PIXELS)
    np.testing.assert_allclose(hub.soft_labels, SOFT)
    back = read_set(str(tmp_path / "own"), NAMES)
    assert (back.space, back.grid) == ("zca", (2, 2))
    np.testing.assert_allclose(back.images, FLOATS, atol=2e-3)


def pool(**changes: Any) -> Pool:
    values = {"classes": (0, 1, 2), "ipc": 1, "shape": (3, 8, 8), "class_names": NAMES}
    generator = np.random.default_rng(0)
    return Pool(np.empty(0, np.int64), generator=generator, **{**values, **changes})


def test_the_first_images_of_each_class_are_taken(tmp_path: Path) -> None:
    made = select(pool(classes=(0, 2)), path=as_dict(tmp_path))
    np.testing.assert_array_equal(made.images, FLOATS[[0, 2]])
    np.testing.assert_array_equal(made.soft_labels, SOFT[[0, 2]])
    assert made.space == "normalised"
    unit = torch.from_numpy(PIXELS.astype(np.float32) / 255)
    torch.save({"images": unit, "labels": torch.from_numpy(LABELS)}, tmp_path / "unit.pt")
    pixels = select(pool(ipc=2), path=str(tmp_path / "unit.pt"), space="pixel")
    np.testing.assert_array_equal(pixels.images, PIXELS[[0, 3, 1, 4, 2, 5]])


@pytest.mark.parametrize(
    ("changes", "keys", "said"),
    [
        ({"ipc": 3}, {}, "has 2 images of the class 'ant', but images.ipc is 3; choose at most 2"),
        ({"shape": (3, 16, 16)}, {}, "3 x 8 x 8, but the data are 3 x 16 x 16"),
        ({"space": "zca"}, {"space": "normalised"}, "set dataset.zca to match"),
        ({}, {"space": "pixel"}, "but those of the space pixel are from 0 to 1"),
        ({"class_names": ("ant", "bee")}, {}, "soft labels have 3 entries, but the data have 2 classes"),
    ],
)
def test_a_set_that_does_not_fit(
    changes: dict[str, Any], keys: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        select(pool(**changes), path=as_dict(tmp_path), **keys)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.zeros(3, 3, 8, 8), "contains no images with labels"),
        ({"images": torch.zeros(3, 8, 8), "labels": torch.zeros(3)}, "must be numbers [N, C, H, W]"),
        ({"images": torch.zeros(3, 3, 8, 8), "labels": torch.zeros(2)}, "one label per image"),
        ({"images": torch.zeros(1, 3, 8, 8), "labels": torch.tensor([7])}, "has the class 7"),
        ({"images": torch.zeros(1, 3, 8, 8), "labels": -torch.ones(1, 3)}, "probabilities, not logits"),
        ({"images": torch.zeros(0, 3, 8, 8), "labels": torch.zeros(0)}, "contains no images"),
    ],
)
def test_a_file_that_is_no_set(content: Any, said: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "set.pt")
    with pytest.raises(InputError) as refused:
        read_set(str(tmp_path / "set.pt"), NAMES)
    assert said in str(refused.value)


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch canary",)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"images": Bomb(), "labels": Bomb()}, "zipped.pt")
    for name in ("plain.pt", "zipped.pt"):
        with pytest.raises(InputError, match="cannot be read"):
            read_set(name, NAMES)
    assert not Path("canary").exists()


@pytest.mark.parametrize("name", ["nowhere", "notes.txt", "broken.h5", "empty"])
def test_a_path_that_is_no_set(name: str, tmp_path: Path) -> None:
    for other in ("notes.txt", "broken.h5"):
        (tmp_path / other).write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"images\.path is "):
        read_set(str(tmp_path / name), NAMES)


def test_images_of_different_shapes_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8 + number, 8)).save(tmp_path / name / "x.png")
    with pytest.raises(InputError, match="must have the same shape"):
        read_set(str(tmp_path), NAMES)


def test_the_digest_is_of_contents(tmp_path: Path) -> None:
    one, other = (tmp_path / name for name in ("a", "b"))
    one.mkdir()
    other.mkdir()
    assert digest_of("images.path", as_pair(one)) == digest_of("images.path", as_pair(other))
    torch.save(torch.from_numpy(1 - SOFT), other / "labels_best.pt")
    paths = [str(folder / "images_best.pt") for folder in (one, other)]
    assert digest_of("images.path", paths[0]) != digest_of("images.path", paths[1])
