"""raydc reproduce: runs a paper's table or claim and prints the results next to the paper's.

A reproduction (search_spaces/reproduce/NAME.yaml) names a study and, for each cell of a table, the row of
search_spaces/paper_results.csv and the spec keys of the matching evaluations. If the paper has a figure and
no numbers, it names the paper's claims instead, and which configurations must score more than which.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raydc.analysis.claims import Claim, Contrast, evaluate
from raydc.analysis.intervals import Mean
from raydc.errors import InputError, did_you_mean, one_of
from raydc.report.figures import Intervals
from raydc.spec import point, shipped_studies
from raydc.spec.keys import Value
from raydc.spec.point import flat_value
from raydc.spec.result import FINISHED, Row
from raydc.spec.yaml_file import parse_yaml

PAPERS = "paper_results.csv"


@dataclass(frozen=True)
class Cell:
    """One number of a paper, and the evaluations that reproduce it."""

    name: str
    where: Mapping[str, Any]
    """Spec keys of the evaluations."""
    paper: float
    """The paper's value, a fraction."""
    paper_std: float | None
    """Its spread over the paper's replicates, a fraction."""
    paper_teacher: float | None = None
    """The paper's test accuracy of the teacher, a fraction."""


@dataclass(frozen=True)
class Reproduction:
    """A table or a figure of a paper."""

    name: str
    study: str
    source: str
    measure: str
    """Column of the results table that is compared with the paper's numbers; a fraction."""
    replicates: int
    """Number of the paper's replicates, for its standard error."""
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...]
    not_here: tuple[str, ...]
    """Parts of the paper that cannot be run, with the reasons."""

    def chosen(self, names: Sequence[str]) -> Reproduction:
        """The reproduction with these cells and claims, or all if none; `InputError` for an unknown name."""
        known = [*(cell.name for cell in self.cells), *(claim.name for claim in self.claims)]
        for name in names:
            if name not in known:
                raise InputError(
                    f"--cells is {name!r}, but {self.name} has {one_of(known)}{did_you_mean(name, known)}"
                )
        return replace(
            self,
            cells=tuple(cell for cell in self.cells if not names or cell.name in names),
            claims=tuple(claim for claim in self.claims if not names or claim.name in names),
        )

    def grid(self) -> str:
        """Its points as a study's grid, for `--set grid=...`."""
        points = [dict(cell.where) for cell in self.cells]
        points += [point for claim in self.claims for point in claim.points]
        grids = [{key: [value] for key, value in point.items()} for point in points]
        return json.dumps([grid for number, grid in enumerate(grids) if grid not in grids[:number]])


def names() -> list[str]:
    """All reproductions that come with raydc."""
    return sorted(path.stem for path in (shipped_studies.folder() / "reproduce").glob("*.yaml"))


SHORT = {"table1": "label-worth-table1", "swap": "label-swap", "scaling": "data-knowledge"}
"""Short names of some reproductions."""


def _cast(where: Mapping[str, Any]) -> dict[str, Value]:
    """Spec keys with canonical values, as rows hold them; null stays null."""
    grammar = point.point_grammar()
    return {k: None if v is None else point.cast(grammar, k, v) for k, v in where.items()}


def load(name: str) -> Reproduction:
    """A reproduction by its name; `InputError` if there is none."""
    name = SHORT.get(name, name)
    if name not in names():
        raise InputError(f"reproduce {name}: it must be {one_of(names())}{did_you_mean(name, names())}")
    path = shipped_studies.folder() / "reproduce" / f"{name}.yaml"
    content = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    papers = _papers()
    cells = []
    for cell in content.get("cells", []):
        wanted = {"source": content["source"], **content["paper"], **cell["paper"]}
        value, std = _number(papers, wanted, str(path))
        teacher = None
        if "teacher" in content and cell.get("teacher", True):
            wanted = {"source": content["source"], **content["teacher"], **cell.get("teacher", cell["paper"])}
            teacher, _ = _number(papers, wanted, str(path))
        cells.append(Cell(cell["name"], _cast(cell["where"]), value, std, teacher))
    return Reproduction(
        name,
        content["study"],
        content["source"],
        content.get("measure", "test_acc"),
        content.get("replicates", 1),
        tuple(cells),
        tuple(_claim(claim) for claim in content.get("claims", [])),
        tuple(content["not_here"]),
    )


def _claim(content: Mapping[str, Any]) -> Claim:
    def contrasts(name: str) -> tuple[Contrast, ...]:
        return tuple(
            Contrast(c.get("measure", "test_acc"), _cast(c["more"]), _cast(c["less"]), c.get("name", ""))
            for c in content.get(name, [])
        )

    return Claim(content["name"], content["says"], contrasts("contrasts"), contrasts("against"))


def _papers() -> list[dict[str, str]]:
    with (shipped_studies.folder() / PAPERS).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _number(
    papers: Sequence[Mapping[str, str]], wanted: Mapping[str, Any], where: str
) -> tuple[float, float | None]:
    """(value, spread) of the one row that matches `wanted`, as fractions."""
    found = [
        row
        for row in papers
        if all(
            row[key].startswith(str(value)) if key == "source" else row[key] == str(value)
            for key, value in wanted.items()
        )
    ]
    if len(found) != 1:
        raise InputError(f"{where}: {len(found)} rows of {PAPERS} match {dict(wanted)}, but exactly one must")
    std = found[0]["std"]
    return float(found[0]["value"]) / 100, float(std) / 100 if std else None


def compare(reproduction: Reproduction, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per cell: measured mean and spread, the paper's, the difference, and whether it is within two
    standard errors (null with one replicate, which has no standard error)."""
    table = []
    for cell in reproduction.cells:
        answers = [
            row
            for row in rows
            if row["status"] == FINISHED
            and row.get(reproduction.measure) is not None
            and all(row.get(key) == flat_value(value) for key, value in cell.where.items())
        ]
        values = np.array([row[reproduction.measure] for row in answers], np.float64)
        teachers = [row["teacher_test_acc"] for row in answers if row.get("teacher_test_acc") is not None]
        mean = float(values.mean()) if len(values) else None
        std = float(values.std(ddof=1)) if len(values) > 1 else None
        inside = None
        if mean is not None and std is not None:
            error = math.hypot(
                std / math.sqrt(len(values)), (cell.paper_std or 0.0) / math.sqrt(reproduction.replicates)
            )
            inside = abs(mean - cell.paper) <= 2 * error
        table.append(
            {
                "cell": cell.name,
                "paper": cell.paper,
                "paper_std": cell.paper_std,
                "measured": mean,
                "std": std,
                "replicates": len(values),
                "difference": None if mean is None else mean - cell.paper,
                "inside_two_standard_errors": inside,
                "teacher_test_acc": float(np.mean(teachers)) if teachers else None,
                "paper_teacher": cell.paper_teacher,
            }
        )
    return table


def differences(reproduction: Reproduction, rows: Sequence[Row]) -> Intervals:
    """The difference of each claim and of each of its contrasts, for a figure.

    Raises `InputError` if no claim has results yet.
    """
    labels: list[str] = []
    means: list[Mean] = []
    for claim in reproduction.claims:
        verdict = evaluate(claim, rows)
        if verdict.difference is None:
            continue
        if len(verdict.parts) > 1:
            labels += [f"{claim.name}: {c.name}" for c in (*claim.contrasts, *claim.against)]
            means += verdict.parts
        labels.append(claim.name)
        means.append(verdict.difference)
    if not means:
        raise InputError(f"{reproduction.name} has no claim with results, so there is nothing to plot")
    return Intervals("difference in accuracy", tuple(labels), tuple(means))


def verdicts(reproduction: Reproduction, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per claim: both sides, their paired difference with its 95 % interval, and whether it holds
    (null if the interval contains 0, or if there are too few results)."""
    table = []
    for claim in reproduction.claims:
        verdict = evaluate(claim, rows)
        difference = verdict.difference
        table.append(
            {
                "claim": claim.name,
                "says": claim.statement,
                "more": verdict.more,
                "less": verdict.less,
                "difference": None if difference is None else difference.value,
                "difference_low": None if difference is None else difference.low,
                "difference_high": None if difference is None else difference.high,
                "replicates": 0 if difference is None else difference.count,
                "holds": verdict.holds,
            }
        )
    return table
