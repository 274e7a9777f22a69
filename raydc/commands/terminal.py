"""What commands share: their options, and how they print rows, sentences and errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from raydc.commands import completing
from raydc.errors import ArtifactError, InputError, TrackingError

PIPE_WIDTH = 160
"""Columns of a table where there is no terminal to measure."""
out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True)

StudyArgument = Annotated[
    str,
    typer.Argument(
        help="A study file, or the name of one that comes with raydc.", autocompletion=completing.studies
    ),
]
Where = Annotated[
    str,
    typer.Argument(
        metavar="DIR", help="A study's folder, or mlflow:EXPERIMENT.", autocompletion=completing.folders
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as base.train.steps=50."),
]
Smoke = Annotated[bool, typer.Option("--smoke", help="Merge the study's own smoke block: a run of seconds.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow tracking URI.")]
StoreUri = Annotated[
    str | None,
    typer.Option("--store", help="Folder or URI of the store.", envvar="RAYDC_STORE"),
]
OutFolder = Annotated[Path | None, typer.Option("--out", help="Folder of the results (default: runs/NAME).")]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster; default: start one here.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch a named dataset that is not here.")]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Keep only such rows, as labels.kind=soft or images.ipc=[1, 10]."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON array of row objects.")]


def say(text: str) -> None:
    """One line for the user, as it stands."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def reported() -> Iterator[None]:
    """Print what a user can mend as one sentence, and exit with 2."""
    try:
        yield
    except (InputError, TrackingError, ArtifactError) as error:
        err.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2) from None


def emit(rows: Sequence[dict[str, Any]], as_json: bool, show: Callable[[], None]) -> None:
    """Rows as a JSON array with null for what is not a number, or shown by `show`."""
    if as_json:
        sys.stdout.write(json.dumps([_plain(row) for row in rows], indent=1, allow_nan=False) + "\n")
    else:
        show()


def _plain(value: Any) -> Any:
    """What JSON can hold: NaN and infinity become null, tuples lists, NumPy numbers plain ones."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not float("-inf") < value < float("inf"):
        return None
    return value


def show_table(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """Rows as a table; a terminal gets borders, a pipe gets the same text without colour."""
    names = list(columns) or (list(rows[0]) if rows else [])
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    out.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
