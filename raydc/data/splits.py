"""Stratified sampling: the validation split, limits, and splits with equal shares of every class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def shares(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Number of images of each class when `total` are drawn in proportion (largest remainder).

    counts: [C] images of each class; the result sums to `total` and never exceeds `counts`.
    """
    exact = counts * (total / max(1, counts.sum()))
    chosen = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - chosen), kind="stable")
    chosen[order[: total - chosen.sum()]] += 1
    return np.minimum(chosen, counts)


def stratified(labels: NDArray[np.int64], total: int, seed: int) -> Indices:
    """`total` sorted positions of `labels`, with classes in proportion; deterministic for a `seed`."""
    classes = int(labels.max()) + 1 if len(labels) else 0
    counts = np.bincount(labels, minlength=classes)
    return per_class(labels, shares(counts, total), seed)


def per_class(labels: NDArray[np.int64], counts: NDArray[np.int64], seed: int) -> Indices:
    """counts[c] random positions of each class c, sorted."""
    generator = np.random.Generator(np.random.Philox(seed))
    chosen = [generator.permutation(np.flatnonzero(labels == c))[:count] for c, count in enumerate(counts)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
