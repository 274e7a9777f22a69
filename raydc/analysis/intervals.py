"""Means over replicates with Student-t intervals: from their own spread, or pooled over several groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over replicates with its Student-t interval."""

    value: float
    low: float | None
    """Lower end of the 95 % interval; None with one replicate."""
    high: float | None
    count: int
    """Number of replicates."""


def mean_of(values: Sequence[float]) -> Mean:
    """Mean with a Student-t interval from the spread of `values` alone."""
    array = np.asarray(values, np.float64)
    deviation = float(array.std(ddof=1)) if len(array) > 1 else None
    return _mean(array, deviation, len(array) - 1)


def pooled_means(replicates: Sequence[NDArray[np.float64]]) -> list[Mean]:
    """The mean of each group of replicates, with an interval from the deviation pooled over the groups."""
    deviation, degrees = pooled_deviation(replicates), degrees_of(replicates)
    return [_mean(values, deviation, degrees) for values in replicates]


def degrees_of(replicates: Sequence[NDArray[np.float64]]) -> int:
    """Degrees of freedom of the variance that is pooled over groups of replicates."""
    return sum(len(values) - 1 for values in replicates)


def pooled_deviation(replicates: Sequence[NDArray[np.float64]]) -> float | None:
    """Standard deviation inside groups of replicates, pooled over the groups; None without replicates."""
    degrees = degrees_of(replicates)
    if degrees == 0:
        return None
    squares = sum(((values - values.mean()) ** 2).sum() for values in replicates)
    return float(np.sqrt(squares / degrees))


def _mean(values: NDArray[np.float64], deviation: float | None, degrees: int) -> Mean:
    mean = float(values.mean())
    if deviation is None:
        return Mean(mean, None, None, len(values))
    half = float(stdtrit(degrees, 0.5 + CONFIDENCE / 2)) * deviation / float(np.sqrt(len(values)))
    return Mean(mean, mean - half, mean + half, len(values))
