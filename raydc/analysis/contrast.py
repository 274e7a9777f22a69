"""Sums and differences of means over replicates, with intervals that account for paired replicates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from raydc.analysis.intervals import CONFIDENCE, Mean
from raydc.spec.result import Row


@dataclass(frozen=True)
class Term:
    """`factor` times the mean of the values of some replicates."""

    factor: float
    values: Mapping[int, float]
    """Values of the replicates, by seed."""


def by_seed(rows: Iterable[Row], column: str = "test_acc") -> dict[int, float]:
    """Values of a column by seed; their mean if a seed has several rows."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(int(row["seed"]), []).append(float(row[column]))
    return {seed: float(np.mean(values)) for seed, values in sorted(found.items())}


def combined(terms: Sequence[Term], constant: float = 0.0) -> Mean:
    """The sum of `terms` and a constant that has no spread, with its 95 % interval.

    Terms with equal seeds are paired: they are summed replicate by replicate. Terms with other seeds are
    independent: variances are added, with Welch-Satterthwaite degrees of freedom. There is no interval if a
    term has only one replicate. `count` is the smallest number of replicates.
    """
    parts: dict[tuple[int, ...], list[Term]] = {}
    for term in terms:
        parts.setdefault(tuple(sorted(term.values)), []).append(term)
    value, count = constant, min(map(len, parts))
    variances, degrees = [], []
    for seeds, paired in parts.items():
        sums = np.array([sum(term.factor * term.values[seed] for term in paired) for seed in seeds])
        value += float(sums.mean())
        if count > 1:
            variances.append(float(sums.var(ddof=1)) / len(seeds))
            degrees.append(len(seeds) - 1)
    if count < 2:
        return Mean(value, None, None, count)
    half = 0.0
    if total := sum(variances):
        freedom = total**2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * np.sqrt(total)
    return Mean(value, value - half, value + half, count)
