"""Entropy and NLL of compressed sets under a classifier: means, opposite orders, and reversals by crops.

Proposition 4.1 of arXiv 2502.06434: a lower NLL of one set than of another does not imply a lower entropy.
Theorem 4.2: there is a crop ratio r* at which random augmentation cancels or reverses the entropy
advantage that one set has over another on whole images.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydc.analysis.contrast import Term, combined
from raydc.analysis.curves import group, label_of
from raydc.analysis.intervals import Mean, mean_of

STEPS = 20
"""Grid points between two measured ratios in the search for the interval of r*."""


@dataclass(frozen=True)
class SetPoint:
    """Entropy and NLL of one compressed set under a classifier, at one crop ratio."""

    set_id: str
    key: Mapping[str, Any]
    """The keys that define the set, such as `images.method` and `images.ipc`."""
    seeds: tuple[int, ...]
    """Replicates that use the set."""
    ratio: float
    """Fraction of the image's area in a crop; 1 is the whole image."""
    entropy: float
    """Mean entropy of the predictions, in nats."""
    nll: float
    """Mean negative log-likelihood of the true classes, in nats."""


@dataclass(frozen=True)
class MeanPoint:
    """Means over the sets of one kind at one crop ratio; intervals are over sets."""

    key: Mapping[str, Any]
    ratio: float
    entropy: Mean
    nll: Mean

    @property
    def label(self) -> str:
        return label_of(self.key)


@dataclass(frozen=True)
class Order:
    """Two kinds of sets at one crop ratio; `one` has the lower NLL."""

    one: Mapping[str, Any]
    other: Mapping[str, Any]
    ratio: float
    nll: Mean
    """NLL of `other` minus NLL of `one`; never negative."""
    entropy: Mean
    """Entropy of `other` minus entropy of `one`; negative if entropy orders them the other way."""
    pairs: int
    """Number of compared pairs of sets of the same replicate."""
    opposed: int
    """Number of these pairs that NLL and entropy order differently."""

    @property
    def disagrees(self) -> bool:
        """Whether NLL and entropy order the means differently."""
        return self.entropy.value < 0 < self.nll.value

    @property
    def clear(self) -> bool:
        """Whether neither interval contains 0."""
        return not (_contains_zero(self.nll) or _contains_zero(self.entropy))


@dataclass(frozen=True)
class Reversal:
    """The crop ratio at which the entropy advantage of `one` over `other` on whole images vanishes."""

    one: Mapping[str, Any]
    other: Mapping[str, Any]
    advantage: Mean
    """Entropy of `other` minus entropy of `one` on whole images, in nats."""
    ratio: float | None
    """r*, the largest crop ratio below 1 without an advantage; None if there is none in range."""
    low: float | None
    """Lower end of the ratios around r* at which the 95 % interval of the advantage contains 0; None if it is
    below the smallest ratio, or with one comparison."""
    high: float | None
    note: str

    def text(self) -> str:
        """`0.31 [0.22, 0.40]`, `0.12 [< 0.08, 0.20]`, or `none in range`."""
        if self.ratio is None:
            return "none in range"
        if self.high is None:
            return f"{self.ratio:.2f}"
        low = "< the smallest" if self.low is None else f"{self.low:.2f}"
        return f"{self.ratio:.2f} [{low}, {self.high:.2f}]"


def mean_points(points: Iterable[SetPoint]) -> list[MeanPoint]:
    """Means over the sets of each kind, by ascending ratio."""
    found = []
    for members in kinds(points):
        for ratio in sorted({p.ratio for p in members}):
            here = [p for p in members if p.ratio == ratio]
            entropy, nll = mean_of([p.entropy for p in here]), mean_of([p.nll for p in here])
            found.append(MeanPoint(here[0].key, ratio, entropy, nll))
    return found


def kinds(points: Iterable[SetPoint]) -> list[list[SetPoint]]:
    """The points grouped by kind of set (equal keys), in the order of the keys."""
    rows = [{**point.key, "point": point} for point in points]
    names = [name for name in rows[0] if name != "point"] if rows else []
    return [[row["point"] for row in members] for members in group(rows, names).values()]


def orders(points: Iterable[SetPoint]) -> list[Order]:
    """Every pair of kinds of sets of the same IPC, at every ratio (Proposition 4.1)."""
    found = []
    for one, other in _pairs(points):
        for ratio in _ratios(one, other):
            first, second = ([p for p in side if p.ratio == ratio] for side in (one, other))
            nll = _difference(*_by_seed(first, second, "nll"))
            if nll.value < 0:
                first, second = second, first
                nll = _difference(*_by_seed(first, second, "nll"))
            h, losses = _by_seed(first, second, "entropy"), _by_seed(first, second, "nll")
            shared = sorted(h[0].keys() & h[1].keys())
            opposed = sum((h[1][s] - h[0][s]) * (losses[1][s] - losses[0][s]) < 0 for s in shared)
            entropy = _difference(*h)
            found.append(Order(first[0].key, second[0].key, ratio, nll, entropy, len(shared), opposed))
    return found


def reversals(points: Iterable[SetPoint]) -> list[Reversal]:
    """Every pair of kinds of sets of the same IPC with whole images and crops (Theorem 4.2)."""
    found = []
    for one, other in _pairs(points):
        ratios = _ratios(one, other)
        if len(ratios) < 2 or ratios[-1] != 1:
            continue
        curves = _curves(one, other, ratios)
        if _advantage(curves, ratios, 1.0).value < 0:
            one, other = other, one
            curves = _curves(one, other, ratios)
        found.append(_reversal(one[0].key, other[0].key, curves, ratios))
    return found


Curves = Mapping[int, np.ndarray]
"""Entropy at each ratio, by replicate."""


def _reversal(
    one: Mapping[str, Any], other: Mapping[str, Any], curves: Sequence[Curves], ratios: Sequence[float]
) -> Reversal:
    whole = _advantage(curves, ratios, 1.0)
    means = [_advantage(curves, ratios, ratio).value for ratio in ratios]
    crossing = None
    for i in range(len(ratios) - 2, -1, -1):
        if means[i] <= 0:
            part = means[i] / (means[i] - means[i + 1]) if means[i + 1] != means[i] else 1.0
            crossing = ratios[i] + part * (ratios[i + 1] - ratios[i])
            break
    if whole.low is None or whole.high is None:
        return Reversal(one, other, whole, crossing, None, None, "one comparison: no interval")
    places = np.unique(
        np.concatenate([np.linspace(a, b, STEPS + 1) for a, b in itertools.pairwise(ratios)] + [[1.0]])
    )
    unsure = np.array([_contains_zero(_advantage(curves, ratios, float(place))) for place in places])
    if crossing is None:
        open_ = places[unsure]
        note = f"not excluded from {open_[0]:.2f} to {open_[-1]:.2f}" if len(open_) else ""
        return Reversal(one, other, whole, None, None, None, note)
    first = last = int(np.argmin(np.abs(places - crossing)))
    while first > 0 and unsure[first - 1]:
        first -= 1
    while last < len(places) - 1 and unsure[last + 1]:
        last += 1
    low = None if first == 0 else min(float(places[first]), crossing)
    note = "the advantage on whole images is within its interval" if _contains_zero(whole) else ""
    return Reversal(one, other, whole, crossing, low, max(float(places[last]), crossing), note)


def _contains_zero(mean: Mean) -> bool:
    return mean.low is not None and mean.high is not None and mean.low <= 0 <= mean.high


def _pairs(points: Iterable[SetPoint]) -> list[tuple[list[SetPoint], list[SetPoint]]]:
    """Every pair of kinds of sets with the same number of images per class."""
    return [
        (one, other)
        for one, other in itertools.combinations(kinds(points), 2)
        if one[0].key.get("images.ipc") == other[0].key.get("images.ipc")
    ]


def _ratios(one: Sequence[SetPoint], other: Sequence[SetPoint]) -> list[float]:
    return sorted({p.ratio for p in one} & {p.ratio for p in other})


def _by_seed(
    one: Sequence[SetPoint], other: Sequence[SetPoint], name: str
) -> tuple[dict[int, float], dict[int, float]]:
    """A measure of two kinds of sets by replicate, each pair of sets once.

    Replicates that share a set share its value; if they share it on both sides, they count as one comparison.
    """
    sets = [{seed: point for point in side for seed in point.seeds} for side in (one, other)]
    if sets[0].keys() == sets[1].keys():
        pairs = {(sets[0][seed].set_id, sets[1][seed].set_id): seed for seed in sorted(sets[0], reverse=True)}
        kept = [set(pairs.values())] * 2
    else:
        kept = [{min(point.seeds) for point in side} for side in (one, other)]
    first, second = (
        {seed: float(getattr(side[seed], name)) for seed in sorted(seeds)}
        for side, seeds in zip(sets, kept, strict=True)
    )
    return first, second


def _difference(one: Mapping[int, float], other: Mapping[int, float]) -> Mean:
    """other - one, paired if both have the same replicates."""
    return combined([Term(1, other), Term(-1, one)])


def _curves(one: Sequence[SetPoint], other: Sequence[SetPoint], ratios: Sequence[float]) -> list[Curves]:
    """Entropy of two kinds of sets at each ratio, by replicate."""
    at = []
    for ratio in ratios:
        first, second = ([p for p in side if p.ratio == ratio] for side in (one, other))
        at.append(_by_seed(first, second, "entropy"))
    return [{seed: np.array([here[side][seed] for here in at]) for seed in at[0][side]} for side in (0, 1)]


def _advantage(curves: Sequence[Curves], ratios: Sequence[float], ratio: float) -> Mean:
    """Entropy of the second minus that of the first at a ratio; linear between the measured ratios."""
    here = [{seed: float(np.interp(ratio, ratios, h)) for seed, h in side.items()} for side in curves]
    return _difference(*here)
