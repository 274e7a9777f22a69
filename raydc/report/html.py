"""The report: one HTML file that works offline, made from the results table and the store."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raydc import __version__
from raydc.analysis.curves import finished, group, label_of, varying_keys
from raydc.analysis.exchange_rate import describe as describe_exchange_rate
from raydc.analysis.exchange_rate import exchange_rates, typical
from raydc.analysis.intervals import mean_of
from raydc.analysis.joint_laws import JointLaw
from raydc.analysis.worth import Worth, worth
from raydc.analysis.worth import describe as describe_worth
from raydc.errors import InputError
from raydc.files.atomic import write_atomically
from raydc.report import chart_data, drawing, search_history
from raydc.report.figures import Figures, JointFigure, all_figures
from raydc.report.label_figures import label_figures
from raydc.report.result_tables import mean_quality, tables
from raydc.report.sheets import sheets
from raydc.report.tables import percent
from raydc.report.trade_figures import envelopes, joint_figures
from raydc.spec.result import FAILED, FINISHED, Row
from raydc.store.artifact import Store

TEMPLATES = resources.files("raydc.report") / "templates"
MOST_HEAT_MAPS = 12


@dataclass(frozen=True)
class Drawn:
    """A figure on the page."""

    title: str
    caption: str
    svg: Markup
    """The static figure, for browsers without scripts and for papers."""
    chart: chart_data.Chart
    """The data of the interactive chart."""


def write_report(
    rows: Sequence[Row],
    path: Path,
    store: Store | None,
    command: str = "",
    pictures: Path | None = None,
    formats: Sequence[str] = ("png",),
    history: search_history.History | None = None,
) -> Path:
    """Write the report of `rows` to `path`, and its figures into the folder `pictures` if one is given.

    formats: formats of the pictures, from `drawing.FORMATS`. history: the search, as read by
    `raydc.search.history.read_history`. Raises `InputError` if no evaluation is finished.
    """
    done = finished(rows)
    if not done and history is None:
        raise InputError("there is no finished evaluation to report; run the study first")
    figures = figures_of(done, store) if done else Figures()
    figures.search = [] if history is None else search_history.progress(history)
    answers = _worth(done)
    environment = Environment(
        loader=PackageLoader("raydc.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = sorted({str(row["study"]) for row in rows})
    page = environment.get_template("report.html.j2").render(
        title=", ".join(names),
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        summary=summary_sentences(rows, answers, figures.joint, history),
        figures=_drawn(figures),
        heat_more=max(0, len(figures.heat) - MOST_HEAT_MAPS),
        sheets=[
            {
                "title": sheet.title,
                "caption": sheet.caption,
                "data": base64.b64encode(sheet.png).decode(),
            }
            for sheet in figures.sheets
        ],
        tables=tables(rows, figures, answers, history),
        missing=missing(figures),
        command=command,
        scripts=[Markup((TEMPLATES / name).read_text("utf-8")) for name in ("chart.js", "theme.js")],
    )
    write_atomically(path, page.encode())
    if pictures is not None:
        _save(figures, pictures, formats)
    return path


def _save(figures: Figures, folder: Path, formats: Sequence[str]) -> None:
    """Write every figure in each format, named as in the Python API; images as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = replace(figures, heat=figures.heat[:MOST_HEAT_MAPS])
    for name, figure in drawing.drawn(figures).items():
        for format_ in formats:
            drawing.save(figure, folder / f"{_file_name(name)}.{format_}")
    for sheet in figures.sheets:
        write_atomically(folder / f"{_file_name(f'images {sheet.title}')}.png", sheet.png)


def _file_name(title: str) -> str:
    return "-".join(re.findall(r"[A-Za-z0-9.]+", title))


def missing(figures: Figures) -> list[str]:
    """The figures that are missing, each with the reason."""
    reasons = {
        "curves and laws (one number of images only)": figures.curves,
        "heat maps (temperature and teacher epoch do not both vary)": figures.heat,
        "a frontier (one configuration only)": figures.frontier,
        "images (the compressed sets are not in a store that can be read from here)": figures.sheets,
    }
    return [reason for reason, drawn in reasons.items() if not drawn]


def figures_of(rows: Sequence[Row], store: Store | None) -> Figures:
    """All figures that the rows and, if it is given, the store have data for."""
    figures = all_figures(rows)
    figures.joint, figures.envelopes = joint_figures(rows), envelopes(rows)
    if store is not None:
        figures.labels, figures.similarity = label_figures(rows, store)
        figures.sheets = sheets(rows, store)
    return figures


def _worth(rows: Sequence[Row]) -> list[Worth]:
    """The worth of soft labels; empty if there are no hard and soft labels to compare."""
    try:
        return worth(rows)
    except InputError:
        return []  # hard and soft labels cannot be compared; `raydc worth` prints the reason


def summary_sentences(
    rows: Sequence[Row],
    answers: Sequence[Worth],
    joint: Sequence[JointFigure] = (),
    history: search_history.History | None = None,
) -> list[str]:
    """Sentences that summarise the results."""
    done = [row for row in rows if row["status"] == FINISHED]
    failed = sum(1 for row in rows if row["status"] == FAILED)
    seeds = len({row["seed"] for row in done})
    hours = sum(row.get("train_seconds") or 0 for row in done) / 3600
    sentences = [
        f"{len(done)} evaluations finished"
        + (f" and {failed} failed" if failed else "")
        + f", with {seeds} replicate{'s' if seeds != 1 else ''} and {hours:.2f} hours of student training."
    ]
    if seeds == 1:
        sentences.append("With one replicate there are no intervals: the spread is unknown.")
    if history is not None:
        return sentences + search_history.sentences(history)
    keys = varying_keys(done)
    best_values, best = max(
        group(done, keys).items(),
        key=lambda item: mean_quality(item[1]),
    )
    chosen = dict(zip(keys, best_values, strict=True))
    accuracy = mean_of([r["test_acc"] for r in best])
    by = "validation" if best[0].get("val_acc") is not None else "test"
    sentences.append(
        f"The best configuration by {by} accuracy ({label_of(chosen)}) reaches {percent(accuracy)} on test."
    )
    if answers:
        # Prefer random images, the usual baseline, and numbers inside the data, which are not bounds.
        shown = max(
            answers,
            key=lambda w: (w.group.get("images.method") == "random", w.hard_ipc is not None, w.ipc),
        )
        sentences.append(f"What labels are worth: {describe_worth(shown)}.")
    for law in (figure.found for figure in joint):
        if isinstance(law, JointLaw) and (item := typical(exchange_rates(law))) is not None:
            name = "" if law.surface.label == "all" else f" ({law.surface.label})"
            sentences.append(f"What label information is worth{name}: {describe_exchange_rate(item)}.")
    return sentences


def _drawn(figures: Figures) -> dict[str, list[Drawn]]:
    def draw(picture: Any, chart: Any, items: Sequence[Any]) -> list[Drawn]:
        return [Drawn(f.title, f.caption, Markup(drawing.svg(picture(f))), chart(f)) for f in items]

    return {
        "search": draw(drawing.lines, chart_data.lines, figures.search),
        "curves": draw(drawing.lines, chart_data.lines, figures.curves),
        "laws": draw(drawing.laws, chart_data.laws, figures.laws),
        "joint": draw(drawing.joint, chart_data.joint, figures.joint),
        "heat": draw(drawing.heat, chart_data.heat, figures.heat[:MOST_HEAT_MAPS]),
        "frontier": draw(drawing.scatter, chart_data.scatter, figures.frontier),
        "envelopes": draw(drawing.lines, chart_data.lines, figures.envelopes),
        "labels": draw(drawing.lines, chart_data.lines, figures.labels),
        "similarity": draw(drawing.heat, chart_data.heat, figures.similarity),
    }
