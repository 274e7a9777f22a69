"""difficulty: bands of equal size by a teacher's cross-entropy (arXiv 2406.10485; no-distillation:
softlabel/image_selection.py).

Band 0 is the easiest tenth of each class, band 9 the hardest. Images are drawn uniformly inside a band; a
band with fewer than ipc images is filled up from its neighbours, nearest first. `mix` draws equally from all
bands.
"""

from __future__ import annotations

import numpy as np

from raydc.methods.pool import Pool, Rows

BANDS = 10


def select(pool: Pool, *, band: int | str, score_epoch: int | None = None) -> Rows:
    """Rows [ipc x classes], class by class."""
    del score_epoch  # The pool already holds the cross-entropy of this epoch.
    (hardness,) = pool.scores.values()

    def choose(rows: Rows) -> Rows:
        ranked = rows[np.argsort(hardness[rows], kind="stable")]
        bands = [pool.generator.permutation(part) for part in np.array_split(ranked, BANDS)]
        if band == "mix":
            # Take the first image of each band, then the second of each band, and so on.
            place = np.concatenate([np.arange(len(part)) for part in bands])
            order = np.argsort(place, kind="stable")
            return np.concatenate(bands)[order][: pool.ipc]
        number = int(band)
        nearest = sorted(range(BANDS), key=lambda other: (abs(other - number), -other))
        return np.concatenate([bands[other] for other in nearest])[: pool.ipc]

    return pool.by_class(choose)
