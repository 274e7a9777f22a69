"""pca: Prune, Combine, Augment (arXiv 2502.06434); the three steps can be ablated separately.

Prune keeps the easiest images of each class by a score over the training data (or draws at random). Combine
scales whole images down and tiles them into one stored image. Augment is the augmentation `tile_crop`, a
random resized crop inside one tile. The code is unpublished; as in RDED, tile k holds the ranks k IPC to
(k + 1) IPC - 1, and scaling averages areas.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from raydc.methods.pool import Made, Pool, Rows
from raydc.methods.tiles import Pixels, dealt, scaled, side_of, tiled


def select(pool: Pool, *, prune: str, combine: str) -> Made:
    """IPC images of each class, class by class, each of g x g whole images."""
    side = side_of(combine)
    count = pool.ipc * side * side

    def choose(rows: Rows) -> Rows:
        if prune == "none":
            return pool.generator.permutation(rows)[:count]
        return rows[np.argsort(pool.scores[prune][rows], kind="stable")][:count]

    sources = np.concatenate([dealt(choose(pool.rows_of(label)), pool.ipc) for label in pool.classes])
    images = np.stack([_combined(pool, rows, side) for rows in sources])
    labels = pool.labels[sources[:, 0]]
    return Made(images, labels, sources=sources, grid=(side, side))


def _combined(pool: Pool, rows: Rows, side: int) -> Pixels:
    whole = pool.take(rows)
    return tiled(pool.shape, side, lambda number, size: scaled(whole[number], size, Image.Resampling.BOX))
