"""ccs: coverage-centric selection (arXiv 2210.15809; haizhongzheng/Coverage-centric-coreset-selection).

The hardest fraction `beta` of the whole set by accumulated margin is removed as mislabelled. The rest is
split into strata of equal width by `score`. Each stratum gets an equal share of the budget; a share that a
stratum cannot use is divided among the others. Images are drawn uniformly inside a stratum. With
`balance: class`, each class has its own budget of ipc over min(50, ipc) strata; the hardest images are still
removed from the whole set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydc.methods.pool import Pool, Rows

STRATA = 50


def select(pool: Pool, *, score: str, beta: float, balance: str) -> Rows:
    """Rows [ipc x classes]; a class with too few images left gets its easiest removed images back."""
    allowed = np.flatnonzero(np.isin(pool.labels, pool.classes))
    margin_order = allowed[np.argsort(-pool.scores["aum"][allowed], kind="stable")]
    cut = margin_order[: int(beta * len(allowed))]
    kept = np.setdiff1d(allowed, cut, assume_unique=True)
    hardness = pool.scores[score]
    if balance == "global":
        budget = pool.ipc * len(pool.classes)
        return _draw(kept, hardness, budget, STRATA, margin_order[::-1], pool.generator)

    def choose(rows: Rows) -> Rows:
        rest = np.intersect1d(rows, kept, assume_unique=True)
        easiest = margin_order[::-1]
        easiest = easiest[np.isin(easiest, rows)]
        return _draw(rest, hardness, pool.ipc, min(STRATA, pool.ipc), easiest, pool.generator)

    return pool.by_class(choose)


def budgets(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Images per stratum: equal shares of `total`, smallest strata first; unused shares carry over."""
    quota = np.zeros(len(sizes), np.int64)
    left = total
    for number, stratum in enumerate(np.argsort(sizes, kind="stable")):
        quota[stratum] = min(left // (len(sizes) - number), sizes[stratum])
        left -= quota[stratum]
    return quota


def _draw(
    rows: Rows,
    hardness: NDArray[np.float32],
    total: int,
    strata: int,
    easiest: Rows,
    generator: np.random.Generator,
) -> Rows:
    """`total` of `rows` by strata; if there are too few rows, images of `easiest` are added."""
    if len(rows) <= total:
        missing = easiest[~np.isin(easiest, rows)][: total - len(rows)]
        return np.concatenate([rows, missing])
    values = hardness[rows].astype(np.float64)
    low, high = values.min(), values.max()
    width = (high - low) * 1.0001 / strata or 1.0
    stratum = np.minimum(((values - low) / width).astype(np.int64), strata - 1)
    quota = budgets(np.bincount(stratum, minlength=strata), total)
    drawn = [generator.permutation(rows[stratum == s])[: quota[s]] for s in range(strata) if quota[s]]
    return np.concatenate(drawn)
