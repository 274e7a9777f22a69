"""A comparison as text tables: over all configurations, the winner at each IPC, and each configuration."""

from __future__ import annotations

from collections.abc import Sequence

from raydc.analysis.compare import TIE, Comparison, Versus, lower_is_better
from raydc.analysis.paired import Difference
from raydc.errors import one_of
from raydc.report.tables import Table

PERCENT = ("test_acc", "best_test_acc", "val_acc", "train_acc", "teacher_test_acc")
"""Measures that are fractions; their differences are shown in percentage points."""


def header(comparison: Comparison) -> list[str]:
    """Sentences on what was compared and how."""
    better = "lower" if lower_is_better(comparison.metric) else "higher"
    unit = ", differences in points" if comparison.metric in PERCENT else ""
    what = " and ".join(comparison.compared) or "the studies; no key differs"
    cells = sum(len(v.configurations) for v in comparison.versus)
    sentences = [
        f"Compared: {what}, by {comparison.metric} ({better} is better{unit}), replicates paired by seed."
    ]
    if comparison.tests:
        sentences.append(
            f"{comparison.tests} comparisons of configurations; 95 % intervals are Student's t from paired "
            "differences pooled over the configurations of a level; p-values are corrected by Holm in each "
            "table, and a difference counts (*) below 0.05."
        )
    else:
        sentences.append(f"{cells} configurations with one pair each: no intervals and no tests.")
    left_out = [
        (comparison.unmatched, "configurations without a match"),
        (comparison.unpaired, "replicates without a pair"),
        (comparison.shared, "pairs with the same evaluation on both sides"),
        (comparison.repeated, "results replaced by a later one of the same spec and seed"),
    ]
    counted = [f"{count} {text}" for count, text in left_out if count]
    if counted:
        sentences.append(f"Left out, summed over the levels: {', '.join(counted)}.")
    return sentences


def comparison_tables(comparison: Comparison) -> list[Table]:
    """The tables; the table of winners over IPC only if IPC was matched."""
    tables = [_overall(comparison)]
    if any(v.by_ipc for v in comparison.versus):
        tables.append(_winners(comparison))
    return [*tables, _configurations(comparison)]


def _overall(comparison: Comparison) -> Table:
    return Table(
        "Comparison",
        " ".join(header(comparison)),
        ("level", "baseline", "difference", "95 % interval", "p", "winner", "configurations", "pairs"),
        tuple(
            (
                v.level,
                v.baseline,
                *_difference_cells(comparison, v.overall),
                comparison.winner(v, v.overall) or "-",
                str(len(v.configurations)),
                str(v.overall.pairs),
            )
            for v in comparison.versus
        ),
    )


def _winners(comparison: Comparison) -> Table:
    """One row per level, one column per IPC."""
    places = sorted({ipc for v in comparison.versus for ipc in v.by_ipc})
    baselines = list(dict.fromkeys(v.baseline for v in comparison.versus))
    return Table(
        "Winner at each IPC",
        f"Against {one_of(baselines)}, over the configurations of each IPC: the winner and the "
        f"difference; {TIE}: not significant.",
        ("level", *(["baseline"] if len(baselines) > 1 else []), *(f"IPC {ipc:g}" for ipc in places)),
        tuple(
            (
                v.level,
                *([v.baseline] if len(baselines) > 1 else []),
                *(_winner_cell(comparison, v, v.by_ipc.get(ipc)) for ipc in places),
            )
            for v in comparison.versus
        ),
    )


def _winner_cell(comparison: Comparison, versus: Versus, difference: Difference | None) -> str:
    if difference is None:
        return "-"
    winner = comparison.winner(versus, difference) or "untested"
    return f"{winner} {_signed(difference.value, comparison.metric)}"


def _configurations(comparison: Comparison) -> Table:
    keys = comparison.keys()
    scale = 100 if comparison.metric in PERCENT else 1
    return Table(
        "Configurations",
        "Each matched configuration separately.",
        (
            *keys,
            "level",
            "baseline",
            "baseline mean",
            "level mean",
            "difference",
            "95 % interval",
            "p",
            "pairs",
        ),
        tuple(
            (
                *("-" if c.spec.get(key) is None else _plain(c.spec[key]) for key in keys),
                v.level,
                v.baseline,
                _number(scale * c.baseline, comparison.metric),
                _number(scale * c.level, comparison.metric),
                *_difference_cells(comparison, c.difference),
                str(c.difference.pairs),
            )
            for v in comparison.versus
            for c in v.configurations
        ),
    )


def _difference_cells(comparison: Comparison, difference: Difference) -> Sequence[str]:
    """Difference, interval and corrected p."""
    metric = comparison.metric
    value = _signed(difference.value, metric) + (" *" if difference.significant else "")
    if difference.low is None or difference.high is None or difference.p_adjusted is None:
        return value, "-", "-"
    p = difference.p_adjusted
    ends = f"[{_signed(difference.low, metric)}, {_signed(difference.high, metric)}]"
    return value, ends, "< 0.001" if p < 0.001 else f"{p:.3f}"


def _signed(value: float, metric: str) -> str:
    text = _number(100 * value if metric in PERCENT else value, metric)
    return text if text.startswith("-") else f"+{text}"


def _number(value: float, metric: str) -> str:
    return f"{value:.1f}" if metric in PERCENT else f"{value:.4g}"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
