"""herding: greedily approximate the mean of the penultimate features of each class (Welling 2009).

Step i selects argmin_x || mu - (sum of the selected + f_x) / (i + 1) ||. (DeepCore's matrix form uses an
argmax of the same distance, which is the wrong direction.)
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
        mean = points.mean(0)
        norms = np.einsum("ij,ij->i", points, points)
        chosen: list[int] = []
        total = np.zeros_like(mean)
        for count in range(1, pool.ipc + 1):
            # ||count * mean - total - f||^2 without the term that is equal for all f
            distance = norms - 2 * points @ (count * mean - total)
            distance[chosen] = np.inf
            best = int(distance.argmin())
            chosen.append(best)
            total += points[best]
        return rows[chosen]

    return pool.by_class(choose)
