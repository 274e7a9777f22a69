"""Joint laws: accuracy over images n and kept label information k (arXiv 2406.10485, data against knowledge).

| form        | acc(n, k)                                 | |
| ----------- | ----------------------------------------- | ----------------------------------------------- |
| additive    | a - b n^-c - d k^-e                       | two shortages that add up (arXiv 2203.15556)     |
| product     | a - f n^-c k^-e                           | k multiplies images: a - f (n k^(e/c))^-c        |
| interaction | a - b n^-c - d k^-e - f n^-c k^-e         | holds both; f < 0: k matters more with more n    |
| logarithmic | a + b log n + d log k - f log n log k     | no limit                                         |

Given (c, e) every form is linear in the rest, so the fit is a search over (c, e) alone: a grid, and a few
Gauss-Newton steps from its best pair. Intervals come from a parametric bootstrap: the variance of
replicates is pooled over all points, normal deviations are scaled to Student t, and each draw is fitted
again in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from raydc.analysis.curves import CONFIDENCE
from raydc.analysis.laws import (
    DRAWS,
    LARGEST_REST,
    SIGNIFICANCE,
    Interval,
    aicc,
    interval_of,
    lack_of_fit,
    t_over_normal,
)
from raydc.analysis.surfaces import Surface

Array = NDArray[np.float64]

FORMS = ("additive", "product", "interaction", "logarithmic")
FORMULAS = {
    "additive": "a - b {x}^-c - d {z}^-e",
    "product": "a - f {x}^-c {z}^-e",
    "interaction": "a - b {x}^-c - d {z}^-e - f {x}^-c {z}^-e",
    "logarithmic": "a + b log {x} + d log {z} - f log {x} log {z}",
}
NAMES = ("a", "b", "c", "d", "e", "f")
TERMS = {"additive": "bda", "product": "fa", "interaction": "bdfa", "logarithmic": "bdfa"}
"""Coefficients of each form; the constant comes last, which makes its bound cheap."""
EXPONENTS = np.geomspace(0.03, 4.0, 15)
"""Values of c and of e that are searched; Gauss-Newton steps lead from the best pair to least squares."""
SIGNED_EXPONENTS = np.linspace(-1.0, 3.0, 17)
"""Values of e of a product."""
LARGEST_STEP = 0.35
"""In log c and log e: a step of the grid."""
STEPS = 5
LEAST_VALUES = 3
"""Different values of n and of k that an exponent needs."""


@dataclass(frozen=True)
class JointLaw:
    """A fitted joint law."""

    surface: Surface
    form: str
    """One of FORMS."""
    values: Array
    """[6], (a, b, c, d, e, f); 0 for a coefficient and 1 for an exponent that the form does not have."""
    draws: Array
    """[D, 6], bootstrap draws of the same; empty without replicates."""
    rmse: float
    """Root mean square distance of the points' means from the law."""
    lack_of_fit: float | None
    """p value that the points lie on the law, given the spread of replicates; small is bad."""
    aicc: float | None
    """Akaike's criterion, corrected for few observations; None where there are too few for it."""
    holdout: Array | None
    """Accuracy that the law, fitted without the largest n, predicts there, minus the measured one, for
    each k; None where too few points are left."""

    def parameters(self) -> dict[str, Interval]:
        """The parameters that the form has, by name, with intervals."""
        return {
            name: interval_of(float(self.values[i]), self.draws[:, i])
            for i, name in enumerate(NAMES)
            if name in parameters_of(self.form)
        }

    def predict(self, x: Array, z: Array) -> Array:
        """acc [K] at pairs x [K], z [K]."""
        return predict(self.form, self.values[None], x, z)[0]

    def band(self, x: Array, z: Array) -> tuple[Array, Array] | None:
        """95 % band of the law at pairs x [K], z [K], or None without replicates."""
        if not len(self.draws):
            return None
        ends = [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2]
        low, high = np.quantile(predict(self.form, self.draws, x, z), ends, axis=0)
        return low, high


@dataclass(frozen=True)
class NoJointLaw:
    """A surface whose data cannot support a joint law."""

    surface: Surface
    reason: str
    inside: JointLaw | None = None
    """The best law all the same, where only its limit is unknown: good inside the data, no further."""


def parameters_of(form: str) -> str:
    """Names of the parameters of a form."""
    return TERMS[form] + ("" if form == "logarithmic" else "ce")


def falling(form: str, x: Array, exponent: Array) -> Array:
    """What a form makes of n (or k): n^-c, or -log n; `exponent` is broadcast against x."""
    return np.asarray(-np.log(x) + 0 * exponent if form == "logarithmic" else x**-exponent)


def predict(form: str, values: Array, x: Array, z: Array) -> Array:
    """acc [D, K] of laws `values` [D, 6] at pairs x [K], z [K]."""
    a, b, c, d, e, f = values.T[:, :, None]
    u, v = falling(form, x, c), falling(form, z, e)
    return np.asarray(a - b * u - d * v - f * u * v)


def _parts(form: str, surface: Surface, c: Array, e: Array) -> tuple[Array, Array]:
    """What the points make of n and of k, each [G, J], for exponents [G].

    Labels end at the largest k, so the part of k is counted from there: the constant beside it is the
    limit of many images with such labels, an accuracy of at most 1.
    """
    u, v = falling(form, surface.x, c[:, None]), falling(form, surface.z, e[:, None])
    return u, v - _end(form, surface, e)[:, None]


def _end(form: str, surface: Surface, e: Array) -> Array:
    """The part of k [G] at the largest k; 0 for forms whose limit does not depend on it."""
    bounded = form in ("additive", "interaction")
    return falling(form, surface.z.max(), e) if bounded else np.zeros_like(e)


def _basis(form: str, surface: Surface, c: Array, e: Array) -> Array:
    """[G, J, P], what each coefficient of the form is multiplied by, weighted by replicates."""
    u, v = _parts(form, surface, c, e)
    terms = {"b": -u, "d": -v, "f": -u * v, "a": np.ones_like(u)}
    return np.stack([terms[name] for name in TERMS[form]], axis=2) * np.sqrt(surface.counts)[:, None]


class _Search:
    """Least squares of a form with a <= 1 where a is a limit, at every pair of exponents of the grid."""

    def __init__(self, form: str, surface: Surface) -> None:
        self._root = np.sqrt(surface.counts)
        self._pairs = np.stack(np.meshgrid(EXPONENTS, _of_k(form)), axis=2).reshape(-1, 2)
        q, r = np.linalg.qr(_basis(form, surface, *self._pairs.T))
        self._q = np.moveaxis(q, 0, 1).reshape(len(surface.x), -1)  # [J, G P]
        self._scale = r[:, -1, -1]

    def best(self, ys: Array) -> Array:
        """The pairs (c, e) [D, 2] of the grid with the smallest sums of squares of surfaces ys [D, J]."""
        onto = ((ys * self._root) @ self._q).reshape(len(ys), len(self._pairs), -1)
        # The last coordinate is that of the constant alone: what a = 1 costs more than its best value.
        excess = np.maximum(onto[:, :, -1] / self._scale - 1, 0) * self._scale
        return np.asarray(self._pairs[((onto**2).sum(2) - excess**2).argmax(1)])


def _of_k(form: str) -> Array:
    """Values of e that are searched: in a product k may also bring nothing, or harm."""
    return SIGNED_EXPONENTS if form == "product" else EXPONENTS


def _best_laws(form: str, surface: Surface, ys: Array) -> tuple[Array, Array]:
    """The best laws [D, 6] of surfaces ys [D, J], and their weighted sums of squares [D]."""
    if form == "logarithmic":
        exponents = np.ones((len(ys), 2))
        found, rest, _ = _laws_at(form, surface, ys, exponents)
        return found, (rest**2).sum(1)
    exponents = _Search(form, surface).best(ys)
    found, best = np.empty((len(ys), len(NAMES))), np.full(len(ys), np.inf)
    for _ in range(STEPS):
        laws, rest, q = _laws_at(form, surface, ys, exponents)
        squares = (rest**2).sum(1)
        better = squares < best
        found[better], best[better] = laws[better], squares[better]
        exponents = _step(form, surface, laws, rest, q)
    return found, best


def _laws_at(form: str, surface: Surface, ys: Array, exponents: Array) -> tuple[Array, Array, Array]:
    """The best laws [D, 6] of surfaces ys [D, J] with given exponents [D, 2], what they leave [D, J],
    and the directions [D, J, P] in which a law could still move."""
    root = np.sqrt(surface.counts)
    q, r = np.linalg.qr(_basis(form, surface, *exponents.T))
    onto = np.einsum("djp,dj->dp", q, ys * root)
    if form != "logarithmic":
        capped = onto[:, -1] / r[:, -1, -1] > 1
        onto[capped, -1] = r[capped, -1, -1]
    rest = ys * root - np.einsum("djp,dp->dj", q, onto)
    if form != "logarithmic":
        q[capped, :, -1] = 0
    solved = np.linalg.solve(r, onto[:, :, None])[:, :, 0]
    part = {name: solved[:, place] for place, name in enumerate(TERMS[form])}
    nothing, end = np.zeros(len(ys)), _end(form, surface, exponents[:, 1])
    d, f = part.get("d", nothing), part.get("f", nothing)
    a, b = part["a"] + d * end, part.get("b", nothing) - f * end
    return np.stack([a, b, exponents[:, 0], d, exponents[:, 1], f], axis=1), rest, q


def _step(form: str, surface: Surface, laws: Array, rest: Array, q: Array) -> Array:
    """Better exponents [D, 2]: Gauss and Newton's step along what the coefficients cannot follow
    (variable projection, Golub and Pereyra 1973, in Kaufman's form)."""
    _, b, c, d, e, f = laws.T[:, :, None]
    x, z = surface.x, surface.z
    u, v, end = falling(form, x, c), falling(form, z, e), _end(form, surface, e)
    # Slopes of acc along log c and log e; along e itself where e may be 0.
    signed = form == "product"
    of_c = (b + f * v) * c * np.log(x) * u
    of_e = (d + f * u) * (np.log(z) * v - np.log(z.max()) * end) * (1.0 if signed else e)
    slopes = np.stack([of_c, of_e], axis=2) * np.sqrt(surface.counts)[:, None]
    slopes -= q @ (np.swapaxes(q, 1, 2) @ slopes)
    normal = np.swapaxes(slopes, 1, 2) @ slopes
    # A law on which an exponent has no influence stays where it is.
    normal += (1e-9 * np.trace(normal, axis1=1, axis2=2) + 1e-30)[:, None, None] * np.eye(2)
    step = np.linalg.solve(normal, np.einsum("djp,dj->dp", slopes, rest)[:, :, None])[:, :, 0]
    step = np.clip(step, -LARGEST_STEP, LARGEST_STEP)
    new_c, grid = c[:, 0] * np.exp(step[:, 0]), _of_k(form)
    new_e = e[:, 0] + step[:, 1] if signed else e[:, 0] * np.exp(step[:, 1])
    return np.stack([np.clip(new_c, EXPONENTS[0], EXPONENTS[-1]), np.clip(new_e, grid[0], grid[-1])], axis=1)


def fit_joint(surface: Surface, form: str = "auto", seed: int = 0) -> JointLaw | NoJointLaw:
    """The joint law of a surface, or the reason why its data do not support one.

    form: one of FORMS, or `auto`, which takes the form with the smallest AICc.
    """
    forms = [name for name in (FORMS if form == "auto" else (form,)) if _determined(name, surface)]
    reason = next(_shortages(surface, forms), None)
    if reason is not None:
        return NoJointLaw(surface, reason)
    laws = [_fitted(name, surface) for name in forms]
    law = min(laws, key=lambda law: np.inf if law.aicc is None else law.aicc)
    law = replace(law, draws=_drawn(law, seed), holdout=_holdout(law))
    reason, serves = next(_faults(law), (None, True))
    return law if reason is None else NoJointLaw(surface, reason, inside=law if serves else None)


def _determined(form: str, surface: Surface) -> bool:
    """Whether the pairs (n, k) tell the form's parameters apart, with one point more to test them by."""
    terms = len(TERMS[form])
    if len(surface.x) <= len(parameters_of(form)) or min(surface.x.min(), surface.z.min()) <= 0:
        return False
    if any(len(np.unique(values)) < LEAST_VALUES for values in (surface.x, surface.z)):
        return False
    half = np.full(1, 0.5)
    return int(np.linalg.matrix_rank(_basis(form, surface, half, half)[0])) == terms


def _fitted(form: str, surface: Surface) -> JointLaw:
    """The least squares of one form, without draws and prediction."""
    values = _best_laws(form, surface, surface.means[None])[0]
    expected = predict(form, values, surface.x, surface.z)[0]
    distances = surface.means - expected
    count = len(parameters_of(form))
    return JointLaw(
        surface=surface,
        form=form,
        values=values[0],
        draws=np.empty((0, len(NAMES))),
        rmse=float(np.sqrt(np.mean(distances**2))),
        lack_of_fit=lack_of_fit(
            surface, float((surface.counts * distances**2).sum()), len(surface.x) - count
        ),
        aicc=aicc(surface, expected, count),
        holdout=None,
    )


def _drawn(law: JointLaw, seed: int) -> Array:
    """Bootstrap draws [D, 6] of a law; empty without replicates."""
    surface = law.surface
    deviation = surface.pooled_deviation
    if not deviation:
        return law.draws
    spread = np.random.Generator(np.random.Philox(seed)).standard_normal((DRAWS, len(surface.x)))
    spread *= deviation * t_over_normal(surface.degrees) / np.sqrt(surface.counts)
    return _best_laws(law.form, surface, law.predict(surface.x, surface.z) + spread)[0]


def _holdout(law: JointLaw) -> Array | None:
    """Prediction errors at the largest n of the form fitted to the smaller ones."""
    surface = law.surface
    last = surface.x == surface.x.max()
    rest = surface.part(~last)
    if not _determined(law.form, rest):
        return None
    values = _best_laws(law.form, rest, rest.means[None])[0]
    return np.asarray(predict(law.form, values, surface.x[last], surface.z[last])[0] - surface.means[last])


def _shortages(surface: Surface, forms: Sequence[str]) -> Iterator[str]:
    """What is missing before any fit."""
    for name, values in (("n", surface.x), ("k", surface.z)):
        different = len(np.unique(values))
        if different < LEAST_VALUES:
            yield f"{different} value(s) of {name}, but a joint law needs {LEAST_VALUES}"
        if (values <= 0).any():
            yield f"{name} has values at or below 0, where a joint law is not defined"
    if not forms:
        yield f"{len(surface.x)} pairs of n and k do not tell the parameters apart; add pairs"


def _faults(law: JointLaw) -> Iterator[tuple[str, bool]]:
    """What a fitted law shows that its data cannot support, and whether it serves inside them."""
    surface, limit_of = (
        law.surface,
        {"n": law.form != "logarithmic", "k": law.form in ("additive", "interaction")},
    )
    for name, values, others, place in (("n", surface.x, surface.z, 2), ("k", surface.z, surface.x, 4)):
        rise, hidden = _rise(surface, values, others)
        if hidden:
            yield f"the spread of the replicates hides what {name} brings", name == "k"
        elif rise <= 0:
            yield f"accuracy does not rise with {name}", name == "k"
        if not limit_of[name]:
            continue
        if law.values[place] >= EXPONENTS[-1] * 0.999:
            yield f"accuracy is flat after the first value of {name}; add smaller ones", True
        if (values.max() / values.min()) ** -law.values[place] > LARGEST_REST:
            yield f"accuracy still rises like a logarithm of {name}, so its limit is not in the data", True


def _rise(surface: Surface, along: Array, others: Array) -> tuple[float, bool]:
    """Mean slope of accuracy over the logarithm of one of n and k, the other equal, and whether the
    spread of replicates hides it (t test)."""
    weights, logs = surface.counts.astype(np.float64), np.log(along)
    for value in np.unique(others):
        same = others == value
        logs[same] -= np.average(logs[same], weights=weights[same])
    size = float((weights * logs**2).sum())
    slope = float((weights * logs * surface.means).sum()) / size if size else 0.0
    deviation = surface.pooled_deviation
    if not deviation:
        return slope, False
    return slope, bool(2 * stats.t.sf(abs(slope) * np.sqrt(size) / deviation, surface.degrees) > SIGNIFICANCE)


def as_row(found: JointLaw | NoJointLaw) -> dict[str, Any]:
    """A joint law, or why there is none, as a flat row; null where something does not apply.

    Where only the limit is unknown the form and what measures its fit are given, not its parameters.
    """
    law = found if isinstance(found, JointLaw) else found.inside
    known = found.parameters() if isinstance(found, JointLaw) else {}
    row: dict[str, Any] = {
        **found.surface.key,
        "points": len(found.surface.x),
        "replicates": int(found.surface.counts.min()),
        "form": law.form if law else None,
    }
    for name in NAMES:
        part = known.get(name)
        row |= {
            name: part.value if part else None,
            f"{name}_low": part.low if part else None,
            f"{name}_high": part.high if part else None,
        }
    errors = law.holdout if law else None
    return {
        **row,
        "rmse": law.rmse if law else None,
        "lack_of_fit_p": law.lack_of_fit if law else None,
        "aicc": law.aicc if law else None,
        "holdout_error": None if errors is None else float(errors.mean()),
        "holdout_rmse": None if errors is None else float(np.sqrt((errors**2).mean())),
        "reason": found.reason if isinstance(found, NoJointLaw) else None,
    }
