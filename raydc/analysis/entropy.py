"""Entropy and NLL of compressed sets under a classifier: means, opposed orders, and where crops turn them.

Proposition 4.1 of arXiv 2502.06434: a lower NLL of one set than of another does not imply a lower entropy.
Theorem 4.2: there is a crop ratio r* at which random augmentation cancels or reverses the entropy
advantage that one set has over another while both are seen whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydc.analysis.contrast import Term, combined
from raydc.analysis.curves import Mean, group, label_of, mean_of

STEPS = 20
"""Places between two ratios at which the interval of r* is looked for."""


@dataclass(frozen=True)
class SetPoint:
    """What a classifier says of one compressed set at one crop ratio."""

    set_id: str
    key: Mapping[str, Any]
    """The keys that tell how the set was made, `images.method` and `images.ipc` among them."""
    seeds: tuple[int, ...]
    """Replicates that use the set."""
    ratio: float
    """Part of the image's area that is seen; 1 is the whole image."""
    entropy: float
    """Nats."""
    nll: float
    """Nats."""


@dataclass(frozen=True)
class MeanPoint:
    """Sets that were made alike, at one crop ratio; intervals are over sets."""

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
    """Of `other` minus that of `one`; never negative."""
    entropy: Mean
    """Of `other` minus that of `one`; negative where the entropy orders them the other way."""
    pairs: int
    """Two sets of one replicate that were compared."""
    opposed: int
    """Of these, how many are ordered one way by NLL and the other by entropy."""

    @property
    def disagrees(self) -> bool:
        """Whether the means are ordered one way by NLL and the other by entropy."""
        return self.entropy.value < 0 < self.nll.value

    @property
    def clear(self) -> bool:
        """Whether no interval of a difference holds 0."""
        return not (_holds_zero(self.nll) or _holds_zero(self.entropy))


@dataclass(frozen=True)
class Reversal:
    """Where random crops cancel the entropy advantage that `one` has over `other` on whole images."""

    one: Mapping[str, Any]
    other: Mapping[str, Any]
    advantage: Mean
    """Entropy of `other` minus that of `one`, whole images; nats."""
    ratio: float | None
    """r*, the largest crop ratio below 1 at which the advantage is gone; None if it never is in range."""
    low: float | None
    """Ratios around r* at which the 95 % interval of the advantage holds 0; None where it goes on below
    the smallest ratio, or with one comparison."""
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
    """Means over the sets of each kind, by rising ratio."""
    found = []
    for members in kinds(points):
        for ratio in sorted({p.ratio for p in members}):
            here = [p for p in members if p.ratio == ratio]
            entropy, nll = mean_of([p.entropy for p in here]), mean_of([p.nll for p in here])
            found.append(MeanPoint(here[0].key, ratio, entropy, nll))
    return found


def kinds(points: Iterable[SetPoint]) -> list[list[SetPoint]]:
    """The points of sets that were made alike, in the order of their keys."""
    rows = [{**point.key, "point": point} for point in points]
    names = [name for name in rows[0] if name != "point"] if rows else []
    return [[row["point"] for row in members] for members in group(rows, names).values()]


def orders(points: Iterable[SetPoint]) -> list[Order]:
    """Every two kinds of sets of one IPC, at every ratio (Proposition 4.1)."""
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
    """Every two kinds of sets of one IPC that were seen whole and in crops (Theorem 4.2)."""
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
"""Entropy over the ratios, by replicate."""


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
    unsure = np.array([_holds_zero(_advantage(curves, ratios, float(place))) for place in places])
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
    note = "the advantage on whole images is within its interval" if _holds_zero(whole) else ""
    return Reversal(one, other, whole, crossing, low, max(float(places[last]), crossing), note)


def _holds_zero(mean: Mean) -> bool:
    return mean.low is not None and mean.high is not None and mean.low <= 0 <= mean.high


def _pairs(points: Iterable[SetPoint]) -> list[tuple[list[SetPoint], list[SetPoint]]]:
    """Every two kinds of sets with equally many images a class."""
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
    """A measure of two kinds of sets by replicate, each two sets once.

    Replicates that share a set share its value; where both sides do, there is one comparison, and no spread.
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
    """other - one, replicate by replicate where they have the same."""
    return combined([Term(1, other), Term(-1, one)])


def _curves(one: Sequence[SetPoint], other: Sequence[SetPoint], ratios: Sequence[float]) -> list[Curves]:
    """Entropy of two kinds of sets over the ratios, by replicate."""
    at = []
    for ratio in ratios:
        first, second = ([p for p in side if p.ratio == ratio] for side in (one, other))
        at.append(_by_seed(first, second, "entropy"))
    return [{seed: np.array([here[side][seed] for here in at]) for seed in at[0][side]} for side in (0, 1)]


def _advantage(curves: Sequence[Curves], ratios: Sequence[float], ratio: float) -> Mean:
    """Entropy of the second minus that of the first at a ratio; linear between those that were measured."""
    here = [{seed: float(np.interp(ratio, ratios, h)) for seed, h in side.items()} for side in curves]
    return _difference(*here)
