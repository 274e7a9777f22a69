"""Data that stay encoded: the same to everyone who uses them as the decoded cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pyarrow import fs

from raydc.data import pixels as module
from raydc.data.dataset import Dataset, dataset_from, open_dataset
from raydc.data.pixels import DecodedPixels, EncodedPixels
from raydc.errors import ArtifactError, InputError
from raydc.spec.evaluation import DatasetSpec
from raydc.spec.facts import bind
from raydc.spec.plan import Plan, make_plan
from raydc.spec.study import StudySpec
from raydc.store.artifact import get
from raydc.store.local import LocalStore
from raydc.store.remote import NodeCache, RemoteStore
from raydc.training.inputs import StreamedInputs, part_inputs
from raydc.worker.evaluate import evaluate
from raydc.worker.making import make, make_everything
from raydc.worker.trajectory_work import TrajectoryWork
from raydc.worker.workbench import Workbench
from tests.conftest import DIGITS

CPU = torch.device("cpu")
CLASSES = ("fox", "owl", "yak")
TRAIN, TEST = 2400, 300
TINY_GIB = 1e-6


def draw(generator: np.random.Generator, label: int, height: int = 24, width: int = 32) -> Image.Image:
    """A picture whose brightness grows from left to right, from top to bottom or not, by its class."""
    ramp = np.zeros((height, width)) if label == 2 else np.indices((height, width))[label] * 5.0
    pixels = ramp[:, :, None] + generator.integers(0, 60, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> DatasetSpec:
    """A folder of some thousand JPEGs of 32 x 24 pixels, and a few that are otherwise."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for number in range(count):
            label = number % len(CLASSES)
            path = root / split / CLASSES[label] / f"{number:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            height = 24 if number % 10 else 40
            picture = draw(generator, label, height)
            if number == 7:
                picture = picture.convert("L")
            if number == 8:
                path = path.with_suffix(".png")
            picture.save(path)
    return DatasetSpec("images", "folder", location=str(root), resolution=16)


@pytest.fixture(scope="module")
def decoded(images: DatasetSpec, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    store = LocalStore(tmp_path_factory.mktemp("decoded"))
    return Workbench(open_dataset(images, store), store, CPU)


@pytest.fixture(scope="module")
def encoded(images: DatasetSpec, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    store = LocalStore(tmp_path_factory.mktemp("encoded"))
    return Workbench(open_dataset(replace(images, cache_limit_gib=TINY_GIB), store), store, CPU)


def test_the_form_changes_neither_names_nor_numbers(decoded: Workbench, encoded: Workbench) -> None:
    one, other = decoded.dataset, encoded.dataset
    assert isinstance(one.train.source, DecodedPixels)
    assert isinstance(other.train.source, EncodedPixels)
    assert one.cache != other.cache
    assert (one.fingerprint, one.id, one.facts) == (other.fingerprint, other.id, other.facts)
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.std, other.std)
    for mine, theirs in ((one.train, other.train), (one.val, other.val), (one.test, other.test)):
        assert mine is not None
        assert theirs is not None
        np.testing.assert_array_equal(mine.index, theirs.index)
        np.testing.assert_array_equal(mine.images, np.concatenate(list(theirs.blocks(100))))
        rows = np.array([len(mine) - 1, 0, 7, 7])
        np.testing.assert_array_equal(mine.take(rows), theirs.take(rows))


STUDY = (
    "base.images.ipc=4",
    "grid.images.method=[random, el2n, herding]",
    "base.labels.kind=soft",
    "teacher.epochs=2",
    "teacher.augment=[crop]",
    "base.train.steps=3",
)


def test_everything_made_from_encoded_images_is_equal_to_the_bit(
    decoded: Workbench, encoded: Workbench, small: Callable[..., StudySpec]
) -> None:
    study = small(*STUDY)

    def run(bench: Workbench) -> Plan:
        plan = make_plan(bind(study.evaluations(), bench.dataset.facts, study.source), bench.dataset.id)
        make_everything(plan, bench)
        return plan

    plan = run(encoded)
    assert run(decoded).trajectories == plan.trajectories
    compared = 0
    for kind in ("checkpoint", "scores", "features", "set", "logits"):
        assert decoded.store.names(kind) == encoded.store.names(kind) != []
        for name in decoded.store.names(kind):
            one, other = decoded.store.find(kind, name), encoded.store.find(kind, name)
            assert one is not None
            assert other is not None
            files = sorted(path.name for path in one.folder.iterdir() if path.name != "manifest.json")
            assert [one.path(f).read_bytes() for f in files] == [other.path(f).read_bytes() for f in files]
            compared += len(files)
            if kind == "checkpoint":
                assert one.meta == other.meta
                assert one.meta["test_acc"] > 0.6
    assert compared >= 8
    for planned in plan.evaluations:
        measured = [evaluate(planned, bench) for bench in (decoded, encoded)]
        assert measured[0].test_acc == measured[1].test_acc
        assert measured[0].val_acc == measured[1].val_acc


def test_a_network_from_elsewhere_is_tested_on_encoded_images(
    decoded: Workbench, encoded: Workbench, small: Callable[..., StudySpec], tmp_path: Path
) -> None:
    from raydc.networks.zoo import build
    from raydc.spec.evaluation import TeacherSpec
    from raydc.spec.plan import TrajectoryJob

    path = tmp_path / "given.pt"
    torch.save(build("convnet-d2-w8", 3, 3, 16).state_dict(), path)
    spec = TeacherSpec("teacher", "convnet-d2-w8", checkpoint=str(path), digest="d")
    for bench in (decoded, encoded):
        make(TrajectoryWork(TrajectoryJob("given", spec, 0)), bench)
    said = [bench.store.find("checkpoint", "given-given") for bench in (decoded, encoded)]
    assert said[0] is not None
    assert said[1] is not None
    assert said[0].meta == said[1].meta


def test_batches_are_decoded_ahead_in_order_and_not_too_far(
    encoded: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AHEAD", 50)
    source = encoded.dataset.train.source
    order = np.random.default_rng(0).permutation(400)
    begun = 0

    def asked() -> Iterator[NDArray[np.int64]]:
        nonlocal begun
        for rows in np.split(order, 40):
            begun += 1
            yield rows

    for number, batch in enumerate(source.each(asked())):
        assert begun - number <= 6
        assert begun - number >= min(5, 40 - number)
        np.testing.assert_array_equal(batch, source.take(order[10 * number : 10 * number + 10]))
    assert number == 39
    stopped = source.each(asked())
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert begun < 50


def test_inputs_that_stream_answer_any_question(decoded: Workbench, encoded: Workbench) -> None:
    resident, streamed = (part_inputs(b.dataset, b.dataset.test, CPU) for b in (decoded, encoded))
    assert isinstance(streamed, StreamedInputs)
    assert len(streamed) == TEST
    for index in (None, slice(250, 400), torch.tensor([5, 5, 299])):
        assert torch.equal(resident.take(index), streamed.take(index))


def test_a_damaged_image_is_named_when_it_is_read_and_all_are_made_again(
    images: DatasetSpec, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path)
    dataset = open_dataset(replace(images, cache_limit_gib=TINY_GIB), store)
    before = dataset.test.take(np.arange(20))
    with (tmp_path / "pixels" / dataset.cache / "test.bin").open("r+b") as file:
        file.seek(400)
        file.write(b"damage")
    again = open_dataset(replace(images, cache_limit_gib=TINY_GIB), LocalStore(tmp_path))
    with pytest.raises(ArtifactError, match=r"test\.bin: image 0 does not have the bytes"):
        again.test.take(np.arange(20))
    again.train.take(np.arange(20))
    store = LocalStore(tmp_path)
    assert store.find("pixels", dataset.cache) is None
    mended = open_dataset(replace(images, cache_limit_gib=TINY_GIB), store)
    assert (mended.test.take(np.arange(20)) == before).all()
    with pytest.raises(ArtifactError):  # who has the old ones open does no harm to the new ones
        again.test.take(np.arange(20))
    assert LocalStore(tmp_path).find("pixels", dataset.cache) is not None


def test_images_that_are_damaged_in_an_object_store_are_brought_back(
    images: DatasetSpec, tmp_path: Path
) -> None:
    """By who has sound ones, as soon as it doubts what is there; of `test.bin` only the size is checked."""
    spec = replace(images, cache_limit_gib=TINY_GIB)
    bucket = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())

    def node(name: str) -> RemoteStore:
        return RemoteStore("test://bucket", bucket, "bucket", NodeCache(tmp_path / name, 1e9))

    driver, worker = node("driver"), node("worker")
    dataset = open_dataset(spec, driver)
    with (tmp_path / "bucket" / "pixels" / dataset.cache / "test.bin").open("r+b") as file:
        file.seek(400)
        file.write(b"damage")
    spoilt = dataset_from(spec, get(worker, "pixels", dataset.cache), worker)
    with pytest.raises(ArtifactError, match=r"test\.bin: image 0 does not have the bytes"):
        spoilt.test.take(np.arange(20))
    assert worker.find("pixels", dataset.cache) is None
    driver.recheck()
    open_dataset(spec, driver)
    mended = dataset_from(spec, get(worker, "pixels", dataset.cache), worker)
    assert (mended.test.take(np.arange(20)) == dataset.test.take(np.arange(20))).all()


def copy_some(images: DatasetSpec, root: Path) -> DatasetSpec:
    """Twelve images of each split in a folder that may be spoilt."""
    assert images.location is not None
    for split in ("train", "test"):
        for name in CLASSES:
            for path in sorted((Path(images.location) / split / name).iterdir())[:4]:
                target = root / split / name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    return replace(images, location=str(root), cache_limit_gib=TINY_GIB, val_fraction=0.0)


def test_bad_images_are_refused_before_anything_is_kept(images: DatasetSpec, tmp_path: Path) -> None:
    some = copy_some(images, tmp_path / "some")
    store = LocalStore(tmp_path / "store")
    with pytest.raises(InputError, match=r"which is not square; set dataset\.resolution"):
        open_dataset(replace(some, resolution=None), store)
    with pytest.raises(InputError, match=r"dataset\.zca needs all pixels in memory.*cache_limit_gib"):
        open_dataset(replace(some, zca=True), store)
    bad = tmp_path / "some" / "train" / "owl" / "00004.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(InputError, match=r"owl/00004\.jpg: the image cannot be decoded"):
        open_dataset(some, store)
    assert store.names("pixels") == []


def test_zca_is_refused_for_images_that_were_kept_encoded(images: DatasetSpec, tmp_path: Path) -> None:
    some = copy_some(images, tmp_path / "some")
    store = LocalStore(tmp_path / "store")
    open_dataset(replace(some, zca=True, cache_limit_gib=8.0), store)
    open_dataset(some, store)
    with pytest.raises(InputError, match=r"dataset\.zca needs all pixels in memory"):
        open_dataset(replace(some, zca=True), store)


def test_plain_arrays_stay_encoded_as_png(digits: Dataset, tmp_path: Path) -> None:
    # The limit lies between the two splits: only one of them stays encoded.
    limit = 3 * 64 * 1000 / 2**30
    mixed = open_dataset(replace(DIGITS, cache_limit_gib=limit), LocalStore(tmp_path))
    assert (mixed.train.encoded, mixed.test.encoded) == (True, False)
    assert (mixed.fingerprint, mixed.channels) == (digits.fingerprint, 1)
    np.testing.assert_array_equal(mixed.train.take(np.arange(1000)), digits.train.images)
    np.testing.assert_array_equal(mixed.test.images, digits.test.images)


def test_parquet_is_read_a_row_group_at_a_time(images: DatasetSpec, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    for split, count in (("train", 40), ("test", 10)):
        pictures, labels = [], []
        for number in range(count):
            draw(generator, number % 3, 16, 16).save(tmp_path / "one.png")
            pictures.append({"bytes": (tmp_path / "one.png").read_bytes(), "path": None})
            labels.append(number % 3)
        table = pa.table({"image": pictures, "label": labels})
        pq.write_table(table, tmp_path / f"{split}.parquet", row_group_size=3)
    spec = DatasetSpec("p", "parquet", location=str(tmp_path), val_fraction=0.0)
    store = LocalStore(tmp_path / "store")
    plain = open_dataset(spec, store)
    kept = open_dataset(replace(spec, cache_limit_gib=TINY_GIB), store)
    assert kept.id == plain.id
    np.testing.assert_array_equal(kept.train.take(np.arange(40)), plain.train.images)
    first = Image.open(tmp_path / "one.png")
    np.testing.assert_array_equal(plain.test.images[-1].transpose(1, 2, 0), np.asarray(first))
