"""The tables of the report, one function each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from raydc.analysis.compare import compare
from raydc.analysis.curves import finished, group, label_of, mean_of, varying_keys
from raydc.analysis.ddranking import Ranking, ddranking
from raydc.analysis.exchange_rate import exchange_rates
from raydc.analysis.frontier import frontier, image_frontier
from raydc.analysis.joint_laws import FORMULAS as FORMULAS_OF_BOTH
from raydc.analysis.joint_laws import JointLaw, NoJointLaw
from raydc.analysis.laws import FORMULAS
from raydc.analysis.sides import levels
from raydc.analysis.worth import Worth
from raydc.errors import InputError
from raydc.report import search_history
from raydc.report.comparison import comparison_tables
from raydc.report.figures import Figures, Scatter
from raydc.report.tables import Table, interval, percent, points
from raydc.spec.result import FAILED, Row

MOST_TABLE_ROWS = 200
MOST_LEVELS = 24
"""Levels of a key that the report compares; more are left to `raydc compare`."""


def parameters(law: JointLaw) -> str:
    """`a 0.809 [0.780, 0.868], c 0.958 [0.525, 1.520], ...`."""
    return ", ".join(f"{name} {interval(value)}" for name, value in law.parameters().items())


def missed(law: JointLaw) -> str:
    """What a joint law gets wrong at the largest n: `+0.4 points (rms 0.9)`."""
    if law.holdout is None:
        return "-"
    size = float(np.sqrt((law.holdout**2).mean()))
    return f"{100 * float(law.holdout.mean()):+.1f} points (rms {100 * size:.1f})"


def tables(
    rows: Sequence[Row],
    figures: Figures,
    answers: Sequence[Worth],
    history: search_history.History | None = None,
) -> dict[str, list[Table]]:
    """The tables of each section of the report; a section that the data do not allow has none."""
    ranked, done = _ranked(rows), finished(rows)
    return {
        "search": search_tables(history),
        "laws": _law_tables(figures),
        "joint": _joint_tables(figures),
        "frontier": [_frontier_table(scatter) for scatter in figures.frontier],
        "envelope": [_image_frontier_table(rows)] if figures.envelopes else [],
        "worth": [_worth_table(answers)] if answers else [],
        "compare": [*_comparisons(rows), *([_ranking_table(ranked)] if ranked else [])],
        "results": [results_table(done)] if done else [],
        "failures": [_failures_table(rows)] if any(row["status"] == FAILED for row in rows) else [],
    }


FINALS_NOTE = " In the finals: mean and 95 % interval of all replicates of a finalist, the further ones too."


def search_tables(history: search_history.History | None) -> list[Table]:
    """The best points of a search and what mattered; none without one."""
    if history is None:
        return []
    several = len(history["metrics"]) > 1
    head, body = search_history.points(history)
    tables = [
        Table(
            "Pareto front of the search" if several else "Best points",
            "Points as they were told: means over replicates, on validation images."
            + (FINALS_NOTE if search_history.finals_of(history) else ""),
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


def _joint_tables(figures: Figures) -> list[Table]:
    if not figures.joint:
        return []
    laws = [figure.found for figure in figures.joint]
    found = [
        Table(
            "Joint laws",
            "Accuracy over n images a class and k kept label entries; the form with the smallest AICc. The "
            "last column is what the law, fitted without the largest n, gets wrong there: the mean and the "
            "root mean square over k.",
            ("points", "law", "parameters", "rmse", "largest n", "note"),
            tuple(_joint_row(law) for law in laws),
        )
    ]
    answers = [(law.surface.label, item) for law in laws for item in exchange_rates(law)]
    if answers:
        found.append(
            Table(
                "What twice the label entries are worth",
                "Images a class with k entries that do as well as n with 2 k, read off the joint law inside "
                "its data.",
                ("points", "n", "entries", "gain, points", "images"),
                tuple(
                    (name, f"{item.n:g}", f"{item.k:g} to {2 * item.k:g}", points(item.gain), item.text())
                    for name, item in answers[:MOST_TABLE_ROWS]
                ),
            )
        )
    return found


def _joint_row(found: JointLaw | NoJointLaw) -> tuple[str, ...]:
    """One joint law; only what is good inside the data where its limit is unknown."""
    name = found.surface.label
    if isinstance(found, JointLaw):
        law, known, note = found, parameters(found), ""
    elif found.inside is None:
        return (name, "-", "-", "-", "-", found.reason)
    else:
        law, known, note = found.inside, "-", f"inside the data only: {found.reason}"
    formula = FORMULAS_OF_BOTH[law.form].format(x="n", z="k")
    return (name, formula, known, f"{law.rmse:.4f}", missed(law), note)


def _worth_table(answers: Sequence[Worth]) -> Table:
    return Table(
        "Worth",
        "Hard-labelled images a class that reach the accuracy of the soft labels, read off the hard "
        "labels' law inside their data." + _more(len(answers), "printed by `raydc worth`"),
        ("group", "IPC", "labels", "soft", "hard", "hard-labelled images a class"),
        tuple(_worth_row(item) for item in answers[:MOST_TABLE_ROWS]),
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


def _more(count: int, where: str) -> str:
    """Where the rest of a table is that would be too long for a page."""
    return f" {count - MOST_TABLE_ROWS} more are {where}." if count > MOST_TABLE_ROWS else ""


def _ranked(rows: Sequence[Row]) -> list[Ranking]:
    """DD-Ranking's scores, if any method has random images to be compared with."""
    try:
        return [item for item in ddranking(rows) if item.ior is not None]
    except InputError:
        return []  # there is no method to score; `raydc ddranking` says so


def _ranking_table(ranked: Sequence[Ranking]) -> Table:
    return Table(
        "DD-Ranking",
        "IOR: improvement over random images under the same labels and recipe. ARS: augmentation-robust "
        "score, of points with augmentation. HLR and LRS need the accuracy of the full dataset: "
        "raydc ddranking DIR --full-acc FRACTION." + _more(len(ranked), "printed by `raydc ddranking`"),
        ("method", "test accuracy", "IOR", "ARS"),
        tuple(
            (r.label, percent(r.test_acc), percent(r.ior), percent(r.ars)) for r in ranked[:MOST_TABLE_ROWS]
        ),
    )


def _comparisons(rows: Sequence[Row]) -> list[Table]:
    """Methods and kinds of labels against the plain ones, where a study varies them."""
    tables: list[Table] = []
    for key in ("images.method", "labels.kind"):
        try:
            found = compare(levels(rows, [key]), by=[key])
        except InputError:
            continue  # it has one value, or nothing else is equal
        shown = replace(found, versus=found.versus[:MOST_LEVELS])
        overall, *winners = comparison_tables(shown)[:-1]
        more = len(found.versus) - len(shown.versus)
        rest = f" {more} more levels are in `raydc compare`." if more else ""
        tables += [replace(overall, title=f"Comparison of {key}", note=overall.note + rest), *winners]
    return tables


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


def _image_frontier_table(rows: Sequence[Row]) -> Table:
    best = [point for point in image_frontier(rows) if point.best]
    return Table(
        "Frontier over images",
        "The labels that are best for each number of images.",
        ("group", "IPC", "labels", "chosen by", "test accuracy"),
        tuple(
            (label_of(p.group), f"{p.ipc:g}", label_of(p.labels), p.chosen_by, percent(p.test_acc))
            for p in best
        ),
    )


def results_table(rows: Sequence[Row], *, best_first: bool = False) -> Table:
    """A row a configuration, in the order of its keys or with the most accurate first."""
    keys = varying_keys(rows)
    groups = group(rows, keys)
    if best_first:
        groups = dict(sorted(groups.items(), key=lambda item: -mean_quality(item[1])))
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


def mean_quality(rows: Sequence[Row]) -> float:
    """By which configurations are chosen."""
    return sum(_quality(row) for row in rows) / len(rows)


def _quality(row: Row) -> float:
    value = row.get("val_acc")
    return float(value if value is not None else row["test_acc"])


def _failures_table(rows: Sequence[Row]) -> Table:
    failed = [row for row in rows if row["status"] == FAILED]
    return Table(
        "Failures",
        "Evaluations that did not finish; `raydc run` tries them again.",
        ("evaluation", "error"),
        tuple((str(r["evaluation_id"]), str(r.get("error"))) for r in failed[:MOST_TABLE_ROWS]),
    )
