"""What doubling the label information is worth, in images.

According to a joint law acc(n, k), n images with labels of 2 k entries do as well as n' images with labels of
k entries if acc(n', k) = acc(n, 2 k). Neither 2 k nor n' is extrapolated outside the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydc.analysis.intervals import CONFIDENCE
from raydc.analysis.joint_laws import JointLaw, NoJointLaw
from raydc.analysis.joint_search import falling, predict
from raydc.analysis.laws import Interval, interval_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExchangeRate:
    """What 2 k label entries instead of k are worth at n images."""

    n: float
    k: float
    gain: Interval
    """acc(n, 2 k) - acc(n, k), a fraction."""
    images: Interval
    """n' with acc(n', k) = acc(n, 2 k); 0 or infinity if no number of images reaches that accuracy."""
    smallest: float
    """The smallest n of the data; n' is not extrapolated below it."""
    largest: float
    """The largest n of the data; n' is not extrapolated above it."""

    @property
    def ratio(self) -> float | None:
        """n' / n, the images with k entries that one image with 2 k replaces; None outside the data."""
        inside = self.smallest <= self.images.value <= self.largest
        return self.images.value / self.n if inside else None

    def text(self) -> str:
        """`12.4 [10.8, > 20]`, `> 20`, or `12.4` without replicates."""
        value = self._bounded(self.images.value)
        if self.ratio is None or self.images.low is None or self.images.high is None:
            return value
        return f"{value} [{self._bounded(self.images.low)}, {self._bounded(self.images.high)}]"

    def _bounded(self, images: float) -> str:
        if images > self.largest:
            return f"> {self.largest:g}"
        return f"< {self.smallest:g}" if images < self.smallest else f"{images:.1f}"

    def row(self) -> dict[str, Any]:
        """A flat row; null where n' is outside the data."""

        def known(images: float | None) -> float | None:
            return images if images is not None and self.smallest <= images <= self.largest else None

        return {
            "n": self.n,
            "k": self.k,
            "gain": self.gain.value,
            "gain_low": self.gain.low,
            "gain_high": self.gain.high,
            "images": known(self.images.value),
            "images_low": known(self.images.low),
            "images_high": known(self.images.high),
            "ratio": self.ratio,
            "text": self.text(),
        }


def exchange_rates(found: JointLaw | NoJointLaw) -> list[ExchangeRate]:
    """One rate for every measured (n, k) whose 2 k is inside the data; empty if there is no law."""
    law = found.inside if isinstance(found, NoJointLaw) else found
    if law is None:
        return []
    surface = law.surface
    chosen = 2 * surface.z <= surface.z.max()
    n, k = surface.x[chosen], surface.z[chosen]
    gain, images = _answers(law.form, law.values[None], n, k)
    gains, counts = _answers(law.form, law.draws, n, k)
    return [
        ExchangeRate(
            n=float(n[i]),
            k=float(k[i]),
            gain=interval_of(float(gain[0, i]), gains[:, i]),
            images=_interval(float(images[0, i]), counts[:, i]),
            smallest=float(surface.x.min()),
            largest=float(surface.x.max()),
        )
        for i in range(len(n))
    ]


def _answers(form: str, values: Array, n: Array, k: Array) -> tuple[Array, Array]:
    """Gains and n' [D, K] of laws `values` [D, 6] at pairs n [K], k [K]."""
    better = predict(form, values, n, 2 * k)
    a, b, c, d, e, f = values.T[:, :, None]
    v = falling(form, k, e)
    # Along n alone the law is: acc = limit - slope * falling(n).
    limit, slope = a - d * v, b + f * v
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        left = (limit - better) / slope
        if form == "logarithmic":
            images = np.exp(-left)
        else:
            images = np.where(left > 0, np.maximum(left, 0.0) ** (-1 / c), np.inf)
    gain = better - predict(form, values, n, k)
    # If accuracy does not rise with images, no number of images equals a gain, and any equals a loss.
    images = np.where(slope > 0, images, np.where(gain > 0, np.inf, 0.0))
    return gain, np.asarray(images)


def _interval(value: float, draws: Array) -> Interval:
    """The 95 % interval of draws [D] that may be infinite, around an estimate."""
    if not len(draws):
        return Interval(value, None, None)
    ends = [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2]
    low, high = np.quantile(draws, ends, method="nearest")
    return Interval(value, float(min(low, value)), float(max(high, value)))


def describe(item: ExchangeRate) -> str:
    """Part of a sentence, such as `5 images per class with 2 kept entries do as well as 5.7 with 1`."""
    now, twice = f"{item.k:g}", f"{2 * item.k:g}"
    return f"{item.n:g} images per class with {twice} kept entries do as well as {item.text()} with {now}"


def typical(found: Sequence[ExchangeRate]) -> ExchangeRate | None:
    """The rate for a summary: at the smallest k, and at the n nearest to the geometric mean of its range."""
    inside = [item for item in found if item.ratio is not None]
    if not inside:
        return None
    least = min(item.k for item in inside)
    middle = np.sqrt(inside[0].smallest * inside[0].largest)
    return min((item for item in inside if item.k == least), key=lambda item: abs(np.log(item.n / middle)))
