"""The figures as JSON data, which templates/chart.js draws on the page.

A chart is {kind: "xy", title, x, y, series} or {kind: "heat", title, x, y, values}. An axis of an xy chart is
{label, format (number, percent, bytes), log, places (preferred ticks)}, of a heat map {label,
names}. A series is {label, light, dark (colours on white and on black), marker} with any of `points` {x, y,
low, high, count, note, bars (whether intervals are drawn), apart (factor by which x is shifted)}, `line`
{x, y}, `band` {x, low, high}, and the flags hollow and wide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

from raydc.analysis.curves import Points
from raydc.analysis.frontier import StoredPoint
from raydc.analysis.intervals import Mean
from raydc.analysis.joint_laws import NoJointLaw
from raydc.report.drawing import APART, COLOURS, MARKED, look
from raydc.report.figures import Heat, JointFigure, LawFigure, Lines, Scatter

Chart: TypeAlias = dict[str, Any]
"""A JSON object without NaN."""
ON_BLACK = ("#4AA3DF", "#F28E4B", "#2DC59B", "#E3A0C6", "#F2B84B", "#9AD1F5", "#A9A9A9", "#FFFFFF")
"""COLOURS, lightened for a dark page."""
MARKED_ON_BLACK = "#BBBBBB"
DIGITS = 6
"""Significant digits of a number; a screen does not resolve more."""
CURVE_POINTS = 60
"""Points of a plotted law."""


def lines(data: Lines) -> Chart:
    """Means over a key, joined in order."""
    series = []
    for number, one in enumerate(data.series):
        points = _points(one.x, one.y, one.low, one.high, one.counts, one.notes)
        series.append(_series(one.label, number, points=points, line=_xy(one.x, one.y)))
    if data.marked is not None:
        marked = data.marked
        points = _points(marked.x, marked.y, note=marked.notes)
        look_of = {"light": MARKED, "dark": MARKED_ON_BLACK, "marker": "o", "hollow": True, "wide": True}
        line = _xy(marked.x, marked.y)
        series.append({"label": marked.label, **look_of, "points": points, "line": line})
    places = sorted({x for one in data.series for x in one.x})
    x = _axis(data.x_label, log=data.log, places=places)
    return _chart(data.title, x, _axis(data.y_label, "percent" if data.percent else "number"), series)


def laws(data: LawFigure) -> Chart:
    """Points with fitted laws and bands; points without a law are hollow."""
    series: list[dict[str, Any]] = []
    for law in data.laws:
        x = np.geomspace(law.curve.x[0], law.curve.x[-1], CURVE_POINTS)
        fitted = {"line": _xy(x, law.predict(x)), "band": _band(x, law.band(x))}
        series.append(_series(law.curve.label, len(series), points=_means(law.curve.x, law.curve), **fitted))
    for fit in data.unfitted:
        points = _means(fit.curve.x, fit.curve)
        series.append(_series(f"{fit.curve.label} (no fit)", len(series), points=points, hollow=True))
    curves = [*(law.curve for law in data.laws), *(fit.curve for fit in data.unfitted)]
    places = sorted({float(x) for curve in curves for x in curve.x})
    return _chart(
        data.title, _axis(data.x_label, log=True, places=places), _axis(data.y_label, "percent"), series
    )


def joint(data: JointFigure) -> Chart:
    """Points over images and the joint law, one line for each amount of label information."""
    found = data.found
    surface = found.surface
    law = found.inside if isinstance(found, NoJointLaw) else found
    amounts = np.unique(surface.z)
    map_of = mpl.colormaps["viridis"]
    series = []
    for number, amount in enumerate(amounts):
        part = surface.part(surface.z == amount)
        place = number / max(1, len(amounts) - 1)
        colours = {"light": to_hex(map_of(0.85 * place)), "dark": to_hex(map_of(0.3 + 0.7 * place))}
        drawn: dict[str, Any] = {}
        if law is not None:
            x = np.geomspace(part.x[0], part.x[-1], CURVE_POINTS)
            z = np.full_like(x, amount)
            drawn = {"line": _xy(x, law.predict(x, z)), "band": _band(x, law.band(x, z))}
        points = _means(part.x, surface, surface.z == amount)
        points["apart"] = APART ** (number - (len(amounts) - 1) / 2)
        one = _series(f"{data.z_label} {amount:g}", number, points=points, **drawn)
        series.append({**one, **colours})
    places = sorted({float(x) for x in surface.x})
    return _chart(
        data.title, _axis(data.x_label, log=True, places=places), _axis(data.y_label, "percent"), series
    )


def scatter(data: Scatter) -> Chart:
    """All configurations by size and accuracy, and the frontier as steps."""
    series = []
    for number, name in enumerate(dict.fromkeys(data.groups)):
        members = [p for p, group in zip(data.points, data.groups, strict=True) if group == name]
        series.append(_series(name, number, points=_stored(members)))
    best = [p for p in data.points if p.on_frontier]
    x = np.repeat([p.total_bytes for p in best], 2)[1:]
    y = np.repeat([p.test_acc.value for p in best], 2)[:-1]
    series.append({"label": "frontier", "light": MARKED, "dark": MARKED_ON_BLACK, "line": _xy(x, y)})
    return _chart(
        data.title,
        _axis("stored bytes (images and labels)", "bytes", log=True),
        _axis("test accuracy", "percent"),
        series,
    )


def heat(data: Heat) -> Chart:
    """A heat map."""
    return {
        "kind": "heat",
        "title": data.title,
        "x": {"label": data.x_label, "names": [f"{x:g}" for x in data.x]},
        "y": {"label": data.y_label, "names": [f"{y:g}" for y in data.y]},
        "values": [_numbers(row) for row in data.values],
    }


def _chart(title: str, x: dict[str, Any], y: dict[str, Any], series: list[dict[str, Any]]) -> Chart:
    return {"kind": "xy", "title": title, "x": x, "y": y, "series": series}


def _axis(
    label: str, format_: str = "number", *, log: bool = False, places: Sequence[float] = ()
) -> dict[str, Any]:
    return {"label": label, "format": format_, "log": log, "places": _numbers(places)}


def _series(label: str, number: int, **parts: Any) -> dict[str, Any]:
    """A series with the colours and marker of its number; parts that are None are left out."""
    colour, marker = look(number)
    dark = ON_BLACK[COLOURS.index(colour)]
    given = {key: part for key, part in parts.items() if part is not None}
    return {"label": label, "light": colour, "dark": dark, "marker": marker, **given}


def _points(
    x: Iterable[float],
    y: Iterable[float],
    low: Sequence[float | None] = (),
    high: Sequence[float | None] = (),
    count: Sequence[int] = (),
    note: Sequence[str] = (),
) -> dict[str, Any]:
    """Points by column; empty columns are left out."""
    columns: dict[str, Any] = {**_xy(x, y), "count": list(count)}
    if any(end is not None for end in low):
        columns |= {"low": _numbers(low), "high": _numbers(high)}
    if any(note):
        columns["note"] = list(note)
    return {name: column for name, column in columns.items() if column}


def _means(x: Iterable[float], found: Points, chosen: Any = None) -> dict[str, Any]:
    """Means of a curve or of a part of a surface, with intervals from the spread of all its points."""
    means = found.means_with_intervals()
    if chosen is not None:
        means = [mean for mean, keep in zip(means, chosen, strict=True) if keep]
    return _with_intervals(x, means)


def _with_intervals(x: Iterable[float], means: Sequence[Mean], note: Sequence[str] = ()) -> dict[str, Any]:
    low, high = [m.low for m in means], [m.high for m in means]
    return _points(x, [m.value for m in means], low, high, [m.count for m in means], note)


def _stored(points: Sequence[StoredPoint]) -> dict[str, Any]:
    """Configurations; their intervals are shown on hover only, because there are many."""
    points_and_intervals = _with_intervals(
        [p.total_bytes for p in points], [p.test_acc for p in points], [p.label for p in points]
    )
    return {**points_and_intervals, "bars": False}


def _xy(x: Iterable[float], y: Iterable[float]) -> dict[str, Any]:
    return {"x": _numbers(x), "y": _numbers(y)}


def _band(x: Iterable[float], ends: tuple[Any, Any] | None) -> dict[str, Any] | None:
    return None if ends is None else {"x": _numbers(x), "low": _numbers(ends[0]), "high": _numbers(ends[1])}


def _numbers(values: Iterable[float | None]) -> list[float | None]:
    """Numbers rounded to DIGITS significant digits; None for NaN and infinity."""
    return [None if v is None or not np.isfinite(v) else float(f"{v:.{DIGITS}g}") for v in values]
