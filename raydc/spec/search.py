"""A search: the space of points that Optuna may propose, and the metrics by which a point is judged.

This module does not import Optuna; raydc.search does.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from raydc.spec.evaluation import TeacherSpec, canonical_json
from raydc.spec.keys import Value
from raydc.spec.point import flat_value

KINDS = ("uniform", "loguniform", "int", "logint", "categorical")
SAMPLERS = ("tpe", "gp", "cmaes", "random", "grid", "nsga2")
NOTHING_TWICE = ("tpe", "gp", "random", "grid")
"""Samplers that are asked again until they propose a new point."""
SCHEDULERS = ("none", "asha", "hyperband", "median")
METRICS = (
    "val_acc",
    "train_acc",
    "stored_bytes",
    "images_bytes",
    "labels_bytes",
    "steps",
    "train_seconds",
)
"""Metrics by which a point may be judged; stored_bytes is the sum of images_bytes and labels_bytes."""
TEACHER_KEYS = (
    "labels.kind",
    "labels.teacher",
    "labels.teacher_epoch",
    "labels.ensemble",
    "labels.init",
    "images.method",
    "images.score",
    "images.prune",
    "images.score_epoch",
)
"""Keys that determine which networks and epochs a point needs."""
MOST_EXAMPLES = 300
"""Largest number of points by which a space is checked, in addition to those that determine teachers."""


@dataclass(frozen=True)
class Dimension:
    """A searched key and the values that it may take."""

    key: str
    kind: str
    """One of `KINDS`."""
    low: float = 0
    high: float = 0
    """Upper end of the range; both ends are included, and are whole numbers for int and logint."""
    choices: tuple[Value, ...] = ()
    """Canonical values of a categorical key."""
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    """Conditions (key, values): the key is asked only if each of these other keys has one of its values."""

    @property
    def order(self) -> tuple[Value, ...]:
        """The choices from the smallest to the largest; empty if there are none or not all are numbers."""
        listed = self.choices
        if any(isinstance(c, bool) or not isinstance(c, int | float) for c in listed):
            return ()
        return tuple(sorted(listed))

    @property
    def whole(self) -> bool:
        """Whether the dimension is a range of whole numbers."""
        return self.kind in ("int", "logint")

    @property
    def finite(self) -> bool:
        """Whether the dimension has a finite number of values."""
        return self.whole or self.kind == "categorical"

    def values(self) -> Sequence[Value]:
        """Every value of a finite dimension."""
        return self.choices or range(int(self.low), int(self.high) + 1)

    def ends(self) -> tuple[Value, ...]:
        """All choices, or the two ends of the range."""
        return self.choices or (self.low, self.high)

    def holds(self, value: Value) -> bool:
        """Whether a canonical value is in the dimension."""
        if self.kind == "categorical":
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.whole or value == int(value))

    def asked_at(self, chosen: Mapping[str, Value]) -> bool:
        """Whether the key is asked if other keys have the values `chosen`."""
        return all(key in chosen and chosen[key] in values for key, values in self.when)

    def describe(self) -> str:
        """`one of a, b` or `from 1 to 30`, for sentences."""
        if self.kind == "categorical":
            return f"one of {', '.join(str(flat_value(choice)) for choice in self.choices)}"
        return f"a {'whole number' if self.whole else 'number'} from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class SearchSpec:
    """A checked `search.optuna` block."""

    space: tuple[Dimension, ...]
    """The searched dimensions; a dimension comes after those that its `when` refers to."""
    trials: int
    """Number of points that are asked and told."""
    metrics: tuple[str, ...] = ("val_acc",)
    modes: tuple[str, ...] = ("max",)
    """Direction of each metric, max or min."""
    sampler: str = "tpe"
    scheduler: str = "none"
    seed: int = 0
    enqueue: tuple[Mapping[str, Value], ...] = ()
    """Points that are asked first; keys that they do not set are sampled."""
    finalists: int = 1
    """Number of best points whose extra replicates decide the winner; 1 takes the best point without them."""
    finalist_seeds: int = 5
    """Extra replicates of each finalist, if there are several."""
    winner_seeds: int = 5
    """New replicates of the winner, the only ones that are tested on the test images."""

    def evaluations(self, replicates: int) -> int:
        """Largest number of evaluations of the search, with the given number of replicates per point."""
        return self.points * replicates + self.finals + self.winner_seeds

    @property
    def points(self) -> int:
        """Number of points that will be asked: `trials`, or all points of a smaller finite space."""
        if self.sampler not in NOTHING_TWICE or not all(d.finite for d in self.space):
            return self.trials
        whole = sum(1 for _ in itertools.islice(self.grid(), self.trials))
        return min(self.trials, whole + len(self.enqueue))

    @property
    def further(self) -> int:
        """Extra replicates of each finalist."""
        return self.finalist_seeds if self.finalists > 1 else 0

    @property
    def finals(self) -> int:
        """Largest number of evaluations for the extra replicates of finalists."""
        return min(self.finalists, self.points) * self.further

    @property
    def prunes(self) -> bool:
        """Whether a scheduler may stop students early."""
        return self.scheduler != "none"

    def grid(self) -> Iterator[dict[str, Value]]:
        """Every combination of a finite space, each once, in order."""
        seen = set()
        for values in itertools.product(*(dimension.values() for dimension in self.space)):
            chosen = self._asked(dict(zip((d.key for d in self.space), values, strict=True)))
            name = canonical_json(chosen)
            if name not in seen:
                seen.add(name)
                yield chosen

    def shuffled_grid(self) -> list[dict[str, Value]]:
        """The grid in a random order that depends on the seed."""
        points = list(self.grid())
        random.Random(self.seed).shuffle(points)
        return points

    def _asked(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values of the dimensions that are asked, given a value for every dimension."""
        chosen: dict[str, Value] = {}
        for dimension in self.space:
            if dimension.asked_at(chosen):
                chosen[dimension.key] = values[dimension.key]
        return chosen

    def examples(self) -> list[dict[str, Value]]:
        """Points at the ends of the space, including one for every teacher and epoch that may be needed.

        If there are too many ends, points are drawn with a fixed seed.
        """
        names = self._teacher_keys()
        determining = [d for d in self.space if d.key in names]
        first = {d.key: d.ends()[0] for d in self.space}
        found: dict[str, dict[str, Value]] = {}

        def add(values: Mapping[str, Value]) -> None:
            chosen = self._asked(values)
            found.setdefault(canonical_json(chosen), chosen)

        add({d.key: d.ends()[-1] for d in self.space})
        for values in itertools.product(*(d.values() if d.finite else d.ends() for d in determining)):
            add(first | dict(zip((d.key for d in determining), values, strict=True)))
        ends = [d.ends() for d in self.space]
        corners = 1
        for values in ends:
            corners *= len(values)
        if corners <= MOST_EXAMPLES:
            for values in itertools.product(*ends):
                add(dict(zip(first, values, strict=True)))
        else:
            generator = random.Random(0)
            for _ in range(MOST_EXAMPLES):
                add({key: generator.choice(values) for key, values in zip(first, ends, strict=True)})
        for point in self.enqueue:
            add({**first, **point})
        return list(found.values())

    def _teacher_keys(self) -> set[str]:
        """Searched keys that determine which networks a point needs, or whether such a key applies."""
        names = {d.key for d in self.space if d.key in TEACHER_KEYS}
        while more := {key for d in self.space if d.key in names for key, _ in d.when} - names:
            names |= more
        return names

    def for_kept(self, teachers: Mapping[str, TeacherSpec]) -> SearchSpec:
        """The search with a range of teacher epochs restricted to epochs whose checkpoints are kept."""
        return replace(self, space=tuple(_kept(dimension, teachers) for dimension in self.space))


def _kept(dimension: Dimension, teachers: Mapping[str, TeacherSpec]) -> Dimension:
    keeps = [set(teacher.keep) for teacher in teachers.values() if teacher.keep is not None]
    if dimension.key != "labels.teacher_epoch" or not dimension.whole or not keeps:
        return dimension
    kept = tuple(epoch for epoch in sorted(set.intersection(*keeps)) if dimension.holds(epoch))
    longest = min(teacher.epochs or dimension.high for teacher in teachers.values())
    if not kept or len(kept) == len(dimension.values()) or dimension.high > longest:
        return dimension  # an invalid range is reported when its ends are checked
    return replace(dimension, kind="categorical", choices=kept)


RUNGS, WHOLE = (1, 3, 9), 27
"""A scheduler checks a student after these fractions of its steps: each rung divided by WHOLE."""
