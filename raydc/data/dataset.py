"""A dataset as studies use it: decoded once, split, filtered, standardised.

Images are decoded into uint8 arrays [N, C, H, W] that are memory-mapped, so all processes of a
machine share them. The validation part is cut from train by the fingerprint and the fraction alone;
no teacher, scorer, compressed set or normalisation ever sees it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from raydc.data.folder import folder
from raydc.data.parquet import parquet
from raydc.data.source import Source, Split
from raydc.data.splits import per_class, shares, stratified
from raydc.data.whitening import Whitening, fit_whitening
from raydc.errors import InputError, did_you_mean
from raydc.seeding import seed_of
from raydc.spec import catalog
from raydc.spec.evaluation import DatasetSpec
from raydc.spec.facts import DataFacts
from raydc.spec.identity import dataset_id
from raydc.store import Artifact, Store, get

DECODED = 1
"""Version of the decoded cache; a new one decodes again."""


@dataclass(frozen=True)
class Part:
    """A split, or the part of one that a study sees; images are gathered when first asked for."""

    source: NDArray[np.uint8]
    """[M, C, H, W], all images of the split, memory-mapped."""
    index: NDArray[np.int64]
    """[N], rows of `source` that belong to the part."""
    labels: NDArray[np.int64]
    """[N], class numbers."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """[N, C, H, W]; the mapped array itself where the part is the whole split."""
        whole = np.array_equal(self.index, np.arange(len(self.source)))
        return self.source if whole else self.source[self.index]

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images [len(rows), C, H, W] at some rows of the part, without gathering the others."""
        return self.source[self.index[rows]]


@dataclass(frozen=True)
class Dataset:
    """Splits and input statistics of one `DatasetSpec`."""

    spec: DatasetSpec
    fingerprint: str
    """SHA-256 of decoded contents, order and labels."""
    id: str
    """Name of contents and options."""
    class_names: tuple[str, ...]
    train: Part
    """What teachers, scorers and compressed sets are made from; without the validation part."""
    val: Part | None
    """The validation part; None when `val_fraction` is 0."""
    test: Part
    mean: NDArray[np.float32]
    """[C], of the train part, pixels in [0, 1]."""
    std: NDArray[np.float32]
    """[C], of the train part, pixels in [0, 1]."""
    whitening: Whitening | None = None

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return int(self.train.source.shape[1])

    @property
    def resolution(self) -> int:
        return int(self.train.source.shape[2])

    @property
    def facts(self) -> DataFacts:
        """What a plan needs to know of the data."""
        return DataFacts(
            dataset_id=self.id,
            class_names=self.class_names,
            train_counts=tuple(np.bincount(self.train.labels, minlength=self.classes).tolist()),
            test_images=len(self.test),
            val_images=0 if self.val is None else len(self.val),
            channels=self.channels,
            resolution=self.resolution,
        )

    @property
    def space(self) -> str:
        """What network inputs are: normalised or zca."""
        return "zca" if self.spec.zca else "normalised"

    def inputs(self, pixels: Tensor) -> Tensor:
        """Network inputs: pixels uint8 (or float in [0, 255]) [N, C, H, W] -> float32, same shape.

        Standardised by the train part's statistics, or whitened where the study says `zca`.
        """
        scaled = pixels.float().div_(255)
        if self.whitening is not None:
            return self.whitening.apply(scaled)
        mean = torch.from_numpy(self.mean).to(pixels.device).view(1, -1, 1, 1)
        std = torch.from_numpy(self.std).to(pixels.device).view(1, -1, 1, 1)
        return scaled.sub_(mean).div_(std)

    def scaled(self, inputs: Tensor) -> Tensor:
        """Pixels in [0, 1] of network inputs [N, C, H, W] float32: the inverse of `inputs`."""
        if self.whitening is not None:
            return self.whitening.invert(inputs)
        mean = torch.from_numpy(self.mean).to(inputs.device).view(1, -1, 1, 1)
        std = torch.from_numpy(self.std).to(inputs.device).view(1, -1, 1, 1)
        return inputs * std + mean


def open_source(spec: DatasetSpec, download: bool = False) -> Source:
    """The source that `spec` names; `InputError` if it is not there or not what it should be."""
    assert spec.source in ("named", "parquet", "folder")
    if spec.source == "parquet":
        assert spec.location is not None
        return parquet(spec.location)
    if spec.source == "folder":
        assert spec.location is not None
        return folder(spec.location)
    source: Source = catalog.DATASETS[spec.name].load()(spec.location, download)
    return source


def open_dataset(spec: DatasetSpec, store: Store, *, download: bool = False) -> Dataset:
    """Decode (at most once a store), split and standardise; `InputError` for data that cannot serve."""
    source = open_source(spec, download)
    return dataset_from(spec, decoded(source, spec, store), store)


def dataset_at(spec: DatasetSpec, decoded_name: str, store: Store) -> Dataset:
    """The dataset from its decoded cache alone, for workers that need not see the source."""
    return dataset_from(spec, get(store, "pixels", decoded_name), store)


# --- decoding ---------------------------------------------------------------------------------


def decoded(source: Source, spec: DatasetSpec, store: Store) -> Artifact:
    """The decoded images of `source` at the resolution of `spec`, from the store or made now."""
    stamp = f"{source.stamp}-{spec.resolution or 'native'}-{DECODED}"
    if (known := store.find("source", stamp)) is not None:
        pixels = store.find("pixels", str(known.meta["pixels"]))
        if pixels is not None:
            return pixels
    name = _decode(source, spec, store)
    store.remove("source", stamp)
    with store.draft("source") as draft:
        draft.commit(stamp, pixels=name)
    return get(store, "pixels", name)


def _decode(source: Source, spec: DatasetSpec, store: Store) -> str:
    classes = len(source.class_names)
    text = hashlib.sha256()
    with store.draft("pixels") as draft:
        grey = True
        shapes = {}
        for split_name, split in (("train", source.train), ("test", source.test)):
            _check_labels(source, split_name, split, classes)
            pixels, one_channel = _decode_split(
                split, source.name, spec, draft.path(f"{split_name}.npy"), text
            )
            shapes[split_name] = pixels.shape[1:]
            grey &= one_channel
            text.update(split.labels.astype("<i8").tobytes())
            np.save(draft.path(f"{split_name}_labels.npy"), split.labels)
        if shapes["train"] != shapes["test"]:
            raise InputError(
                f"{source.name}: train images have the shape {shapes['train']} and test images "
                f"{shapes['test']}; set dataset.resolution"
            )
        if grey:
            for split_name in ("train", "test"):
                path = draft.path(f"{split_name}.npy")
                np.save(path, np.ascontiguousarray(np.load(path)[:, :1]))
        fingerprint = text.hexdigest()
        name = f"{fingerprint[:20]}-{spec.resolution or 'native'}-{DECODED}"
        draft.commit(name, fingerprint=fingerprint, class_names=list(source.class_names))
    return name


def _check_labels(source: Source, split_name: str, split: Split, classes: int) -> None:
    if len(split.labels) == 0:
        raise InputError(f"{source.name}: the {split_name} split is empty; add images")
    if split.labels.min() < 0 or split.labels.max() >= classes:
        raise InputError(
            f"{source.name}: the {split_name} split has labels from {split.labels.min()} to "
            f"{split.labels.max()}, but there are {classes} classes, from 0 to {classes - 1}"
        )


def _images(split: Split, pool: ThreadPoolExecutor, ahead: int = 256) -> Iterator[NDArray[np.uint8]]:
    """Decoded images in order, decoded a chunk ahead."""
    count = len(split.labels)
    for start in range(0, count, ahead):
        yield from pool.map(split.image, range(start, min(start + ahead, count)))


def _decode_split(
    split: Split, name: str, spec: DatasetSpec, path: Path, text: hashlib._Hash
) -> tuple[NDArray[np.uint8], bool]:
    """Write the split's images to `path`; returns the array and whether all images are grey."""
    count = len(split.labels)
    grey = True
    out: NDArray[np.uint8] | None = None
    with ThreadPoolExecutor(max_workers=4) as pool:
        for row, image in enumerate(_images(split, pool)):
            text.update(f"{image.shape}".encode())
            text.update(np.ascontiguousarray(image).tobytes())
            grey &= image.ndim == 2
            side = spec.resolution
            if side is None and image.shape[0] != image.shape[1]:
                raise InputError(
                    f"{name}: image {row} has {image.shape[1]} x {image.shape[0]} pixels, which is not "
                    "square; set dataset.resolution"
                )
            planes = _resized(image, side)
            if out is None:
                size = count * planes.size
                if size > spec.cache_limit_gib * 2**30:
                    raise InputError(
                        f"{name}: decoded, a split takes {size / 2**30:.1f} GiB, above "
                        f"dataset.cache_limit_gib {spec.cache_limit_gib:g}; raise it or set "
                        "dataset.resolution"
                    )
                out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, *planes.shape))
            if planes.shape != out.shape[1:]:
                raise InputError(
                    f"{name}: image {row} has {planes.shape[2]} x {planes.shape[1]} pixels and the "
                    f"first {out.shape[3]} x {out.shape[2]}; set dataset.resolution"
                )
            out[row] = planes
    assert out is not None
    out.flush()  # type: ignore[attr-defined]
    return out, grey


def _resized(image: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    """[H, W] or [H, W, 3] -> [3, side, side]: shorter side resized (bilinear), centre cropped."""
    if side is not None and image.shape[:2] != (side, side):
        height, width = image.shape[:2]
        scale = side / min(height, width)
        size = (max(side, round(width * scale)), max(side, round(height * scale)))
        resized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        image = np.asarray(resized.crop((left, top, left + side, top + side)))
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image.transpose(2, 0, 1))


# --- splits and statistics ----------------------------------------------------------------------


def dataset_from(spec: DatasetSpec, pixels: Artifact, store: Store) -> Dataset:
    """Splits, class choice, limit and statistics of decoded images."""
    fingerprint = str(pixels.meta["fingerprint"])
    names = tuple(pixels.meta["class_names"])
    # Mode "c" maps copy on write: nobody can damage what others read.
    images = {k: np.load(pixels.path(f"{k}.npy"), mmap_mode="c") for k in ("train", "test")}
    labels = {k: np.load(pixels.path(f"{k}_labels.npy")) for k in ("train", "test")}
    kept = _kept_classes(spec, names)
    number = np.full(len(names), -1)
    number[list(kept)] = np.arange(len(kept))

    held_out = stratified(
        labels["train"],
        round(spec.val_fraction * len(labels["train"])),
        seed_of("validation split", fingerprint, spec.val_fraction),
    )
    rest = np.setdiff1d(np.arange(len(labels["train"])), held_out, assume_unique=True)
    rest = rest[number[labels["train"][rest]] >= 0]
    if spec.train_limit is not None:
        classes = number[labels["train"][rest]]
        if spec.train_limit < len(kept):
            raise InputError(
                f"dataset.train_limit is {spec.train_limit}, but must be at least the number of "
                f"classes, {len(kept)}"
            )
        counts = np.bincount(classes, minlength=len(kept))
        each = np.minimum(counts, shares(np.full(len(kept), counts.max()), spec.train_limit))
        rest = rest[per_class(classes, each, seed_of("train limit", fingerprint))]

    def part(split: str, rows: NDArray[np.int64]) -> Part:
        rows = rows[number[labels[split][rows]] >= 0]
        return Part(images[split], rows, number[labels[split][rows]])

    class_names = tuple(names[c] for c in kept)
    train = part("train", rest)
    val = part("train", held_out)
    test = part("test", np.arange(len(labels["test"])))
    for what, some in (("train", train), ("test", test)):
        missing = np.flatnonzero(np.bincount(some.labels, minlength=len(kept)) == 0)
        if len(missing):
            where = f" of {spec.location!r}" if spec.location is not None else ""
            remedy = f"add some, or name the other classes of {spec.name} in dataset.classes"
            if what == "train" and (labels["train"] == kept[missing[0]]).any():
                remedy = f"dataset.val_fraction is {spec.val_fraction:g}, so choose a smaller one"
            raise InputError(
                f"dataset: the class {class_names[missing[0]]!r} has no image in the {what} split{where}; "
                f"{remedy}"
            )
    dataset = Dataset(
        spec=spec,
        fingerprint=fingerprint,
        id=dataset_id(fingerprint, replace(spec, classes=_ids_of(spec, kept, names))),
        class_names=class_names,
        train=train,
        val=val if len(val) else None,
        test=test,
        mean=np.zeros(1, np.float32),
        std=np.ones(1, np.float32),
    )
    return _with_statistics(dataset, store)


def _ids_of(spec: DatasetSpec, kept: tuple[int, ...], names: tuple[str, ...]) -> tuple[int, ...] | None:
    """The class choice as ids see it: numbers, or None where all are kept in order."""
    return None if kept == tuple(range(len(names))) else kept


def _kept_classes(spec: DatasetSpec, names: tuple[str, ...]) -> tuple[int, ...]:
    if spec.classes is None:
        return tuple(range(len(names)))
    if isinstance(spec.classes, int):
        if spec.classes > len(names):
            raise InputError(f"dataset.classes is {spec.classes}, but {spec.name} has {len(names)} classes")
        return tuple(range(spec.classes))
    kept = []
    for chosen in spec.classes:
        if isinstance(chosen, str):
            if chosen not in names:
                raise InputError(
                    f"dataset.classes has {chosen!r}, which {spec.name} does not{did_you_mean(chosen, names)}"
                )
            chosen = names.index(chosen)
        if not 0 <= chosen < len(names):
            raise InputError(
                f"dataset.classes has {chosen}, but {spec.name} has the classes 0 to {len(names) - 1}"
            )
        kept.append(chosen)
    if len(set(kept)) < len(kept):
        twice = next(c for i, c in enumerate(kept) if c in kept[:i])
        raise InputError(f"dataset.classes names the class {names[twice]!r} twice; keep one")
    return tuple(kept)


def _with_statistics(dataset: Dataset, store: Store) -> Dataset:
    kind = "whitening" if dataset.spec.zca else "statistics"
    artifact = store.find(kind, dataset.id)
    if artifact is None:
        with store.draft(kind) as draft:
            if dataset.spec.zca:
                fit_whitening(dataset.train.images).save(draft.folder)
                draft.commit(dataset.id)
            else:
                mean, std = channel_statistics(dataset.train.images)
                draft.commit(dataset.id, mean=mean.tolist(), std=std.tolist())
        artifact = get(store, kind, dataset.id)
    if dataset.spec.zca:
        return replace(dataset, whitening=Whitening.load(artifact.folder))
    return replace(
        dataset,
        mean=np.asarray(artifact.meta["mean"], np.float32),
        std=np.asarray(artifact.meta["std"], np.float32),
    )


def channel_statistics(
    images: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel, pixels scaled to [0, 1].

    images: [N, C, H, W]. Exact sums of a histogram: no rounding, little memory.
    """
    channels = images.shape[1]
    histogram = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), 4096):
        block = images[start : start + 4096]
        for c in range(channels):
            histogram[c] += np.bincount(block[:, c].ravel(), minlength=256)
    values = np.arange(256) / 255
    count = histogram.sum(1)
    mean = histogram @ values / count
    variance = histogram @ values**2 / count - mean**2
    return mean, np.sqrt(np.maximum(variance, 1e-12))
