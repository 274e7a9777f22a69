"""From rows to curves: the keys that vary, groups of rows, and statistics over replicates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydc.analysis.intervals import Mean, degrees_of, pooled_deviation, pooled_means
from raydc.errors import InputError
from raydc.spec.result import FINISHED, Row, check_column, columns, is_spec_column, untested

CLASS_COLUMN = "test_acc_by_class:"


class Points:
    """J points with replicates, and the pooled spread of the replicates."""

    key: Mapping[str, Any]
    """The keys that distinguish these points from others."""
    replicates: tuple[NDArray[np.float64], ...]
    """J arrays of y, one value per replicate."""

    @property
    def label(self) -> str:
        return label_of(self.key)

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.array([len(r) for r in self.replicates])

    @property
    def means(self) -> NDArray[np.float64]:
        return np.array([r.mean() for r in self.replicates])

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the pooled variance."""
        return degrees_of(self.replicates)

    @property
    def pooled_deviation(self) -> float | None:
        """Standard deviation between replicates, pooled over the points; None without replicates."""
        return pooled_deviation(self.replicates)

    def means_with_intervals(self) -> list[Mean]:
        """Mean of each point; intervals from the pooled deviation."""
        return pooled_means(self.replicates)


@dataclass(frozen=True)
class Curve(Points):
    """Replicates of y at several x, all else equal."""

    key: Mapping[str, Any]
    x: NDArray[np.float64]
    """[J], distinct values in ascending order."""
    replicates: tuple[NDArray[np.float64], ...]


def label_of(key: Mapping[str, Any]) -> str:
    """`hard`, or `soft, teacher_epoch 30, temperature 4`: the values, with short names."""
    parts = []
    for name, value in key.items():
        if value is None:
            continue
        short = name.partition(".")[2] or name
        text = f"{value:g}" if isinstance(value, float) else str(value)
        parts.append(text if short in ("kind", "method", "arch") else f"{short} {text}")
    return ", ".join(parts) or "all"


def finished(rows: Iterable[Row]) -> list[Row]:
    """Rows that are finished and have test results, which points of a search do not."""
    return [row for row in rows if row["status"] == FINISHED and not untested(row)]


LABEL_BLOCKS = ("labels.", "teacher.")
LABEL_KEYS = ("train.loss",)
"""Keys outside these blocks that define how soft labels are used."""


def is_label_key(key: str) -> bool:
    """Whether a key belongs to the labels: label keys are chosen, other keys are shared."""
    return key.startswith(LABEL_BLOCKS) or key in LABEL_KEYS


def with_class_column(rows: Sequence[Row], name: str) -> Sequence[Row]:
    """Rows with the column `test_acc_by_class:N`, the accuracy of class N, added if `name` is that column."""
    if not name.startswith(CLASS_COLUMN):
        return rows
    text = name.removeprefix(CLASS_COLUMN)
    classes = {len(row["test_acc_by_class"]) for row in rows if row.get("test_acc_by_class")}
    if not text.isdigit() or int(text) >= min(classes, default=0):
        raise InputError(
            f"{name} does not name a class; classes are numbered from 0 to {max(classes, default=0) - 1}"
        )
    return [
        {**row, name: row["test_acc_by_class"][int(text)]} if row.get("test_acc_by_class") else row
        for row in rows
    ]


def varying_keys(rows: Sequence[Row], exclude: Iterable[str] = ()) -> list[str]:
    """The spec columns that are needed to distinguish all points, in the order of the columns.

    A column that depends only on earlier ones (such as the codec of soft labels, given their kind) is left
    out.
    """
    left_out = {*exclude, "seed"}
    return distinguishing_keys(rows, [n for n in columns(rows) if is_spec_column(n) and n not in left_out])


def distinguishing_keys(rows: Sequence[Row], names: Iterable[str], given: Sequence[str] = ()) -> list[str]:
    """The columns of `names` that are needed, besides `given`, to distinguish all points."""
    chosen: list[str] = []
    groups = len({values_of(row, given) for row in rows})
    for name in names:
        if len({_hashable(row.get(name)) for row in rows}) < 2:
            continue
        parts = {values_of(row, (*given, *chosen, name)) for row in rows}
        if len(parts) > groups:
            chosen.append(name)
            groups = len(parts)
    return chosen


def values_of(row: Row, names: Iterable[str]) -> tuple[Any, ...]:
    """The row's values of `names`, as in the keys of `group`."""
    return tuple(_hashable(row.get(name)) for name in names)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def group(rows: Sequence[Row], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by their values of `keys`, in ascending order, whatever the order of the rows."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(values_of(row, keys), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: [_rank(value) for value in item[0]]))


def _rank(value: Any) -> tuple[bool, bool, float, str]:
    """Sort key: None first, then numbers by size, then text."""
    number = isinstance(value, int | float)
    return (value is not None, not number, value if number else 0.0, "" if number else str(value))


def curves(
    rows: Sequence[Row], x: str = "images.ipc", y: str = "test_acc", by: Sequence[str] | None = None
) -> list[Curve]:
    """Curves of y over x; `by` names the keys that separate them (default: all that vary)."""
    rows = finished(rows)
    if not rows:
        return []
    check_column(rows, x, numeric=True)
    check_column(rows, y, numeric=True)
    keys = list(by) if by is not None else varying_keys(rows, [x])
    for key in keys:
        check_column(rows, key)
    found = []
    for values, members in group(rows, keys).items():
        points: dict[float, list[float]] = {}
        for row in members:
            if row.get(x) is not None and row.get(y) is not None:
                points.setdefault(float(row[x]), []).append(float(row[y]))
        if points:
            places = sorted(points)
            found.append(
                Curve(
                    dict(zip(keys, values, strict=True)),
                    np.array(places),
                    tuple(np.array(points[place]) for place in places),
                )
            )
    return found
