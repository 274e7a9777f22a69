"""The data of the figures, which raydc.report.drawing plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raydc.analysis.curves import (
    LABEL_BLOCKS,
    Curve,
    curves,
    finished,
    group,
    label_of,
    varying_keys,
    with_class_column,
)
from raydc.analysis.frontier import StoredPoint, frontier
from raydc.analysis.intervals import Mean
from raydc.analysis.joint_laws import JointLaw, NoJointLaw
from raydc.analysis.laws import Law, NoLaw, fit
from raydc.analysis.worth import choose_labels
from raydc.errors import InputError
from raydc.spec.result import Row


@dataclass(frozen=True)
class Series:
    """A line with an interval at each point."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    counts: tuple[int, ...]
    """Replicates of each point."""
    notes: tuple[str, ...] = ()
    """A note for each point, such as the chosen label keys."""


def series_of(label: str, x: Iterable[float], means: Sequence[Mean], notes: tuple[str, ...] = ()) -> Series:
    """A line through means."""
    return Series(
        label=label,
        x=tuple(map(float, x)),
        y=tuple(m.value for m in means),
        low=tuple(m.low for m in means),
        high=tuple(m.high for m in means),
        counts=tuple(m.count for m in means),
        notes=notes,
    )


@dataclass(frozen=True)
class Marked:
    """Highlighted points of other lines, joined in order."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    notes: tuple[str, ...]
    """Written above each point."""


@dataclass(frozen=True)
class Lines:
    """A measure over a key, such as accuracy over images per class."""

    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log: bool = True
    """Whether x is drawn on a logarithmic axis."""
    percent: bool = True
    """Whether y is a fraction."""
    marked: Marked | None = None


@dataclass(frozen=True)
class JointFigure:
    """Points over images, one line for each amount of label information, and the joint law."""

    title: str
    caption: str
    x_label: str
    y_label: str
    z_label: str
    found: JointLaw | NoJointLaw


@dataclass(frozen=True)
class LawFigure:
    """Points, fitted laws and their bands."""

    title: str
    caption: str
    x_label: str
    y_label: str
    laws: tuple[Law, ...]
    unfitted: tuple[NoLaw, ...]


@dataclass(frozen=True)
class Intervals:
    """Means with their intervals, one below the other."""

    x_label: str
    labels: tuple[str, ...]
    means: tuple[Mean, ...]


@dataclass(frozen=True)
class Heat:
    """Mean accuracy by two keys."""

    title: str
    caption: str
    x_label: str
    y_label: str
    x: tuple[Any, ...]
    y: tuple[Any, ...]
    values: tuple[tuple[float | None, ...], ...]
    """Fractions [len(y)][len(x)]; None for a missing cell."""


@dataclass(frozen=True)
class Scatter:
    """Accuracy over stored bytes, with the frontier."""

    title: str
    caption: str
    points: tuple[StoredPoint, ...]
    groups: tuple[str, ...]
    """Group of each point, which decides its colour."""


@dataclass(frozen=True)
class Sheet:
    """Some images of a compressed set, class by class."""

    title: str
    caption: str
    png: bytes


@dataclass
class Figures:
    """All figures of a report."""

    search: list[Lines] = field(default_factory=list)
    curves: list[Lines] = field(default_factory=list)
    heat: list[Heat] = field(default_factory=list)
    laws: list[LawFigure] = field(default_factory=list)
    joint: list[JointFigure] = field(default_factory=list)
    frontier: list[Scatter] = field(default_factory=list)
    envelopes: list[Lines] = field(default_factory=list)
    labels: list[Lines] = field(default_factory=list)
    similarity: list[Heat] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)


def all_figures(rows: Sequence[Row]) -> Figures:
    """All figures that the rows have data for; the caller adds those that need the store."""
    rows = finished(rows)
    figures = Figures()
    if not rows:
        return figures
    chosen = best_label_rows(rows)
    named = _named_curves(chosen)
    if any(len(curve.x) > 1 for curve in named):
        figures.curves.append(_accuracy_over_ipc(named, chosen))
        figures.laws.append(_law_figure(named))
    figures.heat += heat_maps(rows)
    points = frontier(rows, _frontier_keys(rows))
    if len(points) > 1:
        figures.frontier.append(_frontier_figure(points))
    return figures


def best_label_rows(rows: Sequence[Row]) -> list[Row]:
    """For each kind of labels and IPC, the rows of the label keys with the best validation accuracy.

    Without validation accuracy, all rows are kept.
    """
    shared = [k for k in varying_keys(rows) if not k.startswith(LABEL_BLOCKS)]
    keys = list(dict.fromkeys([*shared, "labels.kind", "images.ipc"]))
    kept: list[Row] = []
    for members in group(rows, keys).values():
        try:
            kept += choose_labels(members)[1]
        except InputError:
            kept += members
    return kept


def _named_curves(rows: Sequence[Row]) -> list[Curve]:
    """Accuracy over IPC of the chosen labels: one curve per label kind and value of the shared keys."""
    shared = [k for k in varying_keys(rows, ["images.ipc"]) if not k.startswith(LABEL_BLOCKS)]
    by = list(dict.fromkeys([*shared, "labels.kind"]))
    return curves(rows, by=by)


LEAST_RATIO = 8.0
"""An axis is logarithmic if the ratio of its largest to its smallest value is above this."""


def line_figure(rows: Sequence[Row], x: str, y: str, by: Sequence[str] | None) -> Lines:
    """y over x with error bars, a line for each value of the keys `by` (default: all that vary)."""
    found = curves(with_class_column(rows, y), x, y, by)
    if not found:
        raise InputError("there is no finished evaluation to draw; run the study first")
    places = [float(place) for curve in found for place in curve.x]
    fraction = all(0 <= value <= 1 for curve in found for part in curve.replicates for value in part)
    return Lines(
        title=f"{y} over {x}",
        caption="Bars are 95 % intervals from the spread of replicates, pooled over a line.",
        x_label=x,
        y_label=y,
        series=tuple(series_of(c.label, c.x, c.means_with_intervals()) for c in found),
        log=min(places) > 0 and max(places) / min(places) > LEAST_RATIO,
        percent=fraction,
    )


def _accuracy_over_ipc(named: Sequence[Curve], chosen: Sequence[Row]) -> Lines:
    series = [
        series_of(
            curve.label,
            curve.x,
            curve.means_with_intervals(),
            tuple(_chosen_note(curve, x, chosen) for x in curve.x),
        )
        for curve in named
    ]
    return Lines(
        title="Accuracy over images per class",
        caption=(
            "Test accuracy after the last step; bars are 95 % intervals from the spread of replicates, "
            "pooled over a curve. Label keys are chosen at each IPC by validation accuracy."
        ),
        x_label="images per class",
        y_label="test accuracy",
        series=tuple(series),
    )


def _chosen_note(curve: Curve, x: float, chosen: Sequence[Row]) -> str:
    members = [r for r in chosen if r["images.ipc"] == x and all(r.get(k) == v for k, v in curve.key.items())]
    keys = [k for k in varying_keys(chosen) if k.startswith(LABEL_BLOCKS) and k != "labels.kind"]
    return label_of({k: members[0].get(k) for k in keys}) if members and keys else ""


def _law_figure(named: Sequence[Curve]) -> LawFigure:
    fits = [fit(curve, "auto") for curve in named]
    return LawFigure(
        title="Scaling laws",
        caption=(
            "Least squares fits. For each curve, the form (power law, exponential or logarithm) with the "
            "smallest AICc. Bands are 95 % intervals from a parametric bootstrap with the pooled spread of "
            "replicates."
        ),
        x_label="images per class",
        y_label="test accuracy",
        laws=tuple(f for f in fits if isinstance(f, Law)),
        unfitted=tuple(f for f in fits if isinstance(f, NoLaw)),
    )


def heat_maps(
    rows: Sequence[Row], x: str = "labels.temperature", y: str = "labels.teacher_epoch"
) -> list[Heat]:
    """Mean test accuracy by temperature and teacher epoch, one map for each value of the other keys."""
    rows = [r for r in rows if r.get(x) is not None and r.get(y) is not None]
    shared = list(varying_keys(rows, [x, y])) if rows else []
    found = []
    for values, members in group(rows, shared).items():
        xs, ys = (sorted({r[k] for r in members}) for k in (x, y))
        if len(xs) < 2 or len(ys) < 2:
            continue
        cells = group(members, [y, x])
        found.append(
            Heat(
                title=label_of(dict(zip(shared, values, strict=True))),
                caption="Mean test accuracy over replicates.",
                x_label=x.partition(".")[2].replace("_", " "),
                y_label=y.partition(".")[2].replace("_", " "),
                x=tuple(xs),
                y=tuple(ys),
                values=tuple(
                    tuple(
                        float(np.mean([r["test_acc"] for r in cells[b, a]])) if (b, a) in cells else None
                        for a in xs
                    )
                    for b in ys
                ),
            )
        )
    return found


def _frontier_keys(rows: Sequence[Row]) -> list[str]:
    """The keys that distinguish configurations; the method and the kind of labels first, if they vary."""
    shown = [k for k in ("images.method", "labels.kind") if len({row.get(k) for row in rows}) > 1]
    return list(dict.fromkeys([*shown, *varying_keys(rows)]))


def _frontier_figure(points: Sequence[StoredPoint]) -> Scatter:
    names = [k for k in ("images.method", "labels.kind") if k in points[0].key]
    return Scatter(
        title="Accuracy over stored bytes",
        caption=(
            "Total size of encoded images and stored labels. The line is the Pareto frontier, decided by "
            "validation accuracy where it is available."
        ),
        points=tuple(points),
        groups=tuple(label_of({k: p.key[k] for k in names}) for p in points),
    )
