"""A search: the space of points that Optuna may ask for, and what a point is judged by.

Nothing here knows Optuna; raydc.orchestration.points asks and tells it.
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
"""Samplers that are asked until they say a point that is new."""
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
"""What a point may be judged by; stored_bytes are those of images and labels together."""
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
"""Keys that decide which networks and epochs a point needs."""
MOST_EXAMPLES = 300
"""Points of a space by which it is checked beside those that teachers are known by."""


@dataclass(frozen=True)
class Dimension:
    """A key that is searched, and the values that it may take."""

    key: str
    kind: str
    """One of `KINDS`."""
    low: float = 0
    high: float = 0
    """Both ends are inside; whole numbers for int and logint."""
    choices: tuple[Value, ...] = ()
    """Of a categorical key, canonical."""
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    """The key is asked only where each of these other keys has one of its values."""

    @property
    def order(self) -> tuple[Value, ...]:
        """Listed numbers from the smallest to the largest; empty if they are not listed or not numbers."""
        listed = self.choices
        if any(isinstance(c, bool) or not isinstance(c, int | float) for c in listed):
            return ()
        return tuple(sorted(listed))

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return self.kind in ("int", "logint")

    @property
    def finite(self) -> bool:
        """Whether its values can be listed."""
        return self.whole or self.kind == "categorical"

    def values(self) -> Sequence[Value]:
        """Every value of a finite dimension."""
        return self.choices or range(int(self.low), int(self.high) + 1)

    def ends(self) -> tuple[Value, ...]:
        """All choices, or the two ends of a range."""
        return self.choices or (self.low, self.high)

    def holds(self, value: Value) -> bool:
        """Whether a canonical value is one of the dimension's."""
        if self.kind == "categorical":
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.whole or value == int(value))

    def asked_at(self, chosen: Mapping[str, Value]) -> bool:
        """Whether the key is asked where other keys have the values `chosen`."""
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
    """A dimension stands after those that its `when` names."""
    trials: int
    """Points asked and told."""
    metrics: tuple[str, ...] = ("val_acc",)
    modes: tuple[str, ...] = ("max",)
    """max or min, one for each metric."""
    sampler: str = "tpe"
    scheduler: str = "none"
    seed: int = 0
    enqueue: tuple[Mapping[str, Value], ...] = ()
    """Points that are asked first; what they leave open is sampled."""
    finalists: int = 1
    """Best points among which further replicates decide; 1 takes the best as it was told."""
    finalist_seeds: int = 5
    """Further replicates of each finalist, where there are several."""
    winner_seeds: int = 5
    """Fresh replicates of the winner; they alone see the test images."""

    def evaluations(self, replicates: int) -> int:
        """Evaluations that the search takes at most, with so many of each point."""
        return self.points * replicates + self.finals + self.winner_seeds

    @property
    def points(self) -> int:
        """Points that will be asked: `trials`, or all of a smaller finite space."""
        if self.sampler not in NOTHING_TWICE or not all(d.finite for d in self.space):
            return self.trials
        whole = sum(1 for _ in itertools.islice(self.grid(), self.trials))
        return min(self.trials, whole + len(self.enqueue))

    @property
    def further(self) -> int:
        """Replicates of each finalist beside those of every point."""
        return self.finalist_seeds if self.finalists > 1 else 0

    @property
    def finals(self) -> int:
        """Evaluations of finals, at most."""
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
        """The grid in an order that the seed fixes."""
        points = list(self.grid())
        random.Random(self.seed).shuffle(points)
        return points

    def _asked(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """What is asked of a value for every dimension."""
        chosen: dict[str, Value] = {}
        for dimension in self.space:
            if dimension.asked_at(chosen):
                chosen[dimension.key] = values[dimension.key]
        return chosen

    def examples(self) -> list[dict[str, Value]]:
        """Points at the ends of the space, among them one for every teacher and epoch that may be asked.

        A space that cannot be listed is drawn from, always in the same way.
        """
        names = self._deciding()
        deciding = [d for d in self.space if d.key in names]
        first = {d.key: d.ends()[0] for d in self.space}
        found: dict[str, dict[str, Value]] = {}

        def add(values: Mapping[str, Value]) -> None:
            chosen = self._asked(values)
            found.setdefault(canonical_json(chosen), chosen)

        add({d.key: d.ends()[-1] for d in self.space})
        for values in itertools.product(*(d.values() if d.finite else d.ends() for d in deciding)):
            add(first | dict(zip((d.key for d in deciding), values, strict=True)))
        ends = [d.ends() for d in self.space]
        corners = 1
        for values in ends:
            corners *= len(values)
        if corners <= MOST_EXAMPLES:
            for values in itertools.product(*ends):
                add(dict(zip(first, values, strict=True)))
        else:
            chance = random.Random(0)
            for _ in range(MOST_EXAMPLES):
                add({key: chance.choice(values) for key, values in zip(first, ends, strict=True)})
        for point in self.enqueue:
            add({**first, **point})
        return list(found.values())

    def _deciding(self) -> set[str]:
        """Searched keys that decide which networks a point needs, or whether such a key applies."""
        names = {d.key for d in self.space if d.key in TEACHER_KEYS}
        while more := {key for d in self.space if d.key in names for key, _ in d.when} - names:
            names |= more
        return names

    def for_kept(self, teachers: Mapping[str, TeacherSpec]) -> SearchSpec:
        """The search with a range of teacher epochs as those that are kept, where some are not."""
        return replace(self, space=tuple(_kept(dimension, teachers) for dimension in self.space))


def _kept(dimension: Dimension, teachers: Mapping[str, TeacherSpec]) -> Dimension:
    keeps = [set(teacher.keep) for teacher in teachers.values() if teacher.keep is not None]
    if dimension.key != "labels.teacher_epoch" or not dimension.whole or not keeps:
        return dimension
    kept = tuple(epoch for epoch in sorted(set.intersection(*keeps)) if dimension.holds(epoch))
    longest = min(teacher.epochs or dimension.high for teacher in teachers.values())
    if not kept or len(kept) == len(dimension.values()) or dimension.high > longest:
        return dimension  # what is wrong with it is said of its ends
    return replace(dimension, kind="categorical", choices=kept)


RUNGS, WHOLE = (1, 3, 9), 27
"""Where a scheduler looks at a student: after these parts of WHOLE of its steps."""
