"""raydc compare: paired differences between studies or values of a key, corrected for multiple tests."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raydc.commands import completing
from raydc.commands.terminal import AsJson, Only, TrackingUri, emit, reported, say, show_table
from raydc.errors import InputError

if TYPE_CHECKING:
    from raydc.report.tables import Table

MOST_SHOWN = 40
"""Most configurations that the terminal shows; files have all of them."""


def compare(
    where: Annotated[
        list[str],
        typer.Argument(
            metavar="A B...",
            help="Studies' folders or mlflow:EXPERIMENT; the first is the baseline.",
            autocompletion=completing.folders,
        ),
    ],
    by: Annotated[
        list[str] | None,
        typer.Option(help="Compare the values of this key, in one study or across all given studies."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The value of --by to compare with (default: random, hard, none).")
    ] = None,
    metric: Annotated[str, typer.Option(help="The measure to compare.")] = "test_acc",
    only: Only = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write every difference to this file.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables to this file.")
    ] = None,
    latex_file: Annotated[
        Path | None, typer.Option("--latex", help="Write the tables to this file, for the package booktabs.")
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Compare studies, or the values of a key: paired differences with 95 % intervals, corrected."""
    with reported():
        from raydc.analysis import compare as comparing
        from raydc.analysis.sides import levels, studies
        from raydc.report.comparison import comparison_tables, header
        from raydc.report.tables import latex, markdown
        from raydc.tracking.rows import load_rows
        from raydc.tracking.rows import only as keep

        loaded = [(name, keep(load_rows(name, tracking_uri), only or [])) for name in where]
        if not by and len(loaded) < 2:
            raise InputError(f"{where[0]} is one study; give another one, or a key to compare with --by")
        if not by and baseline is not None:
            raise InputError(
                f"--baseline is {baseline!r}, but it names a value of --by, which is not given; "
                "put the baseline study first"
            )
        every = [row for _, rows in loaded for row in rows]
        sides = levels(every, by, baseline) if by else studies(loaded)
        found = comparing.compare(sides, metric, by)
        rows, tables = comparing.as_rows(found), comparison_tables(found)
        for option, file, text in (
            ("--csv", csv_file, lambda: _csv(rows)),
            ("--markdown", markdown_file, lambda: markdown(tables)),
            ("--latex", latex_file, lambda: latex(tables)),
        ):
            if file is not None:
                _write(option, file, text())

        emit(rows, as_json, lambda: _show(header(found), tables))


def _show(sentences: Sequence[str], tables: Sequence[Table]) -> None:
    for sentence in sentences:
        say(sentence)
    for table in tables:
        body = [dict(zip(table.head, cells, strict=True)) for cells in table.body]
        show_table(table.title, body[:MOST_SHOWN], table.head)
        if len(body) > MOST_SHOWN:
            say(f"{len(body) - MOST_SHOWN} more rows are not shown; --csv, --markdown and --latex write all")


def _csv(rows: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(option: str, path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{option} is {str(path)!r}, which cannot be written: {error.strerror}") from None
