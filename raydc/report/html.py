"""The report: one HTML file that opens offline, made from the results table and the store."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raydc import __version__
from raydc.analysis.curves import Mean, finished, group, label_of, mean_of, varying_keys
from raydc.analysis.frontier import frontier
from raydc.analysis.laws import FORMULAS, Interval
from raydc.analysis.worth import Worth, worth
from raydc.analysis.worth import describe as describe_worth
from raydc.errors import InputError
from raydc.report import drawing, search_history
from raydc.report.figures import Figures, Scatter, all_figures
from raydc.report.label_figures import label_figures
from raydc.report.sheets import sheets
from raydc.result import FAILED, FINISHED, Row
from raydc.store import Store, write_atomically

MOST_TABLE_ROWS = 200
MOST_HEAT_MAPS = 12


@dataclass(frozen=True)
class Drawn:
    """A figure on the page."""

    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Table:
    """A table on the page; numbers are written already."""

    title: str
    note: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]


def percent(mean: Mean | None) -> str:
    """`62.9 % [61.8, 64.0]`."""
    if mean is None:
        return "-"
    text = f"{100 * mean.value:.1f} %"
    if mean.low is not None and mean.high is not None:
        text += f" [{100 * mean.low:.1f}, {100 * mean.high:.1f}]"
    return text


def interval(value: Interval, digits: int = 3) -> str:
    """`0.412 [0.380, 0.450]`."""
    text = f"{value.value:.{digits}f}"
    if value.low is not None and value.high is not None:
        text += f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    return text


def write_report(
    rows: Sequence[Row],
    path: Path,
    store: Store | None,
    command: str = "",
    history: search_history.History | None = None,
) -> Path:
    """Write the report of `rows` to `path`, and of a search its `history` (raydc.searching.read_history).

    Raises `InputError` if nothing is finished.
    """
    done = finished(rows)
    if not done and history is None:
        raise InputError("there is no finished evaluation to report; run the study first")
    figures = figures_of(done, store) if done else Figures()
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
        summary=summary_sentences(rows, answers, history),
        search=_search(history),
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
        tables=_search_tables(history) + _tables(rows, figures, answers),
        command=command,
    )
    write_atomically(path, page.encode())
    return path


def figures_of(rows: Sequence[Row], store: Store | None) -> Figures:
    """Every figure that the rows and, where it is at hand, the store can support."""
    figures = all_figures(rows)
    if store is not None:
        figures.labels, figures.similarity = label_figures(rows, store)
        figures.sheets = sheets(rows, store)
    return figures


def _worth(rows: Sequence[Row]) -> list[Worth]:
    """What labels are worth, where hard and soft ones are there to compare."""
    try:
        return worth(rows)
    except InputError:
        return []


def _search(history: search_history.History | None) -> list[Drawn]:
    """The figure of a search, where points were told."""
    lines = search_history.progress(history) if history is not None else None
    return (
        []
        if lines is None
        else [Drawn(lines.title, lines.caption, Markup(drawing.svg(drawing.lines(lines))))]
    )


def summary_sentences(
    rows: Sequence[Row], answers: Sequence[Worth], history: search_history.History | None = None
) -> list[str]:
    """What the numbers say, in sentences made from them."""
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
        sentences.append("With one replicate there are no intervals: nothing here shows its spread.")
    if history is not None:
        return sentences + search_history.sentences(history)
    keys = varying_keys(done)
    best_values, best = max(
        group(done, keys).items(),
        key=lambda item: sum(_quality(r) for r in item[1]) / len(item[1]),
    )
    chosen = dict(zip(keys, best_values, strict=True))
    accuracy = mean_of([r["test_acc"] for r in best])
    by = "validation" if best[0].get("val_acc") is not None else "test"
    sentences.append(
        f"The best configuration by {by} accuracy ({label_of(chosen)}) reaches {percent(accuracy)} on test."
    )
    if answers:
        # Plain random images are what labels are usually judged on; inside the data, a number is exact.
        told = max(
            answers,
            key=lambda w: (w.group.get("images.method") == "random", w.hard_ipc is not None, w.ipc),
        )
        sentences.append(f"What labels are worth: {describe_worth(told)}.")
    return sentences


def _quality(row: Row) -> float:
    value = row.get("val_acc")
    return float(value if value is not None else row["test_acc"])


def _drawn(figures: Figures) -> dict[str, list[Drawn]]:
    def draw(make: Any, items: Sequence[Any]) -> list[Drawn]:
        return [Drawn(f.title, f.caption, Markup(drawing.svg(make(f)))) for f in items]

    return {
        "curves": draw(drawing.lines, figures.curves),
        "laws": draw(drawing.laws, figures.laws),
        "heat": draw(drawing.heat, figures.heat[:MOST_HEAT_MAPS]),
        "frontier": draw(drawing.scatter, figures.frontier),
        "labels": draw(drawing.lines, figures.labels),
        "similarity": draw(drawing.heat, figures.similarity),
    }


def _tables(rows: Sequence[Row], figures: Figures, answers: Sequence[Worth]) -> list[Table]:
    tables = [*_law_tables(figures)]
    if answers:
        tables.append(_worth_table(answers))
    tables += [_frontier_table(scatter) for scatter in figures.frontier]
    if done := finished(rows):
        tables.append(_results_table(done))
    if any(row["status"] == FAILED for row in rows):
        tables.append(_failures_table(rows))
    return tables


def _search_tables(history: search_history.History | None) -> list[Table]:
    if history is None:
        return []
    several = len(history["metrics"]) > 1
    head, body = search_history.points(history)
    tables = [
        Table(
            "Pareto front of the search" if several else "Best points",
            "Points as they were told: means over replicates, on validation images.",
            head,
            body,
        )
    ]
    if history["importances"]:
        tables.append(
            Table(
                "What mattered",
                "Part of each key in what makes points good (PED-ANOVA, arXiv 2304.10255).",
                ("key", "importance"),
                tuple((key, f"{value:.2f}") for key, value in history["importances"].items()),
            )
        )
    return tables


def _law_tables(figures: Figures) -> list[Table]:
    return [
        Table(
            "Laws",
            "Parameters with 95 % intervals; p is the probability of points this far from the law if it "
            "holds; the last column is what the law, fitted without the largest IPC, gets wrong there.",
            ("curve", "law", "a", "b", "c", "rmse", "p", "largest IPC"),
            (
                *(
                    (
                        law.curve.label,
                        FORMULAS[law.form].format(x="IPC"),
                        interval(law.a),
                        interval(law.b),
                        "-" if law.c is None else interval(law.c),
                        f"{law.rmse:.4f}",
                        "-" if law.lack_of_fit is None else f"{law.lack_of_fit:.3f}",
                        "-" if law.holdout is None else f"{100 * law.holdout:+.1f} points",
                    )
                    for law in figure.laws
                ),
                *((fit.curve.label, fit.reason, *[""] * 6) for fit in figure.unfitted),
            ),
        )
        for figure in figures.laws
    ]


def _worth_table(answers: Sequence[Worth]) -> Table:
    return Table(
        "Worth",
        "Hard-labelled images a class that reach the accuracy of the soft labels, read off the hard "
        "labels' law inside their data.",
        ("group", "IPC", "labels", "soft", "hard", "hard-labelled images a class"),
        tuple(_worth_row(item) for item in answers),
    )


def _worth_row(item: Worth) -> tuple[str, ...]:
    answer = item.text()
    return (
        label_of(item.group),
        f"{item.ipc:g}",
        label_of(item.labels),
        percent(item.soft_acc),
        percent(item.hard_acc),
        answer if answer != "-" else item.note,
    )


def _frontier_table(scatter: Scatter) -> Table:
    best = [point for point in scatter.points if point.on_frontier]
    return Table(
        "Pareto frontier",
        "Configurations that no other beats at equal or smaller size.",
        ("configuration", "images, bytes", "labels, bytes", "test accuracy"),
        tuple(
            (p.label, f"{p.images_bytes:,.0f}", f"{p.labels_bytes:,.0f}", percent(p.test_acc)) for p in best
        ),
    )


def _results_table(rows: Sequence[Row]) -> Table:
    keys = varying_keys(rows)
    groups = group(rows, keys)
    body = []
    for values, members in list(groups.items())[:MOST_TABLE_ROWS]:
        teacher = members[0].get("teacher_test_acc")
        size = frontier(members, keys)[0].total_bytes if members[0].get("images_bytes") else None
        body.append(
            (
                *("-" if v is None else f"{v:g}" if isinstance(v, float) else str(v) for v in values),
                percent(mean_of([r["test_acc"] for r in members])),
                "-" if teacher is None else f"{100 * teacher:.1f} %",
                "-" if size is None else f"{size:,.0f}",
                str(len(members)),
            )
        )
    more = len(groups) - len(body)
    return Table(
        "Results",
        "Means over replicates with Student-t intervals."
        + (f" {more} more rows are in results.parquet." if more > 0 else ""),
        (*keys, "test accuracy", "teacher", "bytes", "replicates"),
        tuple(body),
    )


def _failures_table(rows: Sequence[Row]) -> Table:
    failed = [row for row in rows if row["status"] == FAILED]
    return Table(
        "Failures",
        "Evaluations that did not finish; `raydc run` tries them again.",
        ("evaluation", "error"),
        tuple((str(r["evaluation_id"]), str(r.get("error"))) for r in failed[:MOST_TABLE_ROWS]),
    )
