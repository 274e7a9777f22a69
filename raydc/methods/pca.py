"""pca: Prune, Combine, Augment (arXiv 2502.06434); three switches that can be ablated one by one.

Prune keeps the easiest images of each class by a score over the whole train part (or draws at random);
Combine scales whole images down and tiles them into one stored image; Augment is the view `tile_crop`,
a random resized crop inside one tile. The code is unpublished: that tile k holds the ranks k IPC to
(k + 1) IPC - 1 is RDED's order, and scaling averages areas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raydc.methods.pool import Made, Pool, Rows


def select(pool: Pool, *, prune: str, combine: str) -> Made:
    """IPC images of each class, class by class, each of g x g whole images."""
    side = int(combine.partition("x")[0])
    tiles = side * side

    def choose(rows: Rows) -> Rows:
        if prune == "none":
            return pool.generator.permutation(rows)[: pool.ipc * tiles]
        return rows[np.argsort(pool.scores[prune][rows], kind="stable")][: pool.ipc * tiles]

    sources = np.concatenate(
        [choose(pool.rows_of(label)).reshape(tiles, pool.ipc).T for label in pool.classes]
    )
    images = np.stack([tiled(pool.take(rows), side) for rows in sources])
    labels = pool.labels[sources[:, 0]]
    return Made(images, labels, sources=sources, grid=(side, side))


def edges(length: int, parts: int) -> list[int]:
    """Where the tiles of a side begin and end: parts + 1 whole numbers from 0 to length."""
    return [round(i * length / parts) for i in range(parts + 1)]


def tiled(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """side x side images [side**2, C, H, W] as one [C, H, W], row by row."""
    if side == 1:
        return images[0]
    _, channels, height, width = images.shape
    out = np.empty((channels, height, width), np.uint8)
    rows, columns = edges(height, side), edges(width, side)
    for number, image in enumerate(images):
        i, j = divmod(number, side)
        size = (columns[j + 1] - columns[j], rows[i + 1] - rows[i])
        place = out[:, rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
        for channel in range(channels):
            scaled = Image.fromarray(image[channel]).resize(size, Image.Resampling.BOX)
            place[channel] = np.asarray(scaled)
    return out
