"""el2n: images with the smallest or largest error norm early in training.

EL2N(x) = mean over epochs and networks of ||softmax(z(x)) - onehot(y)||_2 (arXiv 2107.07075), here on
clean images in eval mode (`raydc.teachers.scores`). `hard` keeps the largest, as the paper does on
small pruning rates; `easy` the smallest, as small budgets need (arXiv 2502.06434).
"""

from __future__ import annotations

import numpy as np

from raydc.methods.pool import Pool, Rows


def select(pool: Pool, *, end: str, balance: str) -> Rows:
    """Rows [ipc x classes], ordered by score; ties go to the earlier row."""
    assert pool.scores is not None
    sign = -1 if end == "hard" else 1
    ranked = np.argsort(sign * pool.scores, kind="stable")
    if balance == "global":
        allowed = ranked[np.isin(pool.labels[ranked], pool.classes)]
        return allowed[: pool.ipc * len(pool.classes)]
    return np.concatenate([ranked[pool.labels[ranked] == label][: pool.ipc] for label in pool.classes])
