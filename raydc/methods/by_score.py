"""el2n, forgetting, aum, cad: the images at one end of a score of hardness (raydc.teachers.scores).

`easy` keeps the images with the smallest hardness, as small budgets need (arXiv 2502.06434); `hard` the
largest, as the scores' papers do at small pruning rates.
"""

from __future__ import annotations

import numpy as np

from raydc.methods.pool import Pool, Rows


def select(pool: Pool, *, end: str, balance: str) -> Rows:
    """Rows [ipc x classes], ordered by score; ties go to the earlier row."""
    (hardness,) = pool.scores.values()
    sign = -1 if end == "hard" else 1
    ranked = np.argsort(sign * hardness, kind="stable")
    if balance == "global":
        allowed = ranked[np.isin(pool.labels[ranked], pool.classes)]
        return allowed[: pool.ipc * len(pool.classes)]
    return np.concatenate([ranked[pool.labels[ranked] == label][: pool.ipc] for label in pool.classes])
