"""A dataset as studies use it: read once, split, filtered and standardised.

Images are decoded into uint8 arrays [N, C, H, W], or stay encoded if they are too large
(`dataset.cache_limit_gib`). Both are memory-mapped, so all processes of a machine share them. The
validation split is drawn from train and depends only on the fingerprint and the fraction; it is not used
for teachers, scorers, compressed sets or normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydc.data.array_file import read_array
from raydc.data.decoding import decoded, pixels_of, zca_refusal
from raydc.data.hub import hub_folder
from raydc.data.image_folder import folder
from raydc.data.parquet import parquet
from raydc.data.pixels import DecodedPixels, EncodedPixels, Pixels
from raydc.data.source import Source
from raydc.data.splits import per_class, shares, stratified
from raydc.data.whitening import Whitening, fit_whitening
from raydc.errors import InputError, did_you_mean
from raydc.spec import catalog
from raydc.spec.evaluation import DatasetSpec
from raydc.spec.facts import DataFacts
from raydc.spec.identity import dataset_id
from raydc.spec.seeding import seed_of
from raydc.store.artifact import Artifact, Store, get

BLOCK = 1024
"""Number of images per block when all images of a part are read."""


@dataclass(frozen=True)
class Part:
    """A split, or the part of a split that a study uses."""

    source: Pixels
    """[M, C, H, W], all images of the split."""
    index: NDArray[np.int64]
    """[N], rows of `source` that belong to the part."""
    labels: NDArray[np.int64]
    """[N], class numbers."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """[N, C, H, W], gathered at the first access, or the mapped array if the part is the whole split.

        Not available for encoded images, which may not fit into memory.
        """
        assert isinstance(self.source, DecodedPixels), "these images stay encoded; read them in batches"
        whole = np.array_equal(self.index, np.arange(len(self.source.array)))
        return self.source.array if whole else self.source.take(self.index)

    @property
    def encoded(self) -> bool:
        """Whether images are decoded on each access."""
        return isinstance(self.source, EncodedPixels)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images [len(rows), C, H, W] at the given rows of the part; other rows are not read."""
        return self.source.take(self.index[rows])

    def each(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        """`take` for each batch of rows; encoded images are decoded in advance."""
        return self.source.each(self.index[rows] for rows in batches)

    def blocks(self, size: int = BLOCK) -> Iterator[NDArray[np.uint8]]:
        """All images in order, `size` at a time."""
        return self.each(np.arange(len(self))[start : start + size] for start in range(0, len(self), size))


@dataclass(frozen=True)
class Dataset:
    """Splits and input statistics of one `DatasetSpec`."""

    spec: DatasetSpec
    fingerprint: str
    """SHA-256 of the decoded images, their order and their labels."""
    id: str
    """Id of the contents and options."""
    cache: str
    """Id of the images in the store."""
    class_names: tuple[str, ...]
    train: Part
    """The training data of teachers, scorers and compressed sets, without the validation split."""
    val: Part | None
    """The validation split; None if `val_fraction` is 0."""
    test: Part
    mean: NDArray[np.float32]
    """[C], mean of the training data per channel, pixels in [0, 1]."""
    std: NDArray[np.float32]
    """[C], standard deviation of the training data per channel, pixels in [0, 1]."""
    whitening: Whitening | None = None
    _on_device: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

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
        """What a plan needs to know about the data."""
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
        """Space of the network inputs: normalised or zca."""
        return "zca" if self.spec.zca else "normalised"

    def inputs(self, pixels: Tensor) -> Tensor:
        """Network inputs: pixels uint8 (or float in [0, 255]) [N, C, H, W] -> float32, same shape.

        Standardised with the statistics of the training data, or whitened if the study sets `zca`.
        """
        scaled = pixels.float().div_(255)
        if self.whitening is not None:
            return self.whitening.apply(scaled)
        mean, std = self._statistics(pixels.device)
        return scaled.sub_(mean).div_(std)

    def scaled(self, inputs: Tensor) -> Tensor:
        """Network inputs [N, C, H, W] float32 as pixels in [0, 1]: the inverse of `inputs`."""
        if self.whitening is not None:
            return self.whitening.invert(inputs)
        mean, std = self._statistics(inputs.device)
        return inputs * std + mean

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(mean, standard deviation) [1, C, 1, 1] on a device; cached, since a copy waits for the device."""
        if device not in self._on_device:
            mean, std = (torch.from_numpy(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
            self._on_device[device] = mean.to(device), std.to(device)
        return self._on_device[device]


def open_source(spec: DatasetSpec, download: bool = False) -> Source:
    """The source that `spec` describes; raises `InputError` if it does not exist or is invalid."""
    if spec.source == "hub":
        assert spec.location is not None
        return parquet(str(hub_folder("dataset.hub", spec.location, download)), "dataset.hub")
    assert spec.source in ("named", "parquet", "folder")
    if spec.source == "parquet":
        assert spec.location is not None
        return parquet(spec.location)
    if spec.source == "folder":
        assert spec.location is not None
        return folder(spec.location)
    source: Source = catalog.DATASETS[spec.name].load()(spec.location, download)
    # An edited plugin may read the same files in another way, so they are read again.
    code = catalog.DATASETS.code(spec.name)
    return source if code is None else replace(source, stamp=f"{source.stamp}-{code}")


def open_dataset(spec: DatasetSpec, store: Store, *, download: bool = False) -> Dataset:
    """Read (at most once per store), split and standardise; raises `InputError` for invalid data."""
    source = open_source(spec, download)
    return dataset_from(spec, decoded(source, spec, store), store)


# --- splits and statistics ----------------------------------------------------------------------


def dataset_from(spec: DatasetSpec, pixels: Artifact, store: Store) -> Dataset:
    """The dataset of images in the store: splits, chosen classes, limit and statistics.

    The source is not read.
    """
    fingerprint = str(pixels.meta["fingerprint"])
    names = tuple(pixels.meta["class_names"])
    images = {k: pixels_of(pixels, k, store) for k in ("train", "test")}
    labels = {k: read_array(pixels.path(f"{k}_labels.npy")) for k in ("train", "test")}
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
        rest = _limited(rest, number[labels["train"][rest]], len(kept), spec.train_limit, fingerprint)

    def part(split: str, rows: NDArray[np.int64]) -> Part:
        rows = rows[number[labels[split][rows]] >= 0]
        return Part(images[split], rows, number[labels[split][rows]])

    class_names = tuple(names[c] for c in kept)
    train = part("train", rest)
    val = part("train", held_out)
    test = part("test", np.arange(len(labels["test"])))
    for what, some in (("train", train), ("test", test)):
        if spec.zca and some.encoded:
            raise InputError(zca_refusal(spec.name, spec, math.prod(some.source.shape)))
        missing = np.flatnonzero(np.bincount(some.labels, minlength=len(kept)) == 0)
        if len(missing):
            held = what == "train" and bool((labels["train"] == kept[missing[0]]).any())
            raise InputError(_no_image(spec, class_names[missing[0]], what, held))
    dataset = Dataset(
        spec=spec,
        fingerprint=fingerprint,
        id=dataset_id(fingerprint, replace(spec, classes=_ids_of(spec, kept, names))),
        cache=pixels.folder.name,
        class_names=class_names,
        train=train,
        val=val if len(val) else None,
        test=test,
        mean=np.zeros(1, np.float32),
        std=np.ones(1, np.float32),
    )
    return _with_statistics(dataset, store)


def _limited(
    rows: NDArray[np.int64], classes: NDArray[np.int64], kept: int, limit: int, fingerprint: str
) -> NDArray[np.int64]:
    """At most `limit` of the rows, balanced over their classes [len(rows)].

    Raises `InputError` if `limit` is below the number of classes.
    """
    if limit < kept:
        raise InputError(
            f"dataset.train_limit is {limit}, but must be at least the number of classes, {kept}"
        )
    counts = np.bincount(classes, minlength=kept)
    each = np.minimum(counts, shares(np.full(kept, counts.max()), limit))
    return rows[per_class(classes, each, seed_of("train limit", fingerprint))]


def _no_image(spec: DatasetSpec, name: str, split: str, held_out: bool) -> str:
    """The message about a class without images in a split; held_out: whether all are validation images."""
    where = f" of {spec.location!r}" if spec.location is not None else ""
    remedy = f"add some, or list the other classes of {spec.name} in dataset.classes"
    if held_out:
        remedy = f"dataset.val_fraction is {spec.val_fraction:g}, so choose a smaller one"
    return f"dataset: the class {name!r} has no image in the {split} split{where}; {remedy}"


def _ids_of(spec: DatasetSpec, kept: tuple[int, ...], names: tuple[str, ...]) -> tuple[int, ...] | None:
    """The chosen classes as ids contain them: numbers, or None if all are kept in order."""
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
        raise InputError(f"dataset.classes lists the class {names[twice]!r} twice; keep one")
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
                mean, std = channel_statistics(dataset.train.blocks())
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
    blocks: Iterable[NDArray[np.uint8]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation per channel, pixels scaled to [0, 1].

    blocks: at least one, each [n, C, H, W]. Computed from a histogram, with exact sums and little memory.
    """
    histogram = np.sum(
        [
            [np.bincount(channel.ravel(), minlength=256) for channel in block.swapaxes(0, 1)]
            for block in blocks
        ],
        axis=0,
    )
    values = np.arange(256) / 255
    count = histogram.sum(1)
    mean = histogram @ values / count
    variance = histogram @ values**2 / count - mean**2
    return mean, np.sqrt(np.maximum(variance, 1e-12))
