"""Commands that analyse results: tables, laws, frontiers, worth, figures and the report."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raydc.commands import trading
from raydc.commands.terminal import (
    AsJson,
    Only,
    StoreUri,
    TrackingUri,
    Where,
    emit,
    err,
    reported,
    say,
    show_table,
)
from raydc.errors import InputError, one_of
from raydc.spec.quantities import size

if TYPE_CHECKING:
    from raydc.spec.result import Row


def rows_of(where: str, tracking_uri: str | None, only: list[str] | None) -> list[Row]:
    """The rows of a study folder or an MLflow experiment that match `--only`."""
    from raydc.tracking import rows

    return rows.only(rows.load_rows(where, tracking_uri), only or [])


def results(
    where: Where,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the whole table to this file.")
    ] = None,
    only: Only = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Print the results table; works while the study is running."""
    with reported():
        from raydc.analysis.curves import varying_keys
        from raydc.spec.result import FINISHED, columns

        rows = rows_of(where, tracking_uri, only)
        names = columns(rows)
        full = [{name: row.get(name) for name in names} for row in rows]
        if csv_file is not None:
            try:
                with csv_file.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, names)
                    writer.writeheader()
                    writer.writerows(full)
            except OSError as error:
                raise InputError(
                    f"--csv is {str(csv_file)!r}, which cannot be written: {error.strerror}"
                ) from None
            err.print(f"{len(full)} rows written to {csv_file}")

        def show() -> None:
            over = bool(rows) and all(row["status"] == FINISHED for row in rows)
            shown = [*varying_keys(rows), "seed", "test_acc", "val_acc", "teacher_test_acc"]
            if rows and not over:
                shown += ["status", "error"]
            show_table(f"{len(rows)} results{', all finished' if over else ''}", full, shown)

        emit(full, as_json, show)


def fit(
    where: Where,
    x: Annotated[str, typer.Option(help="Column on the x axis.")] = "images.ipc",
    y: Annotated[str, typer.Option(help="Column on the y axis.")] = "test_acc",
    z: Annotated[
        str | None,
        typer.Option(help="A second column, such as labels.top_k: fit the joint law over both."),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Keys that separate the curves (default: all that vary).")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            help="power (default), exponential or logarithmic; with --z additive, product, interaction or "
            "logarithmic; auto (default with --z) picks the form with the smallest AICc for each curve."
        ),
    ] = None,
    only: Only = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Fit scaling laws, such as y = a - b x^-c, with 95 % intervals."""
    with reported():
        from raydc.analysis import joint_search, laws

        forms = ("auto", *(laws.FORMS if z is None else joint_search.FORMS))
        form = form or ("power" if z is None else "auto")
        if form not in forms:
            raise InputError(
                f"--form is {form!r}, but must be {one_of(forms)}{'' if z is None else ' with --z'}"
            )
        if z is None:
            _fit_curves(rows_of(where, tracking_uri, only), x, y, by, form, as_json)
        else:
            trading.fit_surfaces(rows_of(where, tracking_uri, only), x, z, y, by, form, as_json)


def _fit_curves(rows: list[Row], x: str, y: str, by: list[str] | None, form: str, as_json: bool) -> None:
    from raydc.analysis.curves import curves
    from raydc.analysis.laws import FORMULAS, Law, as_row
    from raydc.analysis.laws import fit as fit_law
    from raydc.report.tables import interval

    fits = [fit_law(curve, form) for curve in curves(rows, x, y, by)]
    trading.check_any(fits)
    shown: list[dict[str, Any]] = []
    for found in fits:
        if isinstance(found, Law):
            ends = {
                "a": interval(found.a),
                "b": interval(found.b),
                "c": "-" if found.c is None else interval(found.c),
            }
            shown.append(
                {
                    "curve": found.curve.label,
                    "form": found.form,
                    **ends,
                    "rmse": found.rmse,
                    "AICc": found.aicc,
                    "largest x": signed(found.holdout),
                    "note": trading.spread(int(found.curve.counts.min())),
                }
            )
        else:
            shown.append({"curve": found.curve.label, "note": f"no fit: {found.reason}"})
    title = f"{y} = {'law of ' + x if form == 'auto' else FORMULAS[form].format(x=x)}"
    names = ["curve", "form", "a", "b", "c", "rmse", "AICc", "largest x", "note"]
    emit([as_row(found) for found in fits], as_json, lambda: show_table(title, shown, names))


def signed(error: float | None) -> str:
    """A signed difference in percentage points."""
    return "-" if error is None else f"{100 * error:+.1f} points"


def plot(
    where: Where,
    x: Annotated[str, typer.Option(help="Column on the x axis.")] = "images.ipc",
    y: Annotated[
        str, typer.Option(help="Column on the y axis; test_acc_by_class:N is the accuracy of class N.")
    ] = "test_acc",
    by: Annotated[
        list[str] | None, typer.Option(help="Keys that separate the lines (default: all that vary).")
    ] = None,
    file: Annotated[Path, typer.Option("--out", help="The figure: .svg, .pdf or .png.")] = Path("figure.svg"),
    only: Only = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Plot a column over a key, with 95 % intervals."""
    with reported():
        from raydc.report import drawing
        from raydc.report.figures import line_figure

        figure = drawing.lines(line_figure(rows_of(where, tracking_uri, only), x, y, by))
        try:
            drawing.save(figure, file)
        except (OSError, ValueError) as error:
            raise InputError(f"--out is {str(file)!r}, which cannot be written: {error}") from None
    say(f"figure: {file}")


def frontier(
    where: Where,
    over: Annotated[
        str,
        typer.Option(
            help="bytes: accuracy over stored bytes of images and labels; images: for each IPC, the labels "
            "with the highest validation accuracy."
        ),
    ] = "bytes",
    only: Only = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Print the Pareto frontier of accuracy over stored bytes, or over images."""
    with reported():
        from raydc.analysis.curves import finished
        from raydc.analysis.frontier import OVER

        if over not in OVER:
            raise InputError(f"--over is {over!r}, but must be {one_of(OVER)}")
        rows = rows_of(where, tracking_uri, only)
        if not finished(rows):
            raise InputError(f"{where} has no finished evaluation yet; run the study first")
        if over == "bytes":
            _frontier_over_bytes(rows, as_json)
        else:
            trading.frontier_over_images(rows, as_json)


def _frontier_over_bytes(rows: list[Row], as_json: bool) -> None:
    from raydc.analysis.frontier import frontier as analyse
    from raydc.report.tables import percent

    points = analyse(rows)
    full = [
        {
            **point.key,
            "images_bytes": point.images_bytes,
            "labels_bytes": point.labels_bytes,
            "total_bytes": point.total_bytes,
            **trading.accuracies(point),
            "on_frontier": point.on_frontier,
        }
        for point in points
    ]
    shown = [
        {
            "configuration": point.label,
            "images": size(point.images_bytes),
            "labels": size(point.labels_bytes),
            "test accuracy": percent(point.test_acc),
        }
        for point in points
        if point.on_frontier
    ]
    emit(full, as_json, lambda: show_table(f"{len(shown)} of {len(points)} configurations", shown))


def worth(where: Where, only: Only = None, tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """Print how many hard-labelled images one soft-labelled image replaces."""
    with reported():
        from raydc.analysis.curves import label_of
        from raydc.analysis.worth import worth as analyse
        from raydc.report.tables import percent

        answers = analyse(rows_of(where, tracking_uri, only))
        rows = [
            {
                **item.group,
                "images.ipc": item.ipc,
                **item.labels,
                "chosen_by": item.chosen_by,
                "soft_acc": item.soft_acc.value,
                "soft_acc_low": item.soft_acc.low,
                "soft_acc_high": item.soft_acc.high,
                "hard_acc": item.hard_acc.value if item.hard_acc else None,
                "hard_ipc": item.hard_ipc,
                "hard_ipc_low": item.low,
                "hard_ipc_high": item.high,
                "beyond_ipc": item.beyond,
                "worth": item.ratio,
                "text": item.text(),
                "note": item.note or None,
            }
            for item in answers
        ]
        shown = [
            {
                "group": label_of(item.group),
                "IPC": item.ipc,
                "labels": label_of(item.labels),
                "soft": percent(item.soft_acc),
                "hard": percent(item.hard_acc),
                "hard-labelled images per class": item.text() if item.text() != "-" else item.note,
            }
            for item in answers
        ]
        emit(rows, as_json, lambda: show_table("What soft labels are worth", shown))


def report(
    where: Where,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the figures to this folder (default: DIR/figures)."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Format of the figures: png (default), svg or pdf; may be repeated."),
    ] = None,
    tracking_uri: TrackingUri = None,
    store: StoreUri = None,
) -> None:
    """Write one self-contained report.html with charts and tables, and its figures as files."""
    with reported():
        from raydc.report.drawing import FORMATS
        from raydc.study.reporting import write

        for name in formats or []:
            if name not in FORMATS:
                raise InputError(f"--format is {name!r}, but must be {one_of(FORMATS)}")
        try:
            path = write(where, tracking_uri, store, figures, formats or ["png"])
        except OSError as error:
            raise InputError(f"the report of {where} cannot be written: {error}") from None
    say(f"report: {path}")
