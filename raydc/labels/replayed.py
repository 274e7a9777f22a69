"""Third-party labelled views, replayed: students that learn from a folder of FKD labels.

    folder of FKD files --order of the images--> batch b of epoch e: images, crops, mixes, logits

FKD files do not record which images a batch contains. Folders written by raydc have this order in order.npy,
whole numbers [epochs, images]; without it, the order is that of the original sampler (VILA-Lab/SRe2L,
relabel/generate_soft_label.py): torch's RandomSampler with a generator that is seeded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from math import floor
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from raydc.augmentation.views import Step, View, Views
from raydc.data.array_file import mapped_array
from raydc.data.imported import digest_of_files
from raydc.errors import ArtifactError, InputError
from raydc.labels.fkd import FkdBatch, FkdFolder, batches
from raydc.spec.evaluation import Recipe
from raydc.spec.label_kinds import ORDER_SEED

ORDER = "order.npy"
CHECKED_BATCHES = 32
"""Number of batches that are read before anything runs, to check that they match."""
HELD = 64
"""Number of batches held in memory; students of a small set use few others."""
RECHECK_BYTES = 1 << 30
"""Every worker checks the digest of labels of up to this size again."""


def digest_of_labels(path: str) -> str:
    """SHA-256 of the labels at `labels.path`: of a file, or of the batches and the order in a folder.

    Raises `InputError` if they cannot be read.
    """
    root = Path(path)
    return digest_of_files("labels.path", path, root, _files_of(root))


def _files_of(root: Path) -> list[Path]:
    if not root.is_dir():
        return [root]
    order = root / ORDER
    return [*(file for _, _, file in batches(root)), *([order] if order.exists() else [])]


def check_unchanged(path: str, expected: str) -> None:
    """Raise `ArtifactError` if the digest of the labels at `path` has changed since the study was planned."""
    if sum(file.stat().st_size for file in _files_of(Path(path))) > RECHECK_BYTES:
        return
    if digest_of_labels(path) != expected:
        raise ArtifactError(f"labels.path is {path!r}, whose contents have changed since the run was planned")


class Replayed:
    """A folder of labelled views of a set of `images` images, with the images of each batch.

    `order_seed`: seed of the sampler if the folder does not record the order. `InputError` if the labels do
    not match such a set, or if their mixes are of larger images.
    """

    def __init__(self, path: str, images: int, classes: int, resolution: int, order_seed: int) -> None:
        self.path = path
        self.folder = FkdFolder(Path(path))
        self.images = images
        self.batch_size = self.folder.batch_size
        self._order = self._read_order(Path(path) / ORDER)
        self._sampler = RandomSampler(range(images), generator=torch.Generator().manual_seed(order_seed))
        self._sampled: list[Tensor] = []
        self._resolution = resolution
        self.batch = lru_cache(HELD)(self._read)
        """The views of (epoch, batch)."""
        if self._order is not None and order_seed != ORDER_SEED:
            raise InputError(
                f"labels.order_seed is {order_seed}, but {path!r} has {ORDER}, which defines the order; "
                "remove the seed"
            )
        if (self.folder.images, self.folder.classes) != (images, classes):
            raise InputError(
                f"labels.path is {path!r}, which labels {self.folder.images} images of "
                f"{self.folder.classes} classes per epoch, but the set has {images} images and the data "
                f"{classes} classes"
            )

    def _read(self, epoch: int, number: int) -> FkdBatch:
        batch = self.folder.batch(epoch, number)
        if batch.box is not None and max(batch.box) > self._resolution:
            raise InputError(
                f"labels.path is {self.path!r}, where batch {number} of epoch {epoch} mixes up to pixel "
                f"{max(batch.box)}, but the images have {self._resolution} x {self._resolution}; set "
                "dataset.resolution to that of the labels"
            )
        return batch

    def _read_order(self, file: Path) -> Tensor | None:
        if not file.exists():
            return None
        try:
            order = torch.from_numpy(mapped_array(file))
        except (ValueError, TypeError) as error:
            raise InputError(f"{file}: it is not an array ({error})") from None
        shape = (self.folder.epochs, self.folder.images)
        if order.shape != shape or order.dtype not in (torch.int32, torch.int64):
            raise InputError(
                f"{file}: it contains {order.dtype} of shape {list(order.shape)}, but must contain whole "
                f"numbers [epochs, images], {shape[0]} x {shape[1]}"
            )
        if not bool((order.sort(1).values == torch.arange(shape[1])).all()):
            raise InputError(f"{file}: each row must contain every image once")
        return order.long()

    def index(self, epoch: int, batch: int) -> Tensor:
        """Indices [B] int64 of the images of a batch of an epoch."""
        return self._of_epoch(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _of_epoch(self, epoch: int) -> Tensor:
        if self._order is not None:
            return self._order[epoch]
        while len(self._sampled) <= epoch:
            self._sampled.append(torch.tensor(list(self._sampler)))
        return self._sampled[epoch]

    def check(self, recipe: Recipe, keep_views: float) -> None:
        """Raise `InputError` if training by `recipe` needs batches of another size, or more batches."""
        for step in range(min(CHECKED_BATCHES, self.folder.steps)):
            self.batch(*divmod(step, self.folder.per_epoch))
        if min(recipe.batch_size, self.images) != self.batch_size:
            raise InputError(
                f"labels.path is {self.path!r}, whose batches have {self.batch_size} images, but "
                f"train.batch_size is {recipe.batch_size}; set it to {self.batch_size}"
            )
        steps, there = recipe.distinct_steps(self.images, keep_views), self.folder.steps
        if steps > there:
            raise InputError(
                f"labels.path is {self.path!r}, which has {there} batches, but a training of "
                f"{recipe.total_steps(self.images)} steps uses {steps} of them (labels.keep_views "
                f"{keep_views:g}); train shorter, or set labels.keep_views to at most "
                f"{floor(1000 * there / recipe.total_steps(self.images)) / 1000:g}"
            )

    def rows(self, steps: int) -> int:
        """Number of (view, image) pairs in the first `steps` batches."""
        epochs, batches = divmod(steps, self.folder.per_epoch)
        return epochs * self.images + min(batches * self.batch_size, self.images)

    def at(self, epoch: int, batch: int) -> Tensor:
        """Logits [1, B, C] float32 of a batch of an epoch."""
        return self.batch(epoch, batch).logits.float()[None]


class ReplayedViews(Views):
    """The views of one training on replayed batches; each round is in an order derived from `key`.

    The first round is in the order of the files; after `pool` batches they are repeated.
    """

    def __init__(
        self, replayed: Replayed, recipe: Recipe, key: int, device: torch.device, pool: int | None
    ) -> None:
        super().__init__(replace(recipe, augment=()), replayed.images, key, device, pool)
        self._replayed = replayed
        self._device = device

    def steps(self, start: int, stop: int) -> Iterator[Step]:
        for step in super().steps(start, stop):
            index = self._replayed.index(step.epoch, step.batch).to(self._device)
            yield replace(step, index=index)

    def render_batch(self, images: Tensor, step: Step) -> View:
        batch = self._replayed.batch(step.epoch, step.batch)
        rendered = batch.render(images)
        share = remaining(batch, images)
        partner = None if batch.partner is None else batch.partner.to(images.device)
        return View(rendered, step.index, partner, share)


def remaining(batch: FkdBatch, images: Tensor) -> Tensor | None:
    """The weight [B] of each image itself in its mix; None if nothing is mixed."""
    if batch.partner is None:
        return None
    share = batch.share
    if batch.box is not None:
        top, left, bottom, right = batch.box
        share = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
    assert share is not None
    return images.new_full((len(images),), share)
