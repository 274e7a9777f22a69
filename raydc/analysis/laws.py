"""Scaling laws: accuracy over the number of images, with bootstrap intervals.

| form        | acc(n)            | |
| ----------- | ----------------- | -------------------------------------------------------- |
| power       | a - b n^-c        | saturating power law; a is the limit (at most 1)          |
| exponential | a - b exp(-c n)   | saturating exponential; a is the limit (at most 1)        |
| logarithmic | a + b log n       | no limit; a is the accuracy at n = 1                      |

For given c every form is linear in (a, b), so the fit is a search over c only: exact, fast, and without
starting values. Intervals come from a parametric bootstrap: replicate variance pooled over the
curve's points, deviations scaled from normal to Student t. Forms are compared by AICc over all
replicates, and by the prediction at the largest n of a fit without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from raydc.analysis.curves import Curve, Points
from raydc.analysis.intervals import CONFIDENCE

Array = NDArray[np.float64]

EXPONENTS = np.geomspace(0.02, 6.0, 60)
"""Grid values of c; a curve with a smaller c does not show its limit."""
HALVINGS = 7
"""Number of times the step of log c is halved around the best value; it ends at about 0.001."""
FORMS = ("power", "exponential", "logarithmic")
FORMULAS = {"power": "a - b {x}^-c", "exponential": "a - b exp(-c {x})", "logarithmic": "a + b log {x}"}
LEAST_POINTS = 4
"""Three parameters, and one more point to test them."""
DRAWS = 1000
SIGNIFICANCE = 0.05
LARGEST_REST = 0.5
"""Largest fraction of the rise from the first point to the limit that may lie beyond the data."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; the ends are None without replicates."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Law:
    """A fitted law."""

    curve: Curve
    form: str
    """power, exponential or logarithmic."""
    a: Interval
    """The limit, a fraction of at most 1."""
    b: Interval
    c: Interval | None
    """The exponent or the rate; None for a form without one."""
    rmse: float
    """Root mean square distance of the points' means from the law."""
    draws: Array
    """[D, 3], bootstrap draws of (a, b, c), scaled to t; empty without replicates."""
    lack_of_fit: float | None
    """p-value of the lack-of-fit test, given the spread of replicates; small is bad."""
    aicc: float | None
    """Akaike's criterion, corrected for few observations; compares forms of one curve. None if there are too
    few observations."""
    holdout: float | None
    """Predicted minus measured accuracy at the largest x, of the law fitted without it; None if too few
    points are left."""

    def predict(self, x: Array) -> Array:
        """acc at x."""
        c = 1.0 if self.c is None else self.c.value
        return self.a.value - self.b.value * falling(self.form, x, np.asarray(c))

    def band(self, x: Array) -> tuple[Array, Array] | None:
        """95 % band of the law at x [K], or None without replicates."""
        if not len(self.draws):
            return None
        a, b, c = self.draws.T
        lines = a[:, None] - b[:, None] * falling(self.form, x[None, :], c[:, None])
        low, high = np.quantile(lines, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], axis=0)
        return low, high


@dataclass(frozen=True)
class NoLaw:
    """A curve without a law, because its data do not determine one."""

    curve: Curve
    reason: str
    inside: Law | None = None
    """The best law if only its limit is unknown: valid inside the data, not beyond."""


def falling(form: str, x: Array, c: Array) -> Array:
    """The function g(x; c) of a form, with acc = a - b g(x; c)."""
    if form == "power":
        return np.asarray(x**-c)
    if form == "exponential":
        return np.asarray(np.exp(-c * x))
    assert form == "logarithmic", form
    return np.asarray(-np.log(x) + 0 * c)


def rates(form: str, x: Array) -> Array:
    """Grid values of c for a form."""
    if form == "power":
        return EXPONENTS
    if form == "exponential":
        # From a nearly straight curve to one that is flat after its first point.
        return np.geomspace(0.05 / x[-1], 6.0 / x[0], 60)
    return np.ones(1)


class _Search:
    """Least squares of a - b g(x; c) with a <= 1 where a is a limit: a grid of c, halved around its best."""

    def __init__(self, form: str, x: Array, weights: Array) -> None:
        self._form, self._x, self._weights = form, x, weights
        self._rates = rates(form, x)

    def __call__(self, ys: Array) -> tuple[Array, Array]:
        """Best (a, b, c) [D, 3] of curves ys [D, J], and the weighted sums of squares [D]."""
        found, best = np.empty((len(ys), 3)), np.full(len(ys), np.inf)
        for rate in self._rates:
            self._improve(ys, np.full(len(ys), rate), found, best)
        step = self._rates[1] / self._rates[0] if len(self._rates) > 1 else 1.0
        for _ in range(HALVINGS if step > 1 else 0):
            step = np.sqrt(step)
            centre = found[:, 2].copy()
            for c in (centre / step, centre * step):
                self._improve(ys, np.clip(c, self._rates[0], self._rates[-1]), found, best)
        return found, best

    def _improve(self, ys: Array, c: Array, found: Array, best: Array) -> None:
        """Replace the laws `found` by those with c [D] where these are better."""
        x = falling(self._form, self._x, c[:, None])
        share = self._weights / self._weights.sum()
        off = x - (x @ share)[:, None]
        b = -(off * ys) @ share / ((off**2) @ share)
        a = ys @ share + b * (x @ share)
        if self._form != "logarithmic":
            # With a = 1: 1 - y = b g.
            b = np.where(a > 1, ((1 - ys) * x) @ share / ((x**2) @ share), b)
            a = np.minimum(a, 1.0)
        squares = ((ys - a[:, None] + b[:, None] * x) ** 2) @ self._weights
        better = squares < best
        best[better] = squares[better]
        found[better] = np.stack([a, b, c], axis=1)[better]


def fit(curve: Curve, form: str = "power", seed: int = 0) -> Law | NoLaw:
    """Fit the law of a curve; if its data do not determine one, return the reason.

    form: one of FORMS, or `auto`, which picks the form with the smallest AICc among those that fit.
    """
    if form == "auto":
        found = [fit(curve, name, seed) for name in FORMS]
        fitted = [law for law in found if isinstance(law, Law)]
        if not fitted:
            return found[0]
        return min(fitted, key=lambda law: np.inf if law.aicc is None else law.aicc)
    x, means, counts = curve.x, curve.means, curve.counts
    parameters = 2 if form == "logarithmic" else 3
    if len(x) < LEAST_POINTS:
        return NoLaw(curve, f"{len(x)} values of x, but three parameters need at least {LEAST_POINTS}")
    if (x <= 0).any():
        return NoLaw(curve, f"x has values at or below 0, where a {form} law is not defined")
    weights = counts.astype(np.float64)
    search = _Search(form, x, weights)
    estimates, squares = search(means[None])
    a, b, c = (float(value) for value in estimates[0])
    if b <= 0:
        return NoLaw(curve, "accuracy does not rise with x")
    if hides_rise(curve):
        return NoLaw(curve, "the spread of the replicates hides any rise")
    if parameters == 3 and c >= rates(form, x)[-1] * 0.999:
        return NoLaw(curve, "the curve is flat after its first point; add smaller x")
    draws = np.empty((0, 3))
    expected = a - b * falling(form, x, np.asarray(c))
    deviation, degrees = curve.pooled_deviation, curve.degrees
    if deviation:
        spread = np.random.Generator(np.random.Philox(seed)).standard_normal((DRAWS, len(x)))
        drawn, _ = search(expected + spread * deviation / np.sqrt(counts))
        draws = _to_t(drawn, np.array([a, b, c]), degrees, form, x)
    intervals = [interval_of(value, draws[:, i]) for i, value in enumerate((a, b, c))]
    law = Law(
        curve=curve,
        form=form,
        a=intervals[0],
        b=intervals[1],
        c=intervals[2] if parameters == 3 else None,
        rmse=float(np.sqrt(np.mean((means - expected) ** 2))),
        draws=draws,
        lack_of_fit=lack_of_fit(curve, float(squares[0]), len(x) - parameters),
        aicc=aicc(curve, expected, parameters),
        holdout=_holdout(curve, form),
    )
    rest = falling(form, x[[0, -1]], np.asarray(c))
    if parameters == 3 and rest[1] / rest[0] > LARGEST_REST:
        reason = "the curve still rises like a logarithm, so its limit is not in the data; add larger x"
        return NoLaw(curve, reason, inside=law)
    return law


def as_row(found: Law | NoLaw) -> dict[str, Any]:
    """A law, or the reason why there is none, as a flat row; null where something does not apply."""
    law = found if isinstance(found, Law) else None
    row: dict[str, Any] = {
        **found.curve.key,
        "points": len(found.curve.x),
        "replicates": int(found.curve.counts.min()),
        "form": law.form if law else None,
    }
    for name in ("a", "b", "c"):
        part: Interval | None = getattr(law, name) if law else None
        row |= {
            name: part.value if part else None,
            f"{name}_low": part.low if part else None,
            f"{name}_high": part.high if part else None,
        }
    return {
        **row,
        "rmse": law.rmse if law else None,
        "lack_of_fit_p": law.lack_of_fit if law else None,
        "aicc": law.aicc if law else None,
        "holdout_error": law.holdout if law else None,
        "reason": None if law else found.reason,  # type: ignore[union-attr]
    }


def hides_rise(points: Points) -> bool:
    """Whether the points do not differ significantly (F test); False without replicates."""
    deviation, free = points.pooled_deviation, len(points.counts) - 1
    if not deviation:
        return False
    weights = points.counts.astype(np.float64)
    squares = float((weights * (points.means - np.average(points.means, weights=weights)) ** 2).sum())
    return bool(stats.f.sf(squares / free / deviation**2, free, points.degrees) > SIGNIFICANCE)


def lack_of_fit(points: Points, squares: float, free: int) -> float | None:
    """p-value of an F test for lack of fit: weighted sum of `squares` with `free` degrees of freedom."""
    deviation = points.pooled_deviation
    if not deviation:
        return None
    return float(stats.f.sf(squares / free / deviation**2, free, points.degrees))


def aicc(points: Points, expected: Array, parameters: int) -> float | None:
    """AICc of a law over all replicates, with normal deviations of one unknown variance."""
    count, k = int(points.counts.sum()), parameters + 1
    if count <= k + 1:
        return None
    squares = sum(
        float(((np.asarray(values) - y) ** 2).sum())
        for values, y in zip(points.replicates, expected, strict=True)
    )
    # A perfect fit has no spread; machine precision replaces it.
    squares = max(squares, count * np.finfo(float).eps ** 2)
    return count * float(np.log(squares / count)) + 2 * k + 2 * k * (k + 1) / (count - k - 1)


def _holdout(curve: Curve, form: str) -> float | None:
    """Prediction error at the largest x, of the form fitted to the other points."""
    parameters = 2 if form == "logarithmic" else 3
    if len(curve.x) - 1 < parameters:
        return None
    rest, last = curve.x[:-1], curve.x[-1:]
    estimates, _ = _Search(form, rest, curve.counts[:-1].astype(np.float64))(curve.means[None, :-1])
    a, b, c = estimates[0]
    return float(a - b * falling(form, last, np.asarray(c))[0] - curve.means[-1])


def t_over_normal(degrees: int) -> float:
    """Ratio of the widths of the 95 % intervals of Student's t and the normal distribution."""
    level = 0.5 + CONFIDENCE / 2
    return float(stats.t.ppf(level, degrees) / stats.norm.ppf(level))


def _to_t(draws: Array, centre: Array, degrees: int, form: str, x: Array) -> Array:
    """Draws with deviations scaled so that their 95 % interval is that of Student's t."""
    scaled = centre + (draws - centre) * t_over_normal(degrees)
    if form != "logarithmic":
        scaled[:, 0] = np.minimum(scaled[:, 0], 1.0)
    scaled[:, 2] = np.maximum(scaled[:, 2], rates(form, x)[0])
    return np.asarray(scaled)


def interval_of(value: float, draws: Array) -> Interval:
    """An estimate with the 95 % interval of draws [D]; without ends if there are no draws."""
    if not len(draws):
        return Interval(value, None, None)
    low, high = np.quantile(draws, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return Interval(value, float(min(low, value)), float(max(high, value)))
