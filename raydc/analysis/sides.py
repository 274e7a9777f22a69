"""The sides of a comparison: whole studies, or the values of a key in one table of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raydc.analysis.curves import group, label_of
from raydc.errors import InputError, did_you_mean, one_of
from raydc.spec.result import Row, check_column, is_spec_column

DEFAULT_BASELINE = {"images.method": "random", "labels.kind": "hard", "train.augment": "none"}
"""The baseline of a key if none is named."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a study, or the rows with one value of a key."""

    name: str
    rows: Sequence[Row]


def studies(given: Sequence[tuple[str, Sequence[Row]]]) -> list[Side]:
    """One side per study, the baseline first; named after the studies if their names differ."""
    names = [", ".join(sorted({str(row["study"]) for row in rows})) for _, rows in given]
    if len(set(names)) < len(names) or not all(names):
        names = [where for where, _ in given]
    return [Side(name, rows) for name, (_, rows) in zip(names, given, strict=True)]


def levels(rows: Sequence[Row], by: Sequence[str], baseline: str | None = None) -> list[Side]:
    """One side per value of the keys `by`, the baseline first; rows without any of the keys are left out.

    `baseline` is a value or a label; the default is DEFAULT_BASELINE (random, hard, none), else the first.
    Raises `InputError` for a key without values, for one value only, and for an unknown baseline.
    """
    for key in by:
        check_column(rows, key)
        if not is_spec_column(key):
            raise InputError(f"--by is {key!r}, but must be a key of the study file, such as images.method")
    groups = group([row for row in rows if any(row.get(key) is not None for key in by)], by)
    keys = [dict(zip(by, values, strict=True)) for values in groups]
    sides = [Side(label_of(key), members) for key, members in zip(keys, groups.values(), strict=True)]
    if len(sides) < 2:
        raise InputError(
            f"--by is {', '.join(by)}, which has only the value {sides[0].name}; choose another key"
        )
    first = _baseline(sides, keys, baseline)
    return [sides[first], *sides[:first], *sides[first + 1 :]]


def _baseline(sides: Sequence[Side], keys: Sequence[Mapping[str, Any]], wanted: str | None) -> int:
    if wanted is None:
        is_default = (all(v == DEFAULT_BASELINE.get(k) for k, v in key.items()) for key in keys)
        return next((number for number, found in enumerate(is_default) if found), 0)
    for number, (side, key) in enumerate(zip(sides, keys, strict=True)):
        if wanted in (side.name, ", ".join(str(value) for value in key.values())):
            return number
    names = [side.name for side in sides]
    raise InputError(f"--baseline is {wanted!r}, but must be {one_of(names)}{did_you_mean(wanted, names)}")
