"""Claims of a paper, checked on a results table: does one side score more than the other?

Where a paper draws a figure and prints no numbers, its sentence is what can be checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydc.analysis.curves import Mean, finished, mean_of, with_class_column
from raydc.spec.point import flat_value
from raydc.spec.result import Row


@dataclass(frozen=True)
class Contrast:
    """Two configurations of which one should score more."""

    measure: str
    """Column that is compared."""
    more: Mapping[str, Any]
    """Spec keys of the rows that should score more; null for a key that must not apply."""
    less: Mapping[str, Any]
    name: str = ""
    """What tells it from the other contrasts of a claim."""


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper: contrasts whose mean difference should be above 0, or above that of others."""

    name: str
    says: str
    contrasts: tuple[Contrast, ...]
    against: tuple[Contrast, ...] = ()
    """Contrasts whose mean difference should be the smaller one, instead of 0."""

    @property
    def points(self) -> list[dict[str, Any]]:
        """Spec keys of all configurations that it compares, without those that must not apply."""
        sides = [side for c in (*self.contrasts, *self.against) for side in (c.more, c.less)]
        return [{k: v for k, v in side.items() if v is not None} for side in sides]


@dataclass(frozen=True)
class Verdict:
    """What the results say of a claim."""

    more: float | None
    """Mean of the sides that should score more, over contrasts and replicates; None without results. Of a
    claim against other contrasts, the mean difference."""
    less: float | None
    """The same of the other sides, or of the other contrasts."""
    difference: Mean | None
    """Paired by seed, with its Student-t interval."""
    parts: tuple[Mean, ...] = ()
    """The difference of each contrast alone."""

    @property
    def holds(self) -> bool | None:
        """Whether the whole interval is above 0 (True), or below (False); None where 0 is inside."""
        if self.difference is None or self.difference.low is None or self.difference.high is None:
            return None
        if self.difference.low <= 0 <= self.difference.high:
            return None
        return self.difference.low > 0


def judge(claim: Claim, rows: Sequence[Row]) -> Verdict:
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
    """(more, less) by seed, of the seeds that have both."""
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
