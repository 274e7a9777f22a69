"""DD-Ranking: scores of a method's images without the effect of its labels and augmentations.

Hard label recovery    HLR = Acc(full, hard) - Acc(method, hard)
improvement over random  IOR = Acc(method, any) - Acc(random, any)
label-robust score      LRS = S(w IOR - (1 - w) HLR)
augmentation-robust score  ARS = S(g IOR with augmentation + (1 - g) IOR without)
with S(a) = (e^a - e^-1) / (e - e^-1), which maps [-1, 1] to [0, 1] (NUS-HPC-AI-Lab/DD-Ranking, whose
code applies S to percent; accuracies here are fractions, as in its formulas).

A score needs counterparts: rows that differ only in the images, the labels or the augmentation. If there are
none, the score is missing and a note gives the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydc.analysis.contrast import Term, by_seed, combined
from raydc.analysis.curves import finished, group, label_of, values_of, varying_keys
from raydc.analysis.intervals import Mean
from raydc.errors import InputError, one_of
from raydc.spec.result import Row, columns, is_spec_column

RANDOM = "random"
WEIGHT = 0.5
"""Default of w and g, as published."""
NAMED = ("images.method", "images.ipc", "labels.kind")
"""Keys in the name of a point even if they do not vary."""
UNEQUAL_LOSS = ("train.loss",)
"""Keys that do not apply to hard labels, which always use cross-entropy."""


@dataclass(frozen=True)
class Ranking:
    """The scores of one point whose images are not random; all are fractions."""

    key: dict[str, Any]
    """The keys that distinguish it from the others."""
    test_acc: Mean
    hlr: Mean | None
    """Hard label recovery: accuracy of the full dataset minus that of the method, both with hard labels."""
    ior: Mean | None
    """Improvement over random images with the same labels and recipe."""
    lrs: Mean | None
    """Label-robust score, in [0, 1]."""
    ars: Mean | None
    """Augmentation-robust score, in [0, 1]; only for points with augmentation."""
    notes: tuple[str, ...]
    """Reasons for missing scores, and choices that were made."""

    @property
    def label(self) -> str:
        return label_of(self.key)


def score(advantage: float) -> float:
    """(e^a - e^-1) / (e - e^-1) of a in [-1, 1]."""
    return (math.exp(advantage) - math.exp(-1)) / (math.e - math.exp(-1))


def ddranking(
    rows: Sequence[Row],
    full: Sequence[Row] | float | None = None,
    weight: float = WEIGHT,
    gamma: float = WEIGHT,
) -> list[Ranking]:
    """Every point whose images are not random, in the order of its keys.

    `full` is the accuracy of the full dataset with hard labels: a fraction, which has no spread, or the
    rows of a study whose images are the full dataset. Replicates with equal seeds are paired. Raises
    `InputError` if no method was evaluated, or if `full`, `weight` or `gamma` is invalid.
    """
    for name, value in (("weight", weight), ("gamma", gamma)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value:g}, but must be from 0 to 1")
    rows = finished(rows)
    methods = [row for row in rows if row.get("images.method") not in (None, RANDOM)]
    if not methods:
        raise InputError(
            "ddranking scores methods against random images, but the results have no method other than random"
        )
    table = _Table(rows, _full(full), weight, gamma)
    keys = list(dict.fromkeys([*NAMED, *varying_keys(methods)]))
    return [
        table.ranking(dict(zip(keys, values, strict=True)), members)
        for values, members in group(methods, keys).items()
    ]


def _full(full: Sequence[Row] | float | None) -> list[Row] | float | None:
    """The rows of the full dataset with hard labels, or its accuracy."""
    if full is None:
        return None
    if isinstance(full, int | float):
        if not 0 <= full <= 1:
            hint = f"; {full:g} % is {full / 100:g}" if 1 < full <= 100 else ""
            raise InputError(
                f"the accuracy of the full dataset is {full:g}, but must be a fraction from 0 to 1{hint}"
            )
        return float(full)
    hard = [row for row in finished(full) if row.get("labels.kind") == "hard"]
    if not hard:
        raise InputError("the results of the full dataset have no finished row with hard labels")
    sizes = sorted({row.get("images.ipc") for row in hard}, key=str)
    if len(sizes) > 1:
        raise InputError(
            f"the results of the full dataset have sets of {one_of(sizes).replace(' or ', ' and ')} images "
            "per class, but all must be the full dataset; give a study of one images.ipc"
        )
    return hard


@dataclass(frozen=True)
class _Bare:
    """Rows of one method whose students were trained without augmentation."""

    names: list[str]
    """The keys in which they equal their augmented counterparts."""
    rows: dict[tuple[Any, ...], list[Row]]
    """The rows, by the values of these keys."""
    everything: bool
    """Whether these are all rows of the method."""


class _Table:
    """Looks up the counterparts of rows."""

    def __init__(
        self, rows: Sequence[Row], full: list[Row] | float | None, weight: float, gamma: float
    ) -> None:
        self.full = full
        self.weight = weight
        self.gamma = gamma
        known = rows if full is None or isinstance(full, float) else [*rows, *full]
        self.names = [name for name in columns(known) if is_spec_column(name)]
        self.random = [row for row in rows if row.get("images.method") == RANDOM]
        # Keys that do not apply to random images, such as a scorer, are not compared.
        self.shared = [
            name
            for name in self.names
            if name != "images.method"
            and not (name.startswith(("images.", "scorer.")) and _absent(name, self.random))
        ]
        self.alike_random = group(self.random, self.shared)
        self.of_set = [n for n in self.names if n.startswith(("dataset.", "images.", "scorer.", "student."))]
        self.hard = group([row for row in rows if row.get("labels.kind") == "hard"], self.of_set)
        self.bare = {
            method: self._without_augmentation(members)
            for (method,), members in group(rows, ["images.method"]).items()
        }

    def _without_augmentation(self, alike: list[Row]) -> _Bare:
        """The rows of a method that were trained without augmentation."""
        bare = [row for row in alike if _plain(row)]
        names = [
            name
            for name in self.names
            if name != "train.augment" and not (name.startswith("train.") and _absent(name, bare))
        ]
        return _Bare(names, group(bare, names), everything=len(bare) == len(alike))

    def ranking(self, key: dict[str, Any], members: list[Row]) -> Ranking:
        """The scores of one point."""
        notes: list[str] = []
        own = by_seed(members)
        gain = self._gain(members[0], own, notes)
        loss, constant = self._loss(members[0], members, notes)
        lrs = None
        if gain and loss:
            weighted = [*_scaled(gain, self.weight), *_scaled(loss, self.weight - 1)]
            lrs = _mapped(combined(weighted, (self.weight - 1) * constant))
        return Ranking(
            key=key,
            test_acc=combined([Term(1, own)]),
            hlr=combined(loss, constant) if loss else None,
            ior=combined(gain) if gain else None,
            lrs=lrs,
            ars=self._ars(members[0], gain, notes),
            notes=tuple(dict.fromkeys(notes)),
        )

    def _gain(self, row: Row, own: dict[int, float], notes: list[str]) -> list[Term]:
        """Terms of the improvement over random; empty, with a note, if it is unknown."""
        random = self.alike_random.get(values_of(row, self.shared), [])
        if not random:
            notes.append(f"no random images with all else equal{self._nearest(row)}")
            return []
        return [Term(1, own), Term(-1, by_seed(random))]

    def _nearest(self, row: Row) -> str:
        """Names of the keys in which the closest random images differ."""
        differing = ([n for n in self.shared if r.get(n) != row.get(n)] for r in self.random)
        nearest = min(differing, key=len, default=[])
        return f" (the closest differ in {one_of(nearest).replace(' or ', ' and ')})" if nearest else ""

    def _loss(self, row: Row, members: list[Row], notes: list[str]) -> tuple[list[Term], float]:
        """(terms, constant) of the hard label recovery; no terms, with a note, if it is unknown."""
        if self.full is None:
            notes.append("HLR and LRS need the accuracy of the full dataset")
            return [], 0.0
        hard = members
        if row.get("labels.kind") != "hard":
            candidates = self.hard.get(values_of(row, self.of_set), [])
            hard = self._of_one_recipe(row, candidates, "the method's hard labels", notes)
        if not hard:
            return [], 0.0
        images = Term(-1, by_seed(hard))
        if isinstance(self.full, float):
            return [images], self.full
        same = [n for n in self.names if n.startswith(("dataset.", "student."))]
        whole = self._of_one_recipe(row, _equal(row, self.full, same), "the full dataset", notes)
        return ([Term(1, by_seed(whole)), images], 0.0) if whole else ([], 0.0)

    def _of_one_recipe(self, row: Row, candidates: list[Row], what: str, notes: list[str]) -> list[Row]:
        """The rows with the recipe of `row`, else those of the recipe with the best validation accuracy."""
        if not candidates:
            notes.append(f"no results of {what} for these data, images and student")
            return []
        names = [n for n in self.names if n.startswith("train.") and n not in UNEQUAL_LOSS]
        if equal := _equal(row, candidates, names):
            return equal
        recipes = list(group(candidates, names).values())
        if len(recipes) == 1:
            notes.append(f"{what}: with another recipe")
            return recipes[0]
        if any(r.get("val_acc") is None for r in candidates):
            notes.append(f"{what}: {len(recipes)} recipes, and no val_acc to choose among them")
            return []
        notes.append(f"{what}: the best of {len(recipes)} recipes by val_acc")
        return max(recipes, key=lambda members: float(np.mean([r["val_acc"] for r in members])))

    def _ars(self, row: Row, gain: list[Term], notes: list[str]) -> Mean | None:
        """The augmentation-robust score of a point with augmentation."""
        bare = self.bare[row.get("images.method")]
        if _plain(row):
            if bare.everything:
                notes.append("ARS needs the same images with augmentation")
            return None
        twins = bare.rows.get(values_of(row, bare.names), [])
        if not twins:
            notes.append("ARS needs the same images with train.augment none")
            return None
        bare_gain = self._gain(twins[0], by_seed(twins), notes)
        if not gain or not bare_gain:
            return None
        return _mapped(combined([*_scaled(gain, self.gamma), *_scaled(bare_gain, 1 - self.gamma)]))


def _absent(name: str, rows: Iterable[Row]) -> bool:
    return all(row.get(name) is None for row in rows)


def _plain(row: Row) -> bool:
    """Whether the student was trained without augmentation."""
    return row.get("train.augment") in (None, "none")


def _equal(row: Row, candidates: Iterable[Row], names: Sequence[str]) -> list[Row]:
    """The candidates that equal `row` in `names`."""
    return [c for c in candidates if all(c.get(name) == row.get(name) for name in names)]


def _scaled(terms: Iterable[Term], factor: float) -> list[Term]:
    return [Term(factor * term.factor, term.values) for term in terms]


def _mapped(mean: Mean, by: Callable[[float], float] = score) -> Mean:
    """A mean and its interval, mapped by an increasing function."""
    low, high = (None if end is None else by(end) for end in (mean.low, mean.high))
    return Mean(by(mean.value), low, high, mean.count)
