"""Text tables: the format of numbers, and output as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raydc.analysis.intervals import Mean
from raydc.analysis.laws import Interval

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Table:
    """A table of formatted cells."""

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


def interval(value: Interval | Mean, digits: int = 3) -> str:
    """`0.412 [0.380, 0.450]`."""
    text = f"{value.value:.{digits}f}"
    if value.low is not None and value.high is not None:
        text += f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    return text


def points(value: Interval) -> str:
    """A difference of accuracies: `+1.2 [0.4, 2.0]`."""
    text = f"{100 * value.value:+.1f}"
    if value.low is not None and value.high is not None:
        text += f" [{100 * value.low:.1f}, {100 * value.high:.1f}]"
    return text


def markdown(tables: Sequence[Table]) -> str:
    """The tables as GitHub Markdown."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    rows = [line(table.head), line(["---"] * len(table.head)), *map(line, table.body)]
    return "\n".join([f"## {table.title}", "", table.note, "", *rows, ""])


def latex(tables: Sequence[Table]) -> str:
    """The tables as LaTeX with the package booktabs; special characters are escaped."""
    return "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(escape, cells)) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape(table.title)}. {escape(table.note)}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.head)}}}",
            r"\toprule",
            line(table.head),
            r"\midrule",
            *map(line, table.body),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(sign, sign) for sign in text)
