"""rded: realistic, diverse, efficient distillation (arXiv 2312.03526; LINs-lab/RDED: synthesize/).

For `mipc` random images of each class, `crops` random square crops per image (area 0.08 to 1) are scored by
an observer, which is the scorer at its last epoch. The crop of an image with the smallest cross-entropy is
the most realistic one. The IPC g^2 most realistic crops are tiled into IPC images of g x g crops. With `1x1`,
only patches are extracted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raydc.methods.pool import Made, Pool, Rows
from raydc.methods.tiles import Pixels, dealt, scaled, side_of, tiled

AREA = (0.08, 1.0)
"""Smallest and largest area of a crop, as fractions of the image."""


def select(pool: Pool, *, combine: str, crops: int, mipc: int) -> Made:
    """IPC images of each class, class by class, each of g x g crops.

    Tile k holds the crops of rank k IPC to (k + 1) IPC - 1, so tile 0 holds the most realistic ones.
    """
    side = side_of(combine)
    parts = [_of_class(pool, label, side, crops, mipc) for label in pool.classes]
    return Made(
        np.concatenate([images for images, _ in parts]),
        np.repeat(np.asarray(pool.classes, np.int64), pool.ipc),
        sources=np.concatenate([sources for _, sources in parts]),
        grid=(side, side),
    )


def _of_class(pool: Pool, label: int, side: int, crops: int, mipc: int) -> tuple[Pixels, Rows]:
    """(images [IPC, C, H, W], sources [IPC, g x g]) of one class."""
    assert pool.observe is not None
    rows = pool.generator.permutation(pool.rows_of(label))[:mipc]
    whole = pool.take(rows)
    windows = random_windows(pool.generator, (len(rows), crops), pool.shape[1:])
    size = (pool.shape[2] // side, pool.shape[1] // side)
    patches = np.stack(
        [_cut(image, size, window) for image, own in zip(whole, windows, strict=True) for window in own]
    )
    surprise = pool.observe(patches, np.full(len(patches), label)).reshape(len(rows), crops)
    ranked = np.argsort(surprise.min(1), kind="stable")[: pool.ipc * side * side]
    best = windows[np.arange(len(rows)), surprise.argmin(1)]
    placed = dealt(ranked, pool.ipc)

    def stitched(own: Rows) -> Pixels:
        return tiled(pool.shape, side, lambda tile, size: _cut(whole[own[tile]], size, best[own[tile]]))

    return np.stack([stitched(own) for own in placed]), rows[placed]


def random_windows(
    generator: np.random.Generator, count: tuple[int, ...], shape: tuple[int, int]
) -> NDArray[np.int64]:
    """Square windows [*count, 4] (left, top, right, bottom) of images of (height, width) pixels.

    Like torchvision's RandomResizedCrop with ratio 1: area and position are uniform.
    """
    height, width = shape
    area = generator.uniform(*AREA, count) * height * width
    length = np.clip(np.rint(np.sqrt(area)).astype(np.int64), 1, min(shape))
    top = generator.integers(0, height - length, endpoint=True)
    left = generator.integers(0, width - length, endpoint=True)
    return np.stack([left, top, left + length, top + length], axis=-1)


def _cut(image: Pixels, size: tuple[int, int], window: NDArray[np.int64]) -> Pixels:
    left, top, right, bottom = window.tolist()
    return scaled(image, size, Image.Resampling.BILINEAR, (left, top, right, bottom))
