"""kcenter: greedily select the image farthest from the selected ones (arXiv 1708.00489; DeepCore).

Per class, starting from a random image: argmax_x min_s ||f_x - f_s||_2 over the penultimate features.
"""

from __future__ import annotations

import numpy as np

from raydc.methods.pool import Pool, Rows


def select(pool: Pool) -> Rows:
    """Rows [ipc x classes], class by class, in the order of selection."""
    assert pool.features is not None
    features = pool.features

    def choose(rows: Rows) -> Rows:
        points = features[rows].astype(np.float64)
        norms = np.einsum("ij,ij->i", points, points)
        chosen = [int(pool.generator.integers(len(rows)))]
        nearest = np.full(len(rows), np.inf)
        while len(chosen) < pool.ipc:
            last = chosen[-1]
            nearest = np.minimum(nearest, norms - 2 * points @ points[last] + norms[last])
            # Selected images get -1, so that an unselected duplicate, at distance 0, is preferred.
            nearest[chosen] = -1
            chosen.append(int(nearest.argmax()))
        return rows[chosen]

    return pool.by_class(choose)
