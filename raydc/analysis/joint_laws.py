"""Joint laws: accuracy over images n and label information k (arXiv 2406.10485, data against knowledge).

| form        | acc(n, k)                                 | |
| ----------- | ----------------------------------------- | ----------------------------------------------- |
| additive    | a - b n^-c - d k^-e                       | two errors that add up (arXiv 2203.15556)       |
| product     | a - f n^-c k^-e                           | k scales images: a - f (n k^(e/c))^-c           |
| interaction | a - b n^-c - d k^-e - f n^-c k^-e         | has both; f < 0: k matters more at larger n     |
| logarithmic | a + b log n + d log k - f log n log k     | no limit                                         |

Intervals come from a parametric bootstrap: the variance of replicates is pooled over all points, normal
deviations are scaled to Student t, and each draw is fitted again in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from raydc.analysis.intervals import CONFIDENCE
from raydc.analysis.joint_search import (
    EXPONENTS,
    FORMS,
    LIMIT_WITH_K,
    NAMES,
    TERMS,
    basis,
    best_laws,
    parameters_of,
    predict,
)
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

FORMULAS = {
    "additive": "a - b {x}^-c - d {z}^-e",
    "product": "a - f {x}^-c {z}^-e",
    "interaction": "a - b {x}^-c - d {z}^-e - f {x}^-c {z}^-e",
    "logarithmic": "a + b log {x} + d log {z} - f log {x} log {z}",
}
LEAST_VALUES = 3
"""Distinct values of n and of k that an exponent needs."""


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
    """p-value of the lack-of-fit test, given the spread of replicates; small is bad."""
    aicc: float | None
    """Akaike's criterion, corrected for few observations; None if there are too few."""
    holdout: Array | None
    """Predicted minus measured accuracy at the largest n, of the law fitted without it, for each k; None if
    too few points are left."""

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
    """A surface without a joint law, because its data do not determine one."""

    surface: Surface
    reason: str
    inside: JointLaw | None = None
    """The best law if only its limit is unknown: valid inside the data, not beyond."""


def fit_joint(surface: Surface, form: str = "auto", seed: int = 0) -> JointLaw | NoJointLaw:
    """Fit the joint law of a surface; if its data do not determine one, return the reason.

    form: one of FORMS, or `auto`, which picks the form with the smallest AICc.
    """
    forms = [name for name in (FORMS if form == "auto" else (form,)) if _determined(name, surface)]
    reason = next(_shortages(surface, forms), None)
    if reason is not None:
        return NoJointLaw(surface, reason)
    laws = [_fitted(name, surface) for name in forms]
    law = min(laws, key=lambda law: np.inf if law.aicc is None else law.aicc)
    law = replace(law, draws=_drawn(law, seed), holdout=_holdout(law))
    reason, valid_inside = next(_faults(law), (None, True))
    return law if reason is None else NoJointLaw(surface, reason, inside=law if valid_inside else None)


def _determined(form: str, surface: Surface) -> bool:
    """Whether the pairs (n, k) determine the form's parameters, with one point to spare for a test."""
    terms = len(TERMS[form])
    if len(surface.x) <= len(parameters_of(form)) or min(surface.x.min(), surface.z.min()) <= 0:
        return False
    if any(len(np.unique(values)) < LEAST_VALUES for values in (surface.x, surface.z)):
        return False
    half = np.full(1, 0.5)
    return int(np.linalg.matrix_rank(basis(form, surface, half, half)[0])) == terms


def _fitted(form: str, surface: Surface) -> JointLaw:
    """The least squares fit of one form, without draws and holdout."""
    values = best_laws(form, surface, surface.means[None])
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
    return best_laws(law.form, surface, law.predict(surface.x, surface.z) + spread)


def _holdout(law: JointLaw) -> Array | None:
    """Prediction errors at the largest n, of the form fitted to the smaller ones."""
    surface = law.surface
    last = surface.x == surface.x.max()
    rest = surface.part(~last)
    if not _determined(law.form, rest):
        return None
    values = best_laws(law.form, rest, rest.means[None])
    return np.asarray(predict(law.form, values, surface.x[last], surface.z[last])[0] - surface.means[last])


def _shortages(surface: Surface, forms: Sequence[str]) -> Iterator[str]:
    """Reasons why the data cannot be fitted."""
    for name, values in (("n", surface.x), ("k", surface.z)):
        different = len(np.unique(values))
        if different < LEAST_VALUES:
            yield f"{different} value(s) of {name}, but a joint law needs {LEAST_VALUES}"
        if (values <= 0).any():
            yield f"{name} has values at or below 0, where a joint law is not defined"
    if not forms:
        yield f"{len(surface.x)} pairs of n and k do not determine the parameters; add pairs"


def _faults(law: JointLaw) -> Iterator[tuple[str, bool]]:
    """Reasons against a fitted law, and whether it is still valid inside the data."""
    surface = law.surface
    limit_of = {"n": law.form != "logarithmic", "k": law.form in LIMIT_WITH_K}
    for name, values, others, place in (("n", surface.x, surface.z, 2), ("k", surface.z, surface.x, 4)):
        rise, hidden = _rise(surface, values, others)
        if hidden:
            yield f"the spread of the replicates hides the effect of {name}", name == "k"
        elif rise <= 0:
            yield f"accuracy does not rise with {name}", name == "k"
        if not limit_of[name]:
            continue
        if law.values[place] >= EXPONENTS[-1] * 0.999:
            yield f"accuracy is flat after the first value of {name}; add smaller ones", True
        if (values.max() / values.min()) ** -law.values[place] > LARGEST_REST:
            yield f"accuracy still rises like a logarithm of {name}, so its limit is not in the data", True


def _rise(surface: Surface, along: Array, others: Array) -> tuple[float, bool]:
    """Mean slope of accuracy over the logarithm of n or k, with the other one fixed, and whether it is not
    significant given the spread of replicates (t test)."""
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
    """A joint law, or the reason why there is none, as a flat row; null where something does not apply.

    If only the limit is unknown, the row has the form and measures of its fit, but not its parameters.
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
