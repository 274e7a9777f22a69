"""Splits, filters and statistics; the validation part is seen by nobody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raydc.data import decoding as module
from raydc.data.dataset import Dataset, channel_statistics, open_dataset
from raydc.data.image_set import CompressedSet
from raydc.data.splits import shares, stratified
from raydc.data.whitening import fit_whitening
from raydc.errors import InputError
from raydc.store.local import LocalStore
from tests.conftest import DIGITS


def test_digits_are_split_as_the_design_says(digits: Dataset) -> None:
    assert (len(digits.train), len(digits.val), len(digits.test)) == (1000, 297, 500)
    assert digits.channels == 1
    assert digits.resolution == 8
    assert not set(digits.train.index) & set(digits.val.index)
    for part in (digits.train, digits.val, digits.test):
        counts = np.bincount(part.labels)
        assert counts.max() - counts.min() <= 6


def test_the_validation_part_depends_on_fingerprint_and_fraction_alone(store: LocalStore) -> None:
    few = open_dataset(replace(DIGITS, classes=(3, 7), train_limit=50), store)
    every = open_dataset(DIGITS, store)
    chosen = np.isin(every.val.labels, [3, 7])
    assert few.val.index.tolist() == every.val.index[chosen].tolist()
    assert np.bincount(few.train.labels).tolist() == [25, 25]
    assert not set(few.train.index) & set(every.val.index)


def test_no_validation_part(store: LocalStore) -> None:
    whole = open_dataset(replace(DIGITS, val_fraction=0.0), store)
    assert whole.val is None
    assert len(whole.train) == 1297


@pytest.mark.parametrize("classes", [3, (0, 1, 2), ("0", "1", 2)])
def test_classes_by_number_or_name(store: LocalStore, classes: object) -> None:
    some = open_dataset(replace(DIGITS, classes=classes), store)
    assert some.class_names == ("0", "1", "2")
    assert set(some.test.labels) == {0, 1, 2}
    assert some.id == open_dataset(replace(DIGITS, classes=3), store).id


@pytest.mark.parametrize(
    ("classes", "said"),
    [(11, "has 10 classes"), (("ten",), "has 'ten'"), ((3, 12), "has 12"), (("3", 3), "twice")],
)
def test_classes_that_are_not_there(store: LocalStore, classes: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_dataset(replace(DIGITS, classes=classes), store)


def test_standardised_inputs_have_mean_0_and_deviation_1(digits: Dataset) -> None:
    inputs = digits.inputs(torch.from_numpy(digits.train.images))
    assert inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert inputs.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_channel_statistics_are_exact() -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 3, 5, 5), dtype=np.uint8)
    mean, std = channel_statistics([images[:70], images[70:]])
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)))
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)))


def test_whitening_is_kornias_formula(store: LocalStore) -> None:
    images = open_dataset(DIGITS, store).train.images
    fitted = fit_whitening(images)
    flat = torch.from_numpy(images).double().flatten(1) / 255
    centred = flat - flat.mean(0)
    u, s, _ = torch.linalg.svd(centred.T @ centred / (len(flat) - 1))
    expected = centred @ (u @ torch.diag((s + 0.1).rsqrt()) @ u.T)
    got = fitted.apply(torch.from_numpy(images).float() / 255).flatten(1)
    torch.testing.assert_close(got.double(), expected, atol=1e-4, rtol=1e-3)


def test_a_whitened_dataset_has_another_id_and_whitened_inputs(store: LocalStore) -> None:
    white = open_dataset(replace(DIGITS, zca=True), store)
    assert white.id != open_dataset(DIGITS, store).id
    inputs = white.inputs(torch.from_numpy(white.train.images))
    assert inputs.flatten(1).mean(0).abs().max().item() < 1e-4


def test_the_second_start_decodes_nothing(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    open_dataset(DIGITS, store)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "_decode", refuse)
    assert len(open_dataset(DIGITS, LocalStore(store.root)).train) == 1000


def test_writing_to_an_image_damages_nobody_else(store: LocalStore) -> None:
    first = open_dataset(DIGITS, store)
    before = first.test.images[0].copy()
    first.test.images[0] = 7
    second = open_dataset(DIGITS, LocalStore(store.root))
    np.testing.assert_array_equal(second.test.images[0], before)


@pytest.mark.parametrize("total", [0, 1, 7, 10, 33])
def test_shares_are_in_proportion_and_sum_up(total: int) -> None:
    counts = np.array([10, 20, 3])
    chosen = shares(counts, total)
    assert chosen.sum() == total
    assert (chosen <= counts).all()
    assert np.abs(chosen - counts * total / 33).max() < 1


def test_a_stratified_choice_is_a_function_of_its_seed() -> None:
    labels = np.arange(100) % 4
    assert stratified(labels, 40, 1).tolist() == stratified(labels, 40, 1).tolist()
    assert stratified(labels, 40, 1).tolist() != stratified(labels, 40, 2).tolist()


@pytest.mark.parametrize("encoding", ["png", "jpeg-60"])
def test_a_compressed_set_is_seen_as_it_is_stored(digits: Dataset, tmp_path, encoding: str) -> None:  # type: ignore[no-untyped-def]
    pixels, labels = digits.train.images[:20], digits.train.labels[:20]
    sources = digits.train.index[:20, None]
    made = CompressedSet.from_pixels(pixels, labels, encoding, sources=sources)
    made.save(tmp_path, encoding, digits.class_names)
    read = CompressedSet.load(tmp_path)
    np.testing.assert_array_equal(read.labels, labels)
    np.testing.assert_array_equal(read.sources, sources)
    written = [len(item["bytes"]) for item in pq.read_table(tmp_path / "set.parquet")["image"].to_pylist()]
    assert read.images_bytes == made.images_bytes == sum(written)
    np.testing.assert_array_equal(read.images, made.images)
    assert np.array_equal(made.images, pixels) == (encoding == "png")


def test_a_float_set_keeps_its_space_and_labels(tmp_path) -> None:  # type: ignore[no-untyped-def]
    images = np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype(np.float16).astype(np.float32)
    soft = np.full((4, 5), 0.2, np.float32)
    made = CompressedSet(images, np.arange(4), 4 * 12 * 2, "normalised", soft_labels=soft)
    made.save(tmp_path, "png", ("a", "b", "c", "d", "e"))
    read = CompressedSet.load(tmp_path)
    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.soft_labels, soft)
    assert (read.space, read.images_bytes, read.sources) == ("normalised", 96, None)
