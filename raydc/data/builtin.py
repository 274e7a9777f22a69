"""Named datasets: digits (scikit-learn), cifar10 and cifar100 (torchvision)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydc.data.source import Source, stamp_of
from raydc.data.splits import stratified
from raydc.errors import InputError
from raydc.spec.seeding import seed_of


class ArraySplit:
    """A split in memory: images [N, H, W] or [N, H, W, 3]."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self._images = images
        self.labels = labels

    def image(self, index: int) -> NDArray[np.uint8]:
        return self._images[index]


def digits(root: str | None, download: bool) -> Source:
    """scikit-learn's handwritten digits: 1,297 for training and validation, 500 for testing.

    The test split is stratified and fixed. Pixels 0 to 16 are scaled to 0 to 255.
    """
    del download
    if root is not None:
        raise InputError("dataset.root cannot be used with digits, which needs no files; remove it")
    return Source(
        name="digits",
        class_names=tuple(str(i) for i in range(10)),
        train=_Digits("train"),
        test=_Digits("test"),
        stamp="digits-sklearn-1",
    )


class _Digits:
    """A split of digits, read when it is first accessed; a cached dataset never accesses it."""

    def __init__(self, part: str) -> None:
        self._part = part

    @cached_property
    def _split(self) -> ArraySplit:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        labels = bunch.target.astype(np.int64)
        test = stratified(labels, 500, seed_of("digits test split"))
        chosen = test if self._part == "test" else np.setdiff1d(np.arange(len(labels)), test)
        return ArraySplit(images[chosen], labels[chosen])

    @property
    def labels(self) -> NDArray[np.int64]:
        return self._split.labels

    def image(self, index: int) -> NDArray[np.uint8]:
        """Image `index` as [H, W]."""
        return self._split.image(index)


def cifar10(root: str | None, download: bool) -> Source:
    """CIFAR-10 as torchvision stores it under `root` (default: data)."""
    return _cifar("CIFAR10", "cifar10", root, download)


def cifar100(root: str | None, download: bool) -> Source:
    """CIFAR-100 as torchvision stores it under `root` (default: data)."""
    return _cifar("CIFAR100", "cifar100", root, download)


def _cifar(kind: str, name: str, root: str | None, download: bool) -> Source:
    from torchvision import datasets

    folder = Path(root or "data")
    parts: dict[bool, Any] = {}
    for train in (True, False):
        try:
            parts[train] = getattr(datasets, kind)(str(folder), train=train, download=download)
        except RuntimeError:
            raise InputError(
                f"dataset.root: {name} is not in {str(folder)!r}; put torchvision's files there, download "
                "them with --download, or give dataset.parquet"
            ) from None
    base = folder / parts[True].base_folder
    files = sorted(path for path in base.iterdir() if path.is_file())
    return Source(
        name=name,
        class_names=tuple(parts[True].classes),
        train=ArraySplit(parts[True].data, np.asarray(parts[True].targets, dtype=np.int64)),
        test=ArraySplit(parts[False].data, np.asarray(parts[False].targets, dtype=np.int64)),
        stamp=stamp_of(name, files, base),
    )
