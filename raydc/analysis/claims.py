"""Claims of a paper, checked on a results table: does one side score more than the other?

If a paper has a figure and no numbers, only its statement can be checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydc.analysis.curves import finished, with_class_column
from raydc.analysis.intervals import Mean, mean_of
from raydc.spec.point import flat_value
from raydc.spec.result import Row


@dataclass(frozen=True)
class Contrast:
    """Two configurations, one of which should score more."""

    measure: str
    """Column of the results that is compared."""
    more: Mapping[str, Any]
    """Spec keys of the rows that should score more; None for a key that must not apply."""
    less: Mapping[str, Any]
    """Spec keys of the rows that should score less."""
    name: str = ""
    """Name that distinguishes it from the claim's other contrasts."""


@dataclass(frozen=True)
class Claim:
    """A statement of a paper: the mean difference of its contrasts is above 0, or above that of others."""

    name: str
    statement: str
    contrasts: tuple[Contrast, ...]
    against: tuple[Contrast, ...] = ()
    """Contrasts whose mean difference should be smaller; if empty, the comparison is with 0."""

    @property
    def points(self) -> list[dict[str, Any]]:
        """Spec keys of all compared configurations, without keys that must not apply."""
        sides = [side for c in (*self.contrasts, *self.against) for side in (c.more, c.less)]
        return [{k: v for k, v in side.items() if v is not None} for side in sides]


@dataclass(frozen=True)
class Verdict:
    """The result of checking a claim."""

    more: float | None
    """Mean of the sides that should score more, over contrasts and replicates; None without results. For a
    claim against other contrasts, the mean difference of its own contrasts."""
    less: float | None
    """The same for the other sides, or for the other contrasts."""
    difference: Mean | None
    """Mean difference, paired by seed, with its Student-t interval; None without results."""
    parts: tuple[Mean, ...] = ()
    """The difference of each contrast."""

    @property
    def holds(self) -> bool | None:
        """True if the whole interval is above 0, False if it is below, None if it contains 0."""
        if self.difference is None or self.difference.low is None or self.difference.high is None:
            return None
        if self.difference.low <= 0 <= self.difference.high:
            return None
        return self.difference.low > 0


def evaluate(claim: Claim, rows: Sequence[Row]) -> Verdict:
    """Compare the two sides of each contrast seed by seed; contrasts of one seed are averaged."""
    pairs = [_pairs(contrast, finished(rows)) for contrast in (*claim.contrasts, *claim.against)]
    seeds = sorted(set.intersection(*(set(found) for found in pairs)))
    if not seeds:
        return Verdict(None, None, None)
    table = np.array([[found[seed] for found in pairs] for seed in seeds])  # [seeds, contrasts, 2]
    differences = table[:, :, 0] - table[:, :, 1]
    parts = tuple(mean_of(part) for part in differences.T.tolist())
    if not claim.against:
        more, less = table.mean((0, 1))
        return Verdict(float(more), float(less), mean_of(differences.mean(1).tolist()), parts)
    own = differences[:, : len(claim.contrasts)].mean(1)
    others = differences[:, len(claim.contrasts) :].mean(1)
    return Verdict(float(own.mean()), float(others.mean()), mean_of((own - others).tolist()), parts)


def _pairs(contrast: Contrast, rows: Sequence[Row]) -> dict[int, tuple[float, float]]:
    """(more, less) by seed, for the seeds that have both."""
    rows = with_class_column(rows, contrast.measure)

    def side(where: Mapping[str, Any]) -> dict[int, float]:
        return {
            row["seed"]: row[contrast.measure]
            for row in rows
            if row.get(contrast.measure) is not None
            and all(row.get(k) == flat_value(v) for k, v in where.items())
        }

    more, less = side(contrast.more), side(contrast.less)
    return {seed: (more[seed], less[seed]) for seed in more.keys() & less.keys()}
