"""Shared by the commands: options, and printing of rows, sentences and errors."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from raydc.commands import completing
from raydc.errors import ArtifactError, FolderError, InputError, StoreError, TrackingError

PIPE_WIDTH = 160
"""Width, in characters, of a table that is not printed to a terminal."""
LEAST_ALIGNED, MOST_ALIGNED = 1e-3, 1e3
"""Floats of a column that are all in this range are printed with the same number of decimals."""
NARROW, GAP = 8, 2
"""Column width below which a heading is not split, and the space between two columns; characters."""
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
Smoke = Annotated[
    bool, typer.Option("--smoke", help="Apply the study's smoke block, for a run of a few seconds.")
]
TrackingUri = Annotated[str | None, typer.Option(help="Tracking URI, such as that of an MLflow server.")]
StoreUri = Annotated[
    str | None,
    typer.Option("--store", help="Folder or URI of the store.", envvar="RAYDC_STORE"),
]
OutFolder = Annotated[Path | None, typer.Option("--out", help="Folder of the results (default: runs/NAME).")]
Address = Annotated[
    str | None,
    typer.Option(help="Address of a running Ray cluster (default: start one here).", envvar="RAY_ADDRESS"),
]
Download = Annotated[bool, typer.Option("--download", help="Download a named dataset that is missing.")]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Keep only rows such as labels.kind=soft or images.ipc=[1, 10]."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON array of row objects.")]


def say(text: str) -> None:
    """Print one line as it is: no markup, no highlighting, no wrapping."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def reported() -> Iterator[None]:
    """Print an error that the user can fix as one sentence, and exit with code 2."""
    try:
        yield
    except (InputError, TrackingError, ArtifactError, StoreError, FolderError) as error:
        err.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2) from None


def emit(rows: Sequence[dict[str, Any]], as_json: bool, show: Callable[[], None]) -> None:
    """Print rows as a JSON array, with null for NaN and infinity, or call `show`."""
    if as_json:
        sys.stdout.write(json.dumps([_plain(row) for row in rows], indent=1, allow_nan=False) + "\n")
    else:
        show()


def _plain(value: Any) -> Any:
    """A value as JSON: NaN and infinity become null, tuples lists, NumPy scalars Python numbers."""
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
    """Print rows as a table, in colour on a terminal.

    Wide cells are folded at spaces, and inside words only if needed. The name of a key is split at its dots
    and underscores where that makes its column narrower.
    """
    names = list(columns) or (list(rows[0]) if rows else [])
    table = Table(
        title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    cells = [_column([row.get(name) for row in rows]) for name in names]
    headings = [
        _heading(name, max([NARROW, *map(len, column)])) for name, column in zip(names, cells, strict=True)
    ]
    widths = _widths([[h, *column] for h, column in zip(headings, cells, strict=True)], out.width)
    for name, heading, width in zip(names, headings, widths, strict=True):
        numbers = all(row.get(name) is None or isinstance(row[name], int | float) for row in rows)
        table.add_column(heading, justify="right" if numbers else "left", overflow="fold", width=width)
    for line in zip(*cells, strict=True):
        table.add_row(*line)
    out.print(table)


def _widths(columns: Sequence[Sequence[str]], available: int) -> list[int]:
    """Widths of columns that fit into `available` characters.

    The widest column is narrowed first; words are broken only when folding at spaces is not enough.
    """
    widths = [max(len(line) for text in column for line in text.split("\n")) for column in columns]
    words = [max((len(word) for text in column for word in text.split()), default=1) for column in columns]
    available -= GAP * len(columns) + 1
    while sum(widths) > available:
        candidates = [n for n, width in enumerate(widths) if width > words[n]]
        candidates = candidates or [n for n, width in enumerate(widths) if width > 1]
        if not candidates:
            break
        widths[max(candidates, key=widths.__getitem__)] -= 1
    return widths


def _heading(name: str, width: int) -> str:
    """A name split at dots and underscores into lines of at most `width` characters, where possible."""
    lines = [""]
    for part in re.findall(r"[^._]+[._]*|[._]+", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _column(values: Sequence[Any]) -> list[str]:
    """The cells of a column; floats of similar size have the same number of decimals."""
    texts = [_cell(value) for value in values]
    floats = {n: value for n, value in enumerate(values) if isinstance(value, float)}
    if any(value and not LEAST_ALIGNED <= abs(value) < MOST_ALIGNED for value in floats.values()):
        return texts
    decimals = max((len(texts[n].partition(".")[2]) for n in floats), default=0)
    return [f"{floats[n]:.{decimals}f}" if n in floats else text for n, text in enumerate(texts)]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
