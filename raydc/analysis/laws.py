"""Scaling laws: accuracy over the number of images, fitted with honest intervals.

power: acc(n) = a - b * n^-c, a saturating power law; a is the limit (at most 1), c the exponent.

Given c the law is linear in (a, b), so the fit is a search over c alone: exact, fast, and without
starting values. Intervals come from a parametric bootstrap: replicate variance pooled over the
curve's points, deviations scaled from normal to Student t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from raydc.analysis.curves import CONFIDENCE, Curve

Array = NDArray[np.float64]

EXPONENTS = np.geomspace(0.02, 6.0, 300)
"""Values of c that are searched; a curve that wants less does not show its limit."""
LEAST_POINTS = 4
"""Three parameters need a fourth point to be tested by."""
DRAWS = 1000
SIGNIFICANCE = 0.05
LARGEST_REST = 0.5
"""Part of the rise from the first point to the limit that may lie beyond the data."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; ends are None where there are no replicates."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Law:
    """A fitted power law."""

    curve: Curve
    a: Interval
    """The limit, a fraction of at most 1."""
    b: Interval
    c: Interval
    """The exponent."""
    rmse: float
    """Root mean square distance of the points' means from the law."""
    draws: Array
    """[D, 3], bootstrap draws of (a, b, c), scaled to t; empty without replicates."""
    lack_of_fit: float | None
    """p value that the points lie on the law, given the spread of replicates; small is bad."""

    def predict(self, x: Array) -> Array:
        """acc at x."""
        return self.a.value - self.b.value * x**-self.c.value

    def band(self, x: Array) -> tuple[Array, Array] | None:
        """95 % band of the law at x [K], or None without replicates."""
        if not len(self.draws):
            return None
        a, b, c = self.draws.T
        lines = a[:, None] - b[:, None] * x[None, :] ** -c[:, None]
        low, high = np.quantile(lines, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], axis=0)
        return low, high


@dataclass(frozen=True)
class NoLaw:
    """A curve whose data cannot support a fit."""

    curve: Curve
    reason: str
    inside: Law | None = None
    """The best law all the same, where only its limit is unknown: good inside the data, no further."""


class _Search:
    """Least squares of a - b x^-c with a <= 1, over all exponents at once."""

    def __init__(self, x: Array, weights: Array) -> None:
        root = np.sqrt(weights)
        self._root = root
        power = x[None, :] ** -EXPONENTS[:, None] * root  # [G, J]
        basis = np.stack([np.broadcast_to(root, power.shape), -power], axis=2)
        self._solve = np.linalg.pinv(basis)  # [G, 2, J]
        self._basis = basis
        # With a = 1: 1 - y = b x^-c.
        self._slope = power / (power**2).sum(1, keepdims=True)

    def __call__(self, ys: Array) -> tuple[Array, Array]:
        """Best (a, b, c) [D, 3] of curves ys [D, J], and the weighted sums of squares [D]."""
        scaled = ys * self._root
        best = np.full(len(ys), np.inf)
        found = np.empty((len(ys), 3))
        for exponent, solve, basis, slope in zip(
            EXPONENTS, self._solve, self._basis, self._slope, strict=True
        ):
            ab = scaled @ solve.T
            capped = ab[:, 0] > 1
            if capped.any():
                ab[capped, 0] = 1.0
                ab[capped, 1] = (self._root - scaled[capped]) @ slope
            squares = ((scaled - ab @ basis.T) ** 2).sum(1)
            better = squares < best
            best[better] = squares[better]
            found[better, :2] = ab[better]
            found[better, 2] = exponent
        return found, best


def fit_power(curve: Curve, seed: int = 0) -> Law | NoLaw:
    """The power law of a curve, or the reason why its data do not support one."""
    x, means, counts = curve.x, curve.means, curve.counts
    if len(x) < LEAST_POINTS:
        return NoLaw(curve, f"{len(x)} values of x, but three parameters need at least {LEAST_POINTS}")
    if (x <= 0).any():
        return NoLaw(curve, "x has values at or below 0, where a power law is not defined")
    weights = counts.astype(np.float64)
    search = _Search(x, weights)
    estimates, squares = search(means[None])
    a, b, c = (float(value) for value in estimates[0])
    if b <= 0:
        return NoLaw(curve, "accuracy does not rise with x")
    deviation, degrees = curve.pooled_deviation, curve.degrees
    if deviation and degrees:
        flat = float((weights * (means - np.average(means, weights=weights)) ** 2).sum())
        f = flat / (len(x) - 1) / deviation**2
        if stats.f.sf(f, len(x) - 1, degrees) > SIGNIFICANCE:
            return NoLaw(curve, "the spread of the replicates hides any rise")
    if c >= EXPONENTS[-1] * 0.999:
        return NoLaw(curve, "the curve is flat after its first point; add smaller x")
    draws = np.empty((0, 3))
    misfit = None
    if deviation and degrees:
        expected = a - b * x**-c
        spread = np.random.Generator(np.random.Philox(seed)).standard_normal((DRAWS, len(x)))
        drawn, _ = search(expected + spread * deviation / np.sqrt(counts))
        draws = _to_t(drawn, np.array([a, b, c]), degrees)
        f = float(squares[0]) / (len(x) - 3) / deviation**2
        misfit = float(stats.f.sf(f, len(x) - 3, degrees))
    rmse = float(np.sqrt(np.mean((means - (a - b * x**-c)) ** 2)))
    a_interval, b_interval, c_interval = (_interval(value, draws[:, i]) for i, value in enumerate((a, b, c)))
    law = Law(curve, a_interval, b_interval, c_interval, rmse, draws, misfit)
    if (x[0] / x[-1]) ** c > LARGEST_REST:
        reason = "the curve still rises like a logarithm, so its limit is not in the data; add larger x"
        return NoLaw(curve, reason, inside=law)
    return law


def _to_t(draws: Array, centre: Array, degrees: int) -> Array:
    """Deviations of normal draws scaled so that their 95 % interval is that of Student t."""
    level = 0.5 + CONFIDENCE / 2
    scaled = centre + (draws - centre) * (stats.t.ppf(level, degrees) / stats.norm.ppf(level))
    scaled[:, 0] = np.minimum(scaled[:, 0], 1.0)
    scaled[:, 2] = np.maximum(scaled[:, 2], EXPONENTS[0])
    return np.asarray(scaled)


def _interval(value: float, draws: Array) -> Interval:
    if not len(draws):
        return Interval(value, None, None)
    low, high = np.quantile(draws, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return Interval(value, float(min(low, value)), float(max(high, value)))
