"""Paired differences: Student's t from pooled replicates, and Holm's correction for multiple tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from raydc.analysis.intervals import CONFIDENCE


@dataclass(frozen=True)
class Difference:
    """A level minus its baseline, in the metric's unit."""

    value: float
    low: float | None
    """Lower end of the 95 % interval; None with one replicate."""
    high: float | None
    p: float | None
    """p-value of a two-sided t test; None with one replicate."""
    pairs: int
    """Number of paired replicates, which have the same seed on both sides."""
    p_adjusted: float | None = None
    """p-value corrected by Holm over the family of this difference; None if untested."""

    @property
    def significant(self) -> bool:
        return self.p_adjusted is not None and self.p_adjusted < 1 - CONFIDENCE


def difference_of(
    replicates: Sequence[NDArray[np.float64]], deviation: float | None, degrees: int
) -> Difference:
    """Mean over configurations of the mean differences of their replicates, with a Student-t interval.

    `replicates` holds K arrays of paired differences, `deviation` the standard deviation of one
    difference, with its degrees of freedom; None if no configuration has two replicates.
    """
    counts = np.array([len(values) for values in replicates])
    value = float(np.mean([values.mean() for values in replicates]))
    pairs = int(counts.sum())
    if deviation is None:
        return Difference(value, None, None, None, pairs)
    error = deviation * float(np.sqrt((1 / counts).sum())) / len(counts)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees)) * error
    if error > 0:
        p = 2 * float(stats.t.sf(abs(value) / error, degrees))
    else:
        p = 0.0 if value else 1.0
    return Difference(value, value - half, value + half, p, pairs)


def holm(p: Sequence[float]) -> NDArray[np.float64]:
    """P-values adjusted by Holm's step-down procedure, in the given order."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values)
    stepped = np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order])
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def adjusted(family: Sequence[Difference]) -> list[Difference]:
    """The differences of one family with adjusted p-values; untested ones stay as they are."""
    found = iter(holm([d.p for d in family if d.p is not None]))
    return [d if d.p is None else replace(d, p_adjusted=float(next(found))) for d in family]
