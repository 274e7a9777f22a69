"""The `search` block of a study file as a `SearchSpec`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raydc.errors import InputError, did_you_mean, one_of
from raydc.spec import point
from raydc.spec.keys import Choice, Grammar, Key, Kind, Value, Whole, show
from raydc.spec.search import KINDS, METRICS, SAMPLERS, SCHEDULERS, Dimension, SearchSpec

MOST_GRID_POINTS = 100_000


@dataclass(frozen=True)
class _OneOrMore:
    """A value of one kind, or a list of values; kept as a list."""

    item: Kind

    def cast(self, given: Value) -> tuple[Value, ...]:
        listed = given if isinstance(given, list | tuple) else [given]
        if not listed:
            raise ValueError
        return tuple(self.item.cast(value) for value in listed)

    def describe(self) -> str:
        return f"{self.item.describe()}, or a list of them for several objectives"


@dataclass(frozen=True)
class _Metric:
    """A column that points may be judged by."""

    def cast(self, given: Value) -> str:
        if isinstance(given, str) and "test" in given:
            raise ValueError("test images are not used for selection")
        return Choice(METRICS).cast(given)

    def describe(self) -> str:
        return one_of(METRICS)


@dataclass(frozen=True)
class _Points:
    """A list of points; their keys are checked against the space."""

    def cast(self, given: Value) -> tuple[Mapping[str, Value], ...]:
        if not isinstance(given, list | tuple) or not all(isinstance(item, Mapping) for item in given):
            raise ValueError
        return tuple(given)

    def describe(self) -> str:
        return "a list of mappings of searched keys to values"


@dataclass(frozen=True)
class _Space:
    """A mapping of dotted keys; the value of each key is checked separately."""

    def cast(self, given: Value) -> Mapping[str, Value]:
        if not isinstance(given, Mapping):
            raise ValueError
        if not given:
            raise ValueError("it is empty")
        return given

    def describe(self) -> str:
        return f"a mapping of dotted keys, each with {_FORMS}"


_FORMS = one_of([*(f"{{{kind}: [LOW, HIGH]}}" for kind in KINDS[:-1]), "{categorical: [...]}"])

OPTUNA = Grammar.of(
    [
        Key("trials", Whole(1), "points that are asked and told; each runs `seeds` evaluations"),
        Key(
            "metric",
            _OneOrMore(_Metric()),
            "metric by which a point is judged, as the mean over `seeds`",
            ("val_acc",),
        ),
        Key("mode", _OneOrMore(Choice(("max", "min"))), "direction of each metric", ("max",)),
        Key("sampler", Choice(SAMPLERS), "algorithm that proposes points", "tpe"),
        Key(
            "scheduler",
            Choice(SCHEDULERS),
            "algorithm that stops students early, by val_acc during training",
            "none",
        ),
        Key("seed", Whole(0, 2**31 - 1), "seed of the sampler", 0),
        Key("finalists", Whole(1), "number of best points whose extra replicates decide the winner", 1),
        Key("finalist_seeds", Whole(1), "extra replicates of each finalist, if there are several", 5),
        Key("winner_seeds", Whole(0), "new replicates of the winner, the only ones tested on test images", 5),
        Key("enqueue", _Points(), "points that are asked first", ()),
        Key("space", _Space(), "searched keys; `when: {KEY: VALUE}` restricts a key to this condition"),
    ]
)
"""Keys of `search.optuna`."""


def search_of(grammar: Grammar, given: Mapping[str, Any] | None, source: str) -> SearchSpec | None:
    """The search that a block describes; `InputError` gives the file, the dotted key and what is allowed."""
    if given is None:
        return None
    where = f"{source}: search."
    for name in given:
        if name != "optuna":
            raise InputError(f"{where}{name} is not a key of search; use optuna")
    block = given.get("optuna")
    if not isinstance(block, dict):
        raise InputError(f"{where}optuna is {show(block)}, but must be a mapping with trials and space")
    where += "optuna."
    values = {name: _value(name, block, where) for name in OPTUNA.keys}
    for name in block:
        if name not in OPTUNA.keys:
            raise InputError(
                f"{where}{name} is not a key of optuna; choose {one_of(OPTUNA.keys)}"
                f"{did_you_mean(name, OPTUNA.keys)}"
            )
    space = _ordered(
        [_dimension(grammar, key, part, f"{where}space.") for key, part in values["space"].items()], where
    )
    search = SearchSpec(
        space=space,
        trials=values["trials"],
        metrics=values["metric"],
        modes=values["mode"],
        sampler=values["sampler"],
        scheduler=values["scheduler"],
        seed=values["seed"],
        finalists=values["finalists"],
        finalist_seeds=values["finalist_seeds"],
        winner_seeds=values["winner_seeds"],
    )
    search = replace(search, enqueue=_enqueued(grammar, search, values["enqueue"], f"{where}enqueue"))
    _check_together(search, where)
    return search


def _value(name: str, block: Mapping[str, Any], where: str) -> Value:
    key = OPTUNA.keys[name]
    if name not in block:
        try:
            return key.kind.cast(key.default)
        except ValueError:
            raise InputError(f"{where}{name} is missing; it must be {key.describe()}") from None
    try:
        return key.cast(block[name])
    except ValueError as error:
        raise InputError(f"{where}{name} {error}") from None


def _dimension(grammar: Grammar, key: str, given: Any, where: str) -> Dimension:
    if key not in grammar.keys:
        raise InputError(point.key_error(grammar, key, where))
    kinds = [name for name in given if name != "when"] if isinstance(given, dict) else []
    if len(kinds) != 1 or kinds[0] not in KINDS:
        hint = did_you_mean(kinds[0], KINDS) if kinds else ""
        raise InputError(f"{where}{key} is {show(given)}, but must be {_FORMS}{hint}")
    kind = kinds[0]
    values = given[kind]
    if not isinstance(values, list) or not values or (kind != "categorical" and len(values) != 2):
        form = "a list of values" if kind == "categorical" else "[LOW, HIGH]"
        raise InputError(f"{where}{key}.{kind} is {show(values)}, but must be {form}")
    cast = tuple(dict.fromkeys(point.cast(grammar, key, value, where) for value in values))
    when = _conditions(grammar, given.get("when", {}), f"{where}{key}.when")
    if kind == "categorical":
        return Dimension(key, kind, choices=cast, when=when)
    _check_range(kind, cast, f"{where}{key}.{kind} is {show(values)}", f"{where}{key}.{kind}")
    whole = kind in ("int", "logint")
    ends = cast[0] % 1 == cast[-1] % 1 == 0
    if whole != all(isinstance(end, int) for end in cast) and not (whole and ends):
        allowed = "two whole numbers, or uniform or loguniform" if whole else "int or logint"
        raise InputError(
            f"{where}{key}.{kind} is {show(values)}, but {key} holds {grammar.keys[key].kind.describe()}; "
            f"give {allowed}"
        )
    return Dimension(key, kind, low=cast[0], high=cast[-1], when=when)


def _check_range(kind: str, ends: tuple[Value, ...], given: str, at: str) -> None:
    """Raise `InputError` unless two ends form a range of a kind."""
    number = all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
    if not number or ends[0] >= ends[-1]:
        raise InputError(
            f"{given}, but must be two numbers, the smaller one first"
            + ("" if number else "; list the values in categorical")
        )
    if kind.startswith("log") and ends[0] <= 0:
        raise InputError(f"{at} begins at {ends[0]:g}, but a logarithmic range must begin above 0")


def _conditions(grammar: Grammar, given: Any, where: str) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    if not isinstance(given, dict):
        raise InputError(f"{where} is {show(given)}, but must be a mapping of searched keys to values")
    conditions = []
    for key, values in given.items():
        listed = values if isinstance(values, list) else [values]
        conditions.append((key, tuple(point.cast(grammar, key, value, f"{where}.") for value in listed)))
    return tuple(conditions)


def _ordered(space: list[Dimension], where: str) -> tuple[Dimension, ...]:
    """The dimensions, each after those that its conditions refer to."""
    named = {dimension.key: dimension for dimension in space}
    for dimension in space:
        for key, values in dimension.when:
            at = f"{where}space.{dimension.key}.when"
            if key not in named:
                raise InputError(
                    f"{at} names {key}, which is not searched; choose {one_of(named)}"
                    f"{did_you_mean(key, named)}"
                )
            for value in values:
                if not named[key].holds(value):
                    raise InputError(f"{at}.{key} is {show(value)}, but {key} is {named[key].describe()}")
    for key, rival in point.EXCLUSIVE_KEYS.items():
        if key in named and rival in named:
            raise InputError(f"{where}space has both {key} and {rival}, which exclude each other; keep one")
    ordered: dict[str, Dimension] = {}
    while len(ordered) < len(space):
        ready = [d for d in space if d.key not in ordered and all(key in ordered for key, _ in d.when)]
        if not ready:
            waiting = one_of(d.key for d in space if d.key not in ordered).replace(" or ", " and ")
            raise InputError(f"{where}space: {waiting} depend on each other by `when`; remove one condition")
        ordered |= {dimension.key: dimension for dimension in ready}
    return tuple(ordered.values())


def _enqueued(
    grammar: Grammar, search: SearchSpec, given: tuple[Mapping[str, Any], ...], where: str
) -> tuple[Mapping[str, Value], ...]:
    dimensions = {dimension.key: dimension for dimension in search.space}
    points = []
    for number, content in enumerate(given):
        at = f"{where}.{number}."
        chosen = {}
        for key, value in content.items():
            if key not in dimensions:
                raise InputError(
                    f"{at}{key} is not searched; the space has {one_of(dimensions)}"
                    f"{did_you_mean(key, dimensions)}"
                )
            chosen[key] = point.cast(grammar, key, value, at)
            if not dimensions[key].holds(chosen[key]):
                raise InputError(f"{at}{key} is {show(value)}, but must be {dimensions[key].describe()}")
        if chosen in points:
            raise InputError(f"{where} gives the point {number} twice; remove one of them")
        points.append(chosen)
    return tuple(points)


def _check_together(search: SearchSpec, where: str) -> None:
    """Raise `InputError` for values that exclude each other."""
    if len(search.metrics) != len(search.modes):
        raise InputError(
            f"{where}mode is {show(search.modes)}, but must be max or min for each of the "
            f"{len(search.metrics)} metrics"
        )
    if len(set(search.metrics)) < len(search.metrics):
        raise InputError(f"{where}metric is {show(search.metrics)}, which lists one twice; keep one")
    if len(search.metrics) > 1 and search.sampler == "cmaes":
        raise InputError(
            f"{where}sampler is cmaes, which supports one objective only; use tpe, gp, nsga2, random or grid"
        )
    if search.prunes and search.metrics != ("val_acc",):
        raise InputError(
            f"{where}scheduler is {search.scheduler}, which stops students by val_acc, but metric is "
            f"{show(search.metrics)}; use none, or val_acc only"
        )
    if search.sampler != "grid":
        return
    for dimension in search.space:
        if not dimension.finite:
            raise InputError(
                f"{where}sampler is grid, but space.{dimension.key} is {dimension.kind}, which cannot be "
                "listed; give the values in categorical"
            )
    size = math.prod(len(dimension.values()) for dimension in search.space)
    if size > MOST_GRID_POINTS:
        raise InputError(
            f"{where}sampler is grid, but space has {size:,} combinations, and at most {MOST_GRID_POINTS:,} "
            "are listed; use random"
        )
