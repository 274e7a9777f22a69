"""Parquet and folder datasets: read as public hubs write them, refused when they are not whole."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raydc.data.dataset import open_dataset
from raydc.data.source import decode_image
from raydc.errors import InputError
from raydc.spec.evaluation import DatasetSpec
from raydc.store.local import LocalStore

NAMES = ["cat", "dog", "owl"]


def picture(seed: int, side: int = 6, mode: str = "RGB") -> bytes:
    generator = np.random.default_rng(seed)
    shape = (side, side, 3) if mode == "RGB" else (side, side)
    buffer = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(folder: Path, split: str, labels: list[int], **options: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    side = options.get("side", 6)
    images = [{"bytes": picture(i, side), "path": f"{NAMES[c]}/{i}.png"} for i, c in enumerate(labels)]
    label_column = str(options.get("label", "label"))
    table = pa.table(
        {
            "img": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            label_column: pa.array(labels, pa.int64()),
        }
    )
    features = {"img": {"_type": "Image"}, label_column: {"names": NAMES, "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path = folder / f"{split}.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    write_parquet(folder, "train-00000-of-00002", [0, 1, 2, 0, 1, 2])
    write_parquet(folder / "data", "train-00001-of-00002", [2, 1, 0])
    write_parquet(folder, "test-00000-of-00001", [0, 1, 2])
    return folder


@pytest.fixture
def open_it(tmp_path: Path) -> Callable[..., object]:
    def open_(kind: str, folder: Path, **options: object) -> object:
        spec = DatasetSpec(folder.name, kind, str(folder), **{"val_fraction": 0.0, **options})
        return open_dataset(spec, LocalStore(tmp_path / "store"))

    return open_


def write_folder(root: Path, splits: tuple[str, ...] = ("train", "val")) -> Path:
    for split in splits:
        for number, name in enumerate(NAMES):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                (root / split / name / f"{i}.png").write_bytes(picture(10 * number + i))
    return root


def test_parquet_in_many_files(hub: Path, open_it: Callable) -> None:
    dataset = open_it("parquet", hub)
    assert dataset.class_names == tuple(NAMES)
    assert sorted(dataset.train.labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.train.images.shape == (9, 3, 6, 6)
    first = decode_image(picture(0), "x")
    assert any(np.array_equal(image.transpose(1, 2, 0), first) for image in dataset.train.images)


def test_the_fingerprint_is_of_contents_not_of_paths(hub: Path, tmp_path: Path, open_it: Callable) -> None:
    there = tmp_path / "elsewhere"
    hub.rename(there)
    moved = open_it("parquet", there)
    there.rename(hub)
    assert open_it("parquet", hub).fingerprint == moved.fingerprint
    write_parquet(hub, "test-00000-of-00001", [0, 2, 1])
    assert open_it("parquet", hub).fingerprint != moved.fingerprint


def test_labels_of_validation_serve_where_test_has_none(tmp_path: Path, open_it: Callable) -> None:
    folder = tmp_path / "hub"
    write_parquet(folder, "train", [0, 1, 2])
    write_parquet(folder, "validation", [2, 1, 0])
    path = write_parquet(folder, "test", [0, 1, 2])
    table = pq.read_table(path)
    unlabelled = table.set_column(1, "label", pa.array([-1, -1, -1]))
    pq.write_table(unlabelled, path)
    assert open_it("parquet", folder).test.labels.tolist() == [2, 1, 0]


def test_folder_with_a_class_a_folder(tmp_path: Path, open_it: Callable) -> None:
    dataset = open_it("folder", write_folder(tmp_path / "images"))
    assert dataset.class_names == tuple(NAMES)
    assert np.bincount(dataset.test.labels).tolist() == [2, 2, 2]


def test_grey_images_keep_one_channel_and_mixed_ones_get_three(tmp_path: Path, open_it: Callable) -> None:
    root = write_folder(tmp_path / "images")
    for path in root.rglob("*.png"):
        path.write_bytes(picture(1, mode="L"))
    assert open_it("folder", root).channels == 1
    (root / "train" / "cat" / "0.png").write_bytes(picture(2))
    assert open_it("folder", root).channels == 3


def test_resolution_makes_one_size_of_many(tmp_path: Path, open_it: Callable) -> None:
    root = write_folder(tmp_path / "images")
    wide = io.BytesIO()
    Image.new("RGB", (20, 10), (255, 0, 0)).save(wide, "PNG")
    (root / "train" / "cat" / "0.png").write_bytes(wide.getvalue())
    with pytest.raises(InputError, match=r"20 x 10 pixels, which is not square; set dataset\.resolution"):
        open_it("folder", root)
    assert open_it("folder", root, resolution=8).resolution == 8


def test_a_corrupt_image_is_named(tmp_path: Path, open_it: Callable) -> None:
    root = write_folder(tmp_path / "images")
    victim = root / "train" / "dog" / "1.png"
    victim.write_bytes(victim.read_bytes()[:40])
    with pytest.raises(InputError, match=r"dog/1\.png: the image cannot be decoded"):
        open_it("folder", root)


def test_a_corrupt_image_in_parquet_is_named(hub: Path, open_it: Callable) -> None:
    path = hub / "train-00000-of-00002.parquet"
    table = pq.read_table(path)
    images = table["img"].to_pylist()
    images[4]["bytes"] = b"not an image"
    broken = table.set_column(0, table.schema.field(0), pa.array(images, table.schema.field(0).type))
    pq.write_table(broken, path)
    with pytest.raises(InputError, match=r"row \d+ \(dog/4\.png\): the image cannot be decoded"):
        open_it("parquet", hub)


def test_a_file_cut_short_is_refused(hub: Path, open_it: Callable) -> None:
    path = hub / "train-00000-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="it is not a complete Parquet file"):
        open_it("parquet", hub)


@pytest.mark.parametrize("kind", ["parquet", "folder"])
def test_a_missing_folder_is_refused(tmp_path: Path, open_it: Callable, kind: str) -> None:
    with pytest.raises(InputError, match=f"dataset.{kind} is .*there is no such folder"):
        open_it(kind, tmp_path / "nowhere")


def test_splits_that_are_not_there_are_named(tmp_path: Path, open_it: Callable) -> None:
    write_parquet(tmp_path / "hub", "train", [0, 1, 2])
    with pytest.raises(InputError, match=r"has files of the splits train; there must be"):
        open_it("parquet", tmp_path / "hub")
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match="must hold train/ and one of test/"):
        open_it("folder", tmp_path / "images")


def test_a_class_that_the_test_split_lacks_is_named(tmp_path: Path, open_it: Callable) -> None:
    write_parquet(tmp_path / "hub", "train", [0, 1, 2])
    write_parquet(tmp_path / "hub", "test", [0, 1, 1])
    with pytest.raises(InputError, match="the class 'owl' has no image in the test split"):
        open_it("parquet", tmp_path / "hub")


def test_columns_that_do_not_fit_are_named(tmp_path: Path, open_it: Callable) -> None:
    write_parquet(tmp_path / "hub", "train", [0, 1, 2])
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "hub" / "test.parquet")
    with pytest.raises(InputError, match="it has the columns a or b, but there must be one image column"):
        open_it("parquet", tmp_path / "hub")


def test_an_image_of_too_many_pixels_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(buffer, "PNG")
    with pytest.raises(InputError, match="10000 x 10000 pixels"):
        decode_image(buffer.getvalue(), "bomb.png")


def test_a_class_that_the_test_split_lacks_can_be_left_out(tmp_path: Path, open_it: Callable) -> None:
    write_parquet(tmp_path / "hub", "train", [0, 1, 2])
    write_parquet(tmp_path / "hub", "test", [0, 1, 1])
    assert open_it("parquet", tmp_path / "hub", classes=("cat", "dog")).class_names == ("cat", "dog")


def test_a_corrupt_image_is_named_by_its_own_file_and_row(hub: Path, open_it: Callable) -> None:
    path = hub / "data" / "train-00001-of-00002.parquet"
    table = pq.read_table(path)
    images = table["img"].to_pylist()
    images[1] = {"bytes": b"not an image", "path": None}
    broken = table.set_column(0, table.schema.field(0), pa.array(images, table.schema.field(0).type))
    pq.write_table(broken, path)
    with pytest.raises(
        InputError, match=r"train-00001-of-00002\.parquet: row 1: the image cannot be decoded"
    ):
        open_it("parquet", hub)


def test_small_unsigned_labels_are_read(hub: Path, open_it: Callable) -> None:
    for path in hub.rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.set_column(1, "label", table["label"].cast(pa.uint8())), path)
    assert sorted(open_it("parquet", hub).train.labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
