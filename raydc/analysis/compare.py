"""Comparisons: configurations matched by their spec, replicates paired by their seed.

    sides -> levels -> matched configurations -> differences -> Student t, pooled -> Holm

Two sides are two studies, or two values of a key. A configuration of one side is matched with the
configuration of the other that is equal in all spec columns except the compared ones and those that apply
to one side only (a hard label has no temperature). If these free columns still distinguish configurations of
a side, each of their values is a separate level and is compared separately.

The differences of replicates are paired by seed; their standard deviation is pooled over the matched
configurations of two levels, as for the points of a curve. A family of comparisons (all
configurations, all IPC, all levels) is corrected by Holm's step-down procedure (Holm, Scandinavian
Journal of Statistics 6, 1979).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydc.analysis.curves import distinguishing_keys, finished, group, label_of, varying_keys
from raydc.analysis.intervals import degrees_of, pooled_deviation
from raydc.analysis.paired import Difference, adjusted, difference_of
from raydc.analysis.sides import Side
from raydc.errors import InputError, did_you_mean, one_of
from raydc.spec.result import MEASURES, Row, check_column, columns, is_spec_column

IPC = "images.ipc"
TIE = "tie"


@dataclass(frozen=True)
class Matched:
    """A configuration that exists at both levels."""

    spec: Mapping[str, Any]
    """The columns by which it was matched."""
    baseline: float
    """Mean of the baseline over the paired replicates."""
    level: float
    """Mean of the level over the paired replicates."""
    difference: Difference


@dataclass(frozen=True)
class Versus:
    """A level against its baseline."""

    baseline: str
    level: str
    overall: Difference
    """Mean difference over the matched configurations, with equal weights."""
    by_ipc: Mapping[Any, Difference]
    """The same for the configurations of each IPC; empty if IPC is not a matched column."""
    configurations: tuple[Matched, ...]


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison, with counts of what was left out."""

    metric: str
    compared: tuple[str, ...]
    """Columns that are compared."""
    versus: tuple[Versus, ...]
    unmatched: int = 0
    """Configurations that only one side has."""
    unpaired: int = 0
    """Replicates of matched configurations that only one side has."""
    shared: int = 0
    """Pairs with the same evaluation on both sides, which have no difference."""
    repeated: int = 0
    """Results replaced by a later result of the same spec and seed."""

    @property
    def tests(self) -> int:
        """Number of tested configurations, the size of the family in Holm's correction."""
        return sum(c.difference.p is not None for v in self.versus for c in v.configurations)

    def keys(self) -> list[str]:
        """Columns that distinguish the matched configurations."""
        return varying_keys([dict(c.spec) for v in self.versus for c in v.configurations])

    def winner(self, versus: Versus, difference: Difference) -> str | None:
        """The better of two levels, `tie` if the difference is not significant, None if untested."""
        if difference.p_adjusted is None:
            return None
        if not difference.significant:
            return TIE
        higher = difference.value > 0
        return versus.level if higher != lower_is_better(self.metric) else versus.baseline


def lower_is_better(metric: str) -> bool:
    """Whether smaller values of a measure are better: losses, times and sizes."""
    return metric.endswith(("_loss", "_seconds", "_bytes")) or metric == "steps"


def compare(sides: Sequence[Side], metric: str = "test_acc", by: Sequence[str] | None = None) -> Comparison:
    """Compare the first side, the baseline, with each of the others.

    `by` names the compared columns; by default those in which the two sides share no value.
    Raises `InputError` for an unknown metric, a side without results, and sides without a match.
    """
    _check_metric([row for side in sides for row in side.rows], metric)
    baseline, *others = (_counted(side, metric) for side in sides)
    parts = [_compare_two(baseline, other, metric, by) for other in others]
    found = Comparison(
        metric,
        tuple(dict.fromkeys(key for part in parts for key in part.compared)),
        _corrected([versus for part in parts for versus in part.versus]),
        unmatched=sum(part.unmatched for part in parts),
        unpaired=sum(part.unpaired for part in parts),
        shared=sum(part.shared for part in parts),
        repeated=sum(part.repeated for part in parts),
    )
    if not found.versus:
        raise InputError(_nothing_matched(baseline, others, found))
    return found


def _check_metric(rows: Sequence[Row], metric: str) -> None:
    if metric not in MEASURES:
        raise InputError(
            f"--metric is {metric!r}, but must be {one_of(MEASURES)}{did_you_mean(metric, MEASURES)}"
        )
    if rows:
        check_column(rows, metric, numeric=True)


def _counted(side: Side, metric: str) -> Side:
    """The side's finished rows that have a value of the metric."""
    rows = [row for row in finished(side.rows) if row.get(metric) is not None]
    if not rows:
        raise InputError(
            f"{side.name} has no finished evaluation with {metric}, so there is nothing to compare"
        )
    return Side(side.name, rows)


def _nothing_matched(baseline: Side, others: Sequence[Side], found: Comparison) -> str:
    if found.shared:
        return (
            f"all {found.shared} pairs are the same evaluation on both sides, so there is nothing to compare"
        )
    apart = _apart(baseline.rows, others[0].rows, _spec_names([*baseline.rows, *others[0].rows]))
    apart = [key for key in apart if key not in found.compared]
    reason = (
        f"they share no value of {one_of(apart)}; add it to --by" if apart else "they share no configuration"
    )
    return (
        f"no configuration of {others[0].name} matches one of {baseline.name} with a seed in common: {reason}"
    )


def _spec_names(rows: Sequence[Row]) -> list[str]:
    """Spec columns in which at least one row has a value."""
    given = {key for row in rows for key, value in row.items() if value is not None}
    return [name for name in columns(rows) if is_spec_column(name) and name in given]


def _values(rows: Sequence[Row], name: str) -> set[Any]:
    """The values of a column, without None."""
    found = (row.get(name) for row in rows)
    return {tuple(v) if isinstance(v, list) else v for v in found if v is not None}


def _apart(first: Sequence[Row], second: Sequence[Row], names: Iterable[str]) -> list[str]:
    """Columns in which both have values but share none."""
    found = []
    for name in names:
        one, other = _values(first, name), _values(second, name)
        if one and other and not one & other:
            found.append(name)
    return found


def _compare_two(baseline: Side, other: Side, metric: str, by: Sequence[str] | None) -> Comparison:
    """Compare every level of one side with every level of the other, without correction."""
    names = _spec_names([*baseline.rows, *other.rows])
    compared = list(by) if by is not None else _apart(baseline.rows, other.rows, names)
    alone = [n for n in names if bool(_values(baseline.rows, n)) != bool(_values(other.rows, n))]
    free = [name for name in names if name in compared or name in alone]
    fixed = [name for name in names if name not in free]
    found = Comparison(metric, tuple(compared), ())
    for first in _levels(baseline, free, fixed):
        for second in _levels(other, free, fixed):
            found = _add(found, first, second, fixed)
    return found


def _levels(side: Side, free: Sequence[str], fixed: Sequence[str]) -> list[Side]:
    """The levels of a side: one for each value of the free columns that distinguish its configurations."""
    keys = distinguishing_keys(side.rows, free, fixed)
    found = []
    for values, rows in group(side.rows, keys).items():
        label = label_of(dict(zip(keys, values, strict=True)))
        found.append(Side(f"{side.name}, {label}" if label != "all" else side.name, rows))
    return found


def _add(found: Comparison, first: Side, second: Side, fixed: Sequence[str]) -> Comparison:
    """Add the comparison of two levels to `found`."""
    ones, others = group(first.rows, fixed), group(second.rows, fixed)
    matched: list[Pairs] = []
    unmatched = len(ones.keys() ^ others.keys())
    unpaired = shared = repeated = 0
    for values in (values for values in ones if values in others):
        one, other = _by_seed(ones[values]), _by_seed(others[values])
        seeds = sorted(one.keys() & other.keys())
        different = [s for s in seeds if one[s]["evaluation_id"] != other[s]["evaluation_id"]]
        if different:
            pairs = np.array([[row[s][found.metric] for s in different] for row in (one, other)], np.float64)
            matched.append(Pairs(dict(zip(fixed, values, strict=True)), pairs))
        unmatched += not seeds
        unpaired += len(one.keys() ^ other.keys())
        shared += len(seeds) - len(different)
        repeated += len(ones[values]) + len(others[values]) - len(one) - len(other)
    return replace(
        found,
        versus=(*found.versus, _versus(first.name, second.name, matched)) if matched else found.versus,
        unmatched=found.unmatched + unmatched,
        unpaired=found.unpaired + unpaired,
        shared=found.shared + shared,
        repeated=found.repeated + repeated,
    )


@dataclass(frozen=True)
class Pairs:
    """A matched configuration with its paired replicates."""

    spec: Mapping[str, Any]
    values: NDArray[np.float64]
    """[2, pairs], the baseline first."""

    @property
    def differences(self) -> NDArray[np.float64]:
        difference: NDArray[np.float64] = self.values[1] - self.values[0]
        return difference


def _by_seed(rows: Sequence[Row]) -> dict[Any, Row]:
    """The latest result of each seed."""
    return {row["seed"]: row for row in sorted(rows, key=lambda row: row.get("finished_at") or 0.0)}


def _versus(baseline: str, level: str, matched: Sequence[Pairs]) -> Versus:
    differences = [pairs.differences for pairs in matched]
    deviation, degrees = pooled_deviation(differences), degrees_of(differences)

    def mean(members: Sequence[Pairs]) -> Difference:
        return difference_of([pairs.differences for pairs in members], deviation, degrees)

    places: dict[Any, list[Pairs]] = {}
    for pairs in matched:
        if pairs.spec.get(IPC) is not None:
            places.setdefault(pairs.spec[IPC], []).append(pairs)
    configurations = [
        Matched(p.spec, float(p.values[0].mean()), float(p.values[1].mean()), mean([p])) for p in matched
    ]
    by_ipc = {ipc: mean(places[ipc]) for ipc in sorted(places)}
    return Versus(baseline, level, mean(matched), by_ipc, tuple(configurations))


def _corrected(versus: Sequence[Versus]) -> tuple[Versus, ...]:
    """The comparisons with p-values adjusted in their three families."""
    overall = iter(adjusted([v.overall for v in versus]))
    by_ipc = iter(adjusted([d for v in versus for d in v.by_ipc.values()]))
    cells = iter(adjusted([c.difference for v in versus for c in v.configurations]))
    return tuple(
        replace(
            v,
            overall=next(overall),
            by_ipc={ipc: next(by_ipc) for ipc in v.by_ipc},
            configurations=tuple(replace(c, difference=next(cells)) for c in v.configurations),
        )
        for v in versus
    )


def as_rows(comparison: Comparison) -> list[Row]:
    """One row per difference; `scope` is overall, ipc or configuration."""
    keys = comparison.keys()

    def row(scope: str, versus: Versus, d: Difference, spec: Mapping[str, Any], cell: Matched | None) -> Row:
        return {
            "scope": scope,
            "baseline": versus.baseline,
            "level": versus.level,
            **{key: spec.get(key) for key in dict.fromkeys([*keys, IPC])},
            "metric": comparison.metric,
            "baseline_mean": cell.baseline if cell else None,
            "level_mean": cell.level if cell else None,
            "difference": d.value,
            "difference_low": d.low,
            "difference_high": d.high,
            "p": d.p,
            "p_adjusted": d.p_adjusted,
            "significant": d.significant if d.p is not None else None,
            "winner": comparison.winner(versus, d),
            "pairs": d.pairs,
        }

    rows = [row("overall", v, v.overall, {}, None) for v in comparison.versus]
    rows += [row("ipc", v, d, {IPC: ipc}, None) for v in comparison.versus for ipc, d in v.by_ipc.items()]
    rows += [
        row("configuration", v, c.difference, c.spec, c) for v in comparison.versus for c in v.configurations
    ]
    return rows
