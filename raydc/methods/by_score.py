"""el2n, forgetting, aum, cad: the easiest or hardest images by a score (raydc.teachers.scores).

`easy` keeps the images with the smallest scores, which is better for small budgets (arXiv 2502.06434); `hard`
keeps those with the largest scores, as in the papers of the scores at small pruning rates.
"""

from __future__ import annotations

import numpy as np

from raydc.methods.pool import Pool, Rows


def select(pool: Pool, *, end: str, balance: str) -> Rows:
    """Rows [ipc x classes], ordered by score; of equal scores, the earlier row comes first."""
    (hardness,) = pool.scores.values()
    sign = -1 if end == "hard" else 1
    ranked = np.argsort(sign * hardness, kind="stable")
    if balance == "global":
        allowed = ranked[np.isin(pool.labels[ranked], pool.classes)]
        return allowed[: pool.ipc * len(pool.classes)]
    return np.concatenate([ranked[pool.labels[ranked] == label][: pool.ipc] for label in pool.classes])
