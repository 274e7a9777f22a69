"""The tables of the report, one function each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from raydc.analysis.compare import compare
from raydc.analysis.curves import finished, group, label_of, varying_keys
from raydc.analysis.ddranking import Ranking, ddranking
from raydc.analysis.exchange_rate import exchange_rates
from raydc.analysis.frontier import frontier, image_frontier
from raydc.analysis.intervals import mean_of
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
"""Most levels of a key that the report compares; `raydc compare` prints all."""


def parameters(law: JointLaw) -> str:
    """`a 0.809 [0.780, 0.868], c 0.958 [0.525, 1.520], ...`."""
    return ", ".join(f"{name} {interval(value)}" for name, value in law.parameters().items())


def holdout_error(law: JointLaw) -> str:
    """Error of a joint law, fitted without the largest n, at that n: `+0.4 points (rms 0.9)`."""
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
    """The tables of each section of the report; none for a section without data."""
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


FINALS_NOTE = " In the finals: mean and 95 % interval over all replicates of a finalist, with the extra ones."


def search_tables(history: search_history.History | None) -> list[Table]:
    """The best points of a search and the importances of its keys; none if there is no search."""
    if history is None:
        return []
    several = len(history["metrics"]) > 1
    head, body = search_history.points(history)
    tables = [
        Table(
            "Pareto front of the search" if several else "Best points",
            "Values of the points: means over replicates, on validation images."
            + (FINALS_NOTE if search_history.finals_of(history) else ""),
            head,
            body,
        )
    ]
    if history["importances"]:
        tables.append(
            Table(
                "Importance of the keys",
                "How much each key decides whether a point is good (PED-ANOVA, arXiv 2304.10255).",
                ("key", "importance"),
                tuple((key, f"{value:.2f}") for key, value in history["importances"].items()),
            )
        )
    return tables


def _law_tables(figures: Figures) -> list[Table]:
    return [
        Table(
            "Laws",
            "Parameters with 95 % intervals; p is the p-value of the lack-of-fit test (small is bad); the "
            "last column is the error, at the largest IPC, of the law fitted without it.",
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
            "Accuracy over n images per class and k kept label entries; the form with the smallest AICc. "
            "`largest n` is the error, at the largest n, of the law fitted without it: the mean and the root "
            "mean square over k.",
            ("points", "law", "parameters", "rmse", "largest n", "note"),
            tuple(_joint_row(law) for law in laws),
        )
    ]
    answers = [(law.surface.label, item) for law in laws for item in exchange_rates(law)]
    if answers:
        found.append(
            Table(
                "What doubling the label entries is worth",
                "Images per class with k entries that do as well as n with 2 k, according to the joint law, "
                "inside its data only.",
                ("points", "n", "entries", "gain, points", "images"),
                tuple(
                    (name, f"{item.n:g}", f"{item.k:g} to {2 * item.k:g}", points(item.gain), item.text())
                    for name, item in answers[:MOST_TABLE_ROWS]
                ),
            )
        )
    return found


def _joint_row(found: JointLaw | NoJointLaw) -> tuple[str, ...]:
    """One joint law; without parameters if its limit is unknown."""
    name = found.surface.label
    if isinstance(found, JointLaw):
        law, known, note = found, parameters(found), ""
    elif found.inside is None:
        return (name, "-", "-", "-", "-", found.reason)
    else:
        law, known, note = found.inside, "-", f"valid inside the data only: {found.reason}"
    formula = FORMULAS_OF_BOTH[law.form].format(x="n", z="k")
    return (name, formula, known, f"{law.rmse:.4f}", holdout_error(law), note)


def _worth_table(answers: Sequence[Worth]) -> Table:
    return Table(
        "Worth",
        "Hard-labelled images per class that reach the accuracy of the soft labels, according to the law of "
        "the hard labels, inside its data only." + _more(len(answers), "printed by `raydc worth`"),
        ("group", "IPC", "labels", "soft", "hard", "hard-labelled images per class"),
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
    """A note on the rows that are not shown, and where they are."""
    return f" {count - MOST_TABLE_ROWS} more are {where}." if count > MOST_TABLE_ROWS else ""


def _ranked(rows: Sequence[Row]) -> list[Ranking]:
    """DD-Ranking's scores of methods that have random images to compare with."""
    try:
        return [item for item in ddranking(rows) if item.ior is not None]
    except InputError:
        return []  # there is no method to score; `raydc ddranking` prints the reason


def _ranking_table(ranked: Sequence[Ranking]) -> Table:
    return Table(
        "DD-Ranking",
        "IOR: improvement over random images under the same labels and recipe. ARS: augmentation-robust "
        "score, for points with augmentation. HLR and LRS need the accuracy of the full dataset: "
        "raydc ddranking DIR --full-acc FRACTION." + _more(len(ranked), "printed by `raydc ddranking`"),
        ("method", "test accuracy", "IOR", "ARS"),
        tuple(
            (r.label, percent(r.test_acc), percent(r.ior), percent(r.ars)) for r in ranked[:MOST_TABLE_ROWS]
        ),
    )


def _comparisons(rows: Sequence[Row]) -> list[Table]:
    """Methods against random images and label kinds against hard labels, if a study varies them."""
    tables: list[Table] = []
    for key in ("images.method", "labels.kind"):
        try:
            found = compare(levels(rows, [key]), by=[key])
        except InputError:
            continue  # the key has one value, or no configurations match
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
        "Configurations for which no other of equal or smaller size is more accurate.",
        ("configuration", "images, bytes", "labels, bytes", "test accuracy"),
        tuple(
            (p.label, f"{p.images_bytes:,.0f}", f"{p.labels_bytes:,.0f}", percent(p.test_acc)) for p in best
        ),
    )


def _image_frontier_table(rows: Sequence[Row]) -> Table:
    best = [point for point in image_frontier(rows) if point.best]
    return Table(
        "Frontier over images",
        "The best labels for each number of images.",
        ("group", "IPC", "labels", "chosen by", "test accuracy"),
        tuple(
            (label_of(p.group), f"{p.ipc:g}", label_of(p.labels), p.chosen_by, percent(p.test_acc))
            for p in best
        ),
    )


def results_table(rows: Sequence[Row], *, best_first: bool = False) -> Table:
    """One row per configuration, in the order of the keys or with the most accurate first."""
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
    """Mean accuracy by which configurations are ranked: validation if it exists, else test."""
    return sum(_quality(row) for row in rows) / len(rows)


def _quality(row: Row) -> float:
    value = row.get("val_acc")
    return float(value if value is not None else row["test_acc"])


def _failures_table(rows: Sequence[Row]) -> Table:
    failed = [row for row in rows if row["status"] == FAILED]
    return Table(
        "Failures",
        "Evaluations that did not finish; `raydc run` retries them.",
        ("evaluation", "error"),
        tuple((str(r["evaluation_id"]), str(r.get("error"))) for r in failed[:MOST_TABLE_ROWS]),
    )
