"""Figures drawn with matplotlib; text stays text, so that a page can style and search it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from raydc.analysis.entropy import MeanPoint
from raydc.analysis.intervals import Mean
from raydc.analysis.joint_laws import NoJointLaw
from raydc.report.figures import Figures, Heat, Intervals, JointFigure, LawFigure, Lines, Marked, Scatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
"""Okabe and Ito's palette, which is safe for colour-blind readers."""
MARKERS = "osD^vP*X"
MARKED = "#444444"
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "raydc",
    "pdf.fonttype": 42,
    "figure.dpi": 100,
}
APART = 1.025
"""Factor of x between error bars of different label information at the same number of images."""
WIDTH, HEIGHT = 7.2, 4.2
MOST_TICKS = 12
MOST_NUMBERS = 150
"""Most cells of a heat map with numbers in them; more could not be read."""
MOST_VECTORS = 2000
"""Most points that are drawn as vectors; more are rasterized, which bounds the size of an SVG or PDF."""


def svg(figure: Figure) -> str:
    """The figure as an <svg> element without an XML header; equal figures give equal text."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def save(figure: Figure, file: Path) -> None:
    """Write the figure in the format of the suffix of `file`; `ValueError` for an unknown one."""
    with mpl.rc_context(STYLE):
        figure.savefig(file, bbox_inches="tight", dpi=150)


FORMATS = ("png", "svg", "pdf")
"""Formats of `raydc report --format`."""


def _axes(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()


def _percent(axes: Axes, axis: str = "y") -> None:
    formatter = FuncFormatter(lambda value, _: f"{100 * value:g} %")
    getattr(axes, f"{axis}axis").set_major_formatter(formatter)


def _log_ticks(axes: Axes, places: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(list(places), [f"{place:g}" for place in places])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _byte_ticks(axes: Axes, low: float, high: float) -> None:
    """Ticks at 1, 2, 5 times powers of ten, written as B, kB, MB."""
    axes.set_xscale("log")
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    places = [s * 10.0**d for d in decades for s in steps if low / 1.2 <= s * 10.0**d <= high * 1.2]
    axes.set_xticks(places, [_bytes(place) for place in places])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:g} {unit}"
        count /= 1000
    return f"{count:g} GB"


def look(number: int) -> tuple[str, str]:
    """Colour and marker of a series; the pairs repeat after 64 series."""
    return COLOURS[number % len(COLOURS)], MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def _legend(axes: Axes, entries: int) -> None:
    if entries > 1:
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def lines(data: Lines) -> Figure:
    """Curves with error bars."""
    figure, axes = _axes()
    for number, series in enumerate(data.series):
        colour, marker = look(number)
        errors = None
        if all(value is not None for value in (*series.low, *series.high)):
            y = np.array(series.y)
            low, high = np.array(series.low, float), np.array(series.high, float)
            errors = np.array([y - low, high - y])
        axes.errorbar(
            series.x,
            series.y,
            yerr=errors,
            label=series.label,
            color=colour,
            marker=marker,
            markersize=5,
            capsize=2,
            linewidth=1.5,
        )
    places = sorted({x for series in data.series for x in series.x})
    if data.log:
        _log_ticks(axes, places)
    elif len(places) <= MOST_TICKS:
        axes.set_xticks(places, [f"{place:g}" for place in places])
    if data.percent:
        _percent(axes)
    axes.set(xlabel=data.x_label, ylabel=data.y_label)
    if data.marked is not None:
        _mark(axes, data.marked)
    _legend(axes, len(data.series) + (data.marked is not None))
    return figure


def _mark(axes: Axes, marked: Marked) -> None:
    """Draw rings around points, joined by a wide pale line, with notes above them."""
    axes.plot(marked.x, marked.y, color=MARKED, linewidth=6, alpha=0.2, solid_capstyle="round")
    axes.plot(marked.x, marked.y, "o", color=MARKED, fillstyle="none", markersize=11, label=marked.label)
    for x, y, note in zip(marked.x, marked.y, marked.notes, strict=True):
        axes.annotate(
            note,
            (x, y),
            (0, 10),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=MARKED,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )
    axes.margins(y=0.12)


def joint(data: JointFigure) -> Figure:
    """Points with error bars over images, and the joint law, one line per amount of label information."""
    figure, axes = _axes()
    found = data.found
    surface = found.surface
    law = found.inside if isinstance(found, NoJointLaw) else found
    means = surface.means_with_intervals()
    amounts = np.unique(surface.z)
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(amounts)))
    for number, (amount, colour) in enumerate(zip(amounts, shades, strict=True)):
        members = np.flatnonzero(surface.z == amount)
        x, y = surface.x[members], surface.means[members]
        fine = np.geomspace(x[0], x[-1], 200)
        if law is not None:
            at = np.full_like(fine, amount)
            axes.plot(fine, law.predict(fine, at), color=colour, linewidth=1.4)
            band = law.band(fine, at)
            if band is not None:
                axes.fill_between(fine, *band, color=colour, alpha=0.1, linewidth=0)
        highs = [means[i].high for i in members]
        errors = None if None in highs else np.array(highs, float) - y
        axes.errorbar(
            x * APART ** (number - (len(amounts) - 1) / 2),
            y,
            yerr=errors,
            fmt=MARKERS[number % len(MARKERS)],
            color=colour,
            markersize=5,
            capsize=2,
            label=f"{data.z_label} {amount:g}",
        )
    _log_ticks(axes, sorted({float(x) for x in surface.x}))
    _percent(axes)
    axes.set(xlabel=data.x_label, ylabel=data.y_label)
    _legend(axes, len(amounts))
    return figure


def intervals(data: Intervals) -> Figure:
    """Means with intervals, and a line at 0."""
    figure, axes = _axes(height=0.9 + 0.35 * len(data.labels))
    places = range(len(data.labels))
    axes.axvline(0, color="#444444", linewidth=1)
    for place, mean in zip(places, data.means, strict=True):
        if mean.low is not None and mean.high is not None:
            axes.plot([mean.low, mean.high], [place, place], color=COLOURS[0], linewidth=1.5)
        axes.plot(mean.value, place, "o", color=COLOURS[0], markersize=5)
    axes.set_yticks(places, data.labels)
    axes.invert_yaxis()
    _percent(axes, "x")
    axes.set(xlabel=data.x_label)
    return figure


def laws(data: LawFigure) -> Figure:
    """Points with fitted laws and bands; points without a law are drawn hollow."""
    figure, axes = _axes()
    number = 0
    for law in data.laws:
        colour, marker = look(number)
        x = law.curve.x
        fine = np.geomspace(x[0], x[-1], 200)
        band = law.band(fine)
        if band is not None:
            axes.fill_between(fine, *band, color=colour, alpha=0.15, linewidth=0)
        axes.plot(fine, law.predict(fine), color=colour, linewidth=1.5)
        axes.plot(x, law.curve.means, marker, color=colour, markersize=5, label=law.curve.label)
        number += 1
    for fit in data.unfitted:
        colour, marker = look(number)
        label = f"{fit.curve.label} (no fit)"
        x, y = fit.curve.x, fit.curve.means
        axes.plot(x, y, marker, color=colour, markersize=5, fillstyle="none", label=label)
        number += 1
    everything = [*(law.curve for law in data.laws), *(fit.curve for fit in data.unfitted)]
    _log_ticks(axes, sorted({float(x) for curve in everything for x in curve.x}))
    _percent(axes)
    axes.set(xlabel=data.x_label, ylabel=data.y_label)
    _legend(axes, number)
    return figure


def heat(data: Heat) -> Figure:
    """A heat map with a number in each cell, or with a colour bar if there are too many cells."""
    columns, rows = len(data.x), len(data.y)
    written = columns * rows <= MOST_NUMBERS
    size = (0.62, 0.4) if written else (0.3, 0.25)
    figure, axes = _axes(1.0 + size[0] * columns + (not written), 0.9 + size[1] * rows)
    values = np.array([[np.nan if v is None else v for v in row] for row in data.values])
    colours = axes.imshow(values, cmap="viridis", aspect="auto", origin="lower")
    axes.grid(visible=False)
    axes.set_xticks(range(columns), [f"{x:g}" for x in data.x])
    axes.set_yticks(range(rows), [f"{y:g}" for y in data.y])
    axes.set(xlabel=data.x_label, ylabel=data.y_label, title=data.title)
    axes.title.set_fontsize(9)
    if not written:
        figure.colorbar(colours, format=FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        return figure
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value < middle else "black"
            text = f"{100 * value:.1f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    return figure


def scatter(data: Scatter) -> Figure:
    """All configurations by size and accuracy; the frontier as a line."""
    figure, axes = _axes()
    names = list(dict.fromkeys(data.groups))
    for number, name in enumerate(names):
        colour, marker = look(number)
        members = [p for p, g in zip(data.points, data.groups, strict=True) if g == name]
        axes.plot(
            [p.total_bytes for p in members],
            [p.test_acc.value for p in members],
            marker,
            color=colour,
            markersize=4,
            alpha=0.6,
            label=name,
            rasterized=len(data.points) > MOST_VECTORS,
        )
    best = [p for p in data.points if p.on_frontier]
    axes.step(
        [p.total_bytes for p in best],
        [p.test_acc.value for p in best],
        where="post",
        color=MARKED,
        linewidth=1.2,
        label="frontier",
    )
    sizes = [p.total_bytes for p in data.points]
    _byte_ticks(axes, min(sizes), max(sizes))
    _percent(axes)
    axes.set(xlabel="stored bytes (images and labels)", ylabel="test accuracy")
    _legend(axes, len(names) + 1)
    return figure


def entropy(points: Sequence[MeanPoint]) -> Figure:
    """Entropy over the crop ratio, and entropy over NLL (arXiv 2502.06434, Figure 3); bars are over sets.

    In the second plot each kind of set is a line through its ratios, with a large marker for whole images.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.6 * WIDTH, HEIGHT), layout="constrained")
        over, plane = figure.subplots(1, 2)
    kinds = list(dict.fromkeys(point.label for point in points))
    for number, label in enumerate(kinds):
        colour, marker = look(number)
        members = [point for point in points if point.label == label]
        style: Any = {"color": colour, "marker": marker, "capsize": 2, "linewidth": 1.2}
        h, nll = [p.entropy for p in members], [p.nll for p in members]
        y = [mean.value for mean in h]
        over.errorbar([p.ratio for p in members], y, yerr=_bars(h), markersize=5, label=label, **style)
        plane.errorbar([mean.value for mean in nll], y, xerr=_bars(nll), yerr=_bars(h), markersize=3, **style)
        whole = [p for p in members if p.ratio == 1]
        plane.plot([p.nll.value for p in whole], [p.entropy.value for p in whole], marker, color=colour)
    over.set(xlabel="crop ratio (fraction of the area; 1 is the whole image)", ylabel="entropy H, nats")
    plane.set(xlabel="NLL, nats", ylabel="entropy H, nats")
    if len(kinds) > 1:
        figure.legend(fontsize=8, loc="outside right upper", frameon=False)
    return figure


def _bars(means: Sequence[Mean]) -> Any:
    """Distances [2, N] from the means to the ends of their intervals; None if a mean has no interval."""
    if any(mean.low is None or mean.high is None for mean in means):
        return None
    ends = np.array([(m.value, m.low, m.high) for m in means], float).T
    return np.array([ends[0] - ends[1], ends[2] - ends[0]])


def drawn(figures: Figures) -> dict[str, Figure]:
    """All figures by name, such as accuracy, laws, frontier, and a heat map for each group."""
    found: dict[str, Figure] = {}
    for name, make, items in (
        ("accuracy", lines, figures.curves),
        ("laws", laws, figures.laws),
        ("joint law", joint, figures.joint),
        ("frontier", scatter, figures.frontier),
        ("envelope", lines, figures.envelopes),
        ("labels", lines, figures.labels),
        ("similarity", heat, figures.similarity),
    ):
        draw: Any = make
        for number, item in enumerate(items):
            found[name if number == 0 else f"{name} {number + 1}"] = draw(item)
    for panel in figures.heat:
        found[f"heat: {panel.title}"] = heat(panel)
    return found
