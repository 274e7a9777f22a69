"""From rows to surfaces: accuracy over two keys, the number of images and the label information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydc.analysis.curves import Points, finished, group, varying_keys
from raydc.spec.result import Row, check_column

KEPT = "labels.top_k"
"""Default key of the label information in a joint law: the number of kept entries of a label."""


@dataclass(frozen=True)
class Surface(Points):
    """Replicates of y at several pairs (x, z), all else equal."""

    key: Mapping[str, Any]
    x: NDArray[np.float64]
    """[J], ascending; not every x needs every z."""
    z: NDArray[np.float64]
    """[J], ascending where x is equal."""
    replicates: tuple[NDArray[np.float64], ...]

    def part(self, chosen: NDArray[np.bool_]) -> Surface:
        """The points that `chosen` [J] marks."""
        replicates = tuple(r for r, keep in zip(self.replicates, chosen, strict=True) if keep)
        return Surface(self.key, self.x[chosen], self.z[chosen], replicates)


def kept_information(row: Row, z: str) -> float | None:
    """The value of `z` of one row.

    A label without `labels.top_k` keeps an entry for each class. A hard label has no value: it is the
    true class, not the largest entry of a teacher's prediction, so it is not the label with k = 1.
    """
    value = row.get(z)
    if value is None and z == KEPT and row.get("labels.kind") not in (None, "hard"):
        value = len(row.get("test_acc_by_class") or ()) or None
    return None if value is None else float(value)


def surfaces(
    rows: Sequence[Row],
    x: str = "images.ipc",
    z: str = KEPT,
    y: str = "test_acc",
    by: Sequence[str] | None = None,
) -> list[Surface]:
    """Surfaces of y over (x, z); `by` names the keys that separate them (default: all that vary).

    Raises `InputError` for a column without numbers.
    """
    rows = finished(rows)
    if not rows:
        return []
    for column in (x, z, y):
        check_column(rows, column, numeric=True)
    keys = list(by) if by is not None else varying_keys(rows, [x, z])
    for key in keys:
        check_column(rows, key)
    found = []
    for values, members in group(rows, keys).items():
        points: dict[tuple[float, float], list[float]] = {}
        for row in members:
            kept = kept_information(row, z)
            if kept is not None and row.get(x) is not None and row.get(y) is not None:
                points.setdefault((float(row[x]), kept), []).append(float(row[y]))
        if points:
            places = sorted(points)
            found.append(
                Surface(
                    dict(zip(keys, values, strict=True)),
                    np.array([place[0] for place in places]),
                    np.array([place[1] for place in places]),
                    tuple(np.array(points[place]) for place in places),
                )
            )
    return found
