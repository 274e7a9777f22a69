"""Least squares fits of joint laws: a search over their two exponents.

For given (c, e) every form is linear in the other parameters, so the fit is a search over (c, e) only: a
grid, and a few Gauss-Newton steps from its best pair, for many surfaces at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydc.analysis.surfaces import Surface

Array = NDArray[np.float64]

FORMS = ("additive", "product", "interaction", "logarithmic")
"""See raydc.analysis.joint_laws."""
NAMES = ("a", "b", "c", "d", "e", "f")
TERMS = {"additive": "bda", "product": "fa", "interaction": "bdfa", "logarithmic": "bdfa"}
"""Coefficients of each form; the constant comes last, which makes its upper bound cheap."""
LIMIT_WITH_K = ("additive", "interaction")
"""Forms whose limit over images depends on k."""
EXPONENTS = np.geomspace(0.03, 4.0, 15)
"""Grid values of c and e; Gauss-Newton steps refine the best pair."""
SIGNED_EXPONENTS = np.linspace(-1.0, 3.0, 17)
"""Grid values of e for a product."""
LARGEST_STEP = 0.35
"""Largest Gauss-Newton step in log c and log e: one step of the grid."""
STEPS = 5


def parameters_of(form: str) -> str:
    """Names of the parameters of a form."""
    return TERMS[form] + ("" if form == "logarithmic" else "ce")


def falling(form: str, x: Array, exponent: Array) -> Array:
    """The term of a form in n (or k): n^-c, or -log n; `exponent` is broadcast against x."""
    return np.asarray(-np.log(x) + 0 * exponent if form == "logarithmic" else x**-exponent)


def predict(form: str, values: Array, x: Array, z: Array) -> Array:
    """acc [D, K] of laws `values` [D, 6] at pairs x [K], z [K]."""
    a, b, c, d, e, f = values.T[:, :, None]
    u, v = falling(form, x, c), falling(form, z, e)
    return np.asarray(a - b * u - d * v - f * u * v)


def _parts(form: str, surface: Surface, c: Array, e: Array) -> tuple[Array, Array]:
    """The terms in n and in k at the points, each [G, J], for exponents [G].

    The term in k is relative to the largest k, so the constant is the limit over images with these labels, an
    accuracy of at most 1.
    """
    u, v = falling(form, surface.x, c[:, None]), falling(form, surface.z, e[:, None])
    return u, v - _end(form, surface, e)[:, None]


def _end(form: str, surface: Surface, e: Array) -> Array:
    """The term in k [G] at the largest k; 0 for forms whose limit does not depend on k."""
    return falling(form, surface.z.max(), e) if form in LIMIT_WITH_K else np.zeros_like(e)


def basis(form: str, surface: Surface, c: Array, e: Array) -> Array:
    """The design matrix [G, J, P] of the form's coefficients, weighted by replicates."""
    u, v = _parts(form, surface, c, e)
    terms = {"b": -u, "d": -v, "f": -u * v, "a": np.ones_like(u)}
    return np.stack([terms[name] for name in TERMS[form]], axis=2) * np.sqrt(surface.counts)[:, None]


class _Search:
    """Least squares of a form at every grid pair of exponents, with a <= 1 where a is a limit."""

    def __init__(self, form: str, surface: Surface) -> None:
        self._root = np.sqrt(surface.counts)
        self._pairs = np.stack(np.meshgrid(EXPONENTS, _of_k(form)), axis=2).reshape(-1, 2)
        q, r = np.linalg.qr(basis(form, surface, *self._pairs.T))
        self._q = np.moveaxis(q, 0, 1).reshape(len(surface.x), -1)  # [J, G P]
        self._scale = r[:, -1, -1]

    def best(self, ys: Array) -> Array:
        """The pairs (c, e) [D, 2] of the grid with the smallest sums of squares of surfaces ys [D, J]."""
        onto = ((ys * self._root) @ self._q).reshape(len(ys), len(self._pairs), -1)
        # The last coordinate belongs to the constant: the excess is the cost of the bound a <= 1.
        excess = np.maximum(onto[:, :, -1] / self._scale - 1, 0) * self._scale
        return np.asarray(self._pairs[((onto**2).sum(2) - excess**2).argmax(1)])


def _of_k(form: str) -> Array:
    """Grid values of e: in a product, k may also have no effect or a negative one."""
    return SIGNED_EXPONENTS if form == "product" else EXPONENTS


def best_laws(form: str, surface: Surface, ys: Array) -> Array:
    """Least squares laws [D, 6], (a, b, c, d, e, f), of surfaces ys [D, J] at the points of `surface`,
    weighted by replicates."""
    if form == "logarithmic":
        return _laws_at(form, surface, ys, np.ones((len(ys), 2)))[0]
    exponents = _Search(form, surface).best(ys)
    found, least = np.empty((len(ys), len(NAMES))), np.full(len(ys), np.inf)
    for _ in range(STEPS):
        laws, rest, q = _laws_at(form, surface, ys, exponents)
        squares = (rest**2).sum(1)
        better = squares < least
        found[better], least[better] = laws[better], squares[better]
        exponents = _step(form, surface, laws, rest, q)
    return found


def _laws_at(form: str, surface: Surface, ys: Array, exponents: Array) -> tuple[Array, Array, Array]:
    """The best laws [D, 6] of surfaces ys [D, J] with given exponents [D, 2], their residuals [D, J], and an
    orthonormal basis [D, J, P] of the free coefficients."""
    root = np.sqrt(surface.counts)
    q, r = np.linalg.qr(basis(form, surface, *exponents.T))
    onto = np.einsum("djp,dj->dp", q, ys * root)
    capped = (onto[:, -1] / r[:, -1, -1] > 1) & (form != "logarithmic")
    onto[capped, -1] = r[capped, -1, -1]
    rest = ys * root - np.einsum("djp,dp->dj", q, onto)
    q[capped, :, -1] = 0
    solved = np.linalg.solve(r, onto[:, :, None])[:, :, 0]
    part = {name: solved[:, place] for place, name in enumerate(TERMS[form])}
    nothing, end = np.zeros(len(ys)), _end(form, surface, exponents[:, 1])
    d, f = part.get("d", nothing), part.get("f", nothing)
    a, b = part["a"] + d * end, part.get("b", nothing) - f * end
    return np.stack([a, b, exponents[:, 0], d, exponents[:, 1], f], axis=1), rest, q


def _step(form: str, surface: Surface, laws: Array, rest: Array, q: Array) -> Array:
    """Exponents [D, 2] after a Gauss-Newton step orthogonal to the coefficients (variable projection, Golub
    and Pereyra 1973, with Kaufman's approximation)."""
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
    # An exponent without influence on the law does not change.
    normal += (1e-9 * np.trace(normal, axis1=1, axis2=2) + 1e-30)[:, None, None] * np.eye(2)
    step = np.linalg.solve(normal, np.einsum("djp,dj->dp", slopes, rest)[:, :, None])[:, :, 0]
    step = np.clip(step, -LARGEST_STEP, LARGEST_STEP)
    new_c, grid = c[:, 0] * np.exp(step[:, 0]), _of_k(form)
    new_e = e[:, 0] + step[:, 1] if signed else e[:, 0] * np.exp(step[:, 1])
    return np.stack([np.clip(new_c, EXPONENTS[0], EXPONENTS[-1]), np.clip(new_e, grid[0], grid[-1])], axis=1)
