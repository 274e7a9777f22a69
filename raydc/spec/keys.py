"""The grammar of values: what a key of a study file may hold, and where it applies.

A `Kind` casts a given value to its canonical form, or raises an error that describes the allowed values. A
`Key` is a dotted name with a kind, a default and the conditions under which it applies. Ids, tables of
results and the reference pages of the docs are made from keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from raydc.errors import InputError, did_you_mean, one_of

Value: TypeAlias = Any
"""None, bool, int, float, str, or a tuple of these: a JSON value, frozen."""
Point: TypeAlias = Mapping[str, Value]
"""Canonical values by dotted key; a key that does not apply is absent."""


LARGEST = 2**63 - 1
"""Largest whole number; tables and random number generators hold 64 bits."""


class Kind(Protocol):
    """A set of allowed values."""

    def cast(self, given: Value) -> Value:
        """The canonical form of `given`; raises `ValueError`, possibly with a hint, if not allowed."""

    def describe(self) -> str:
        """The allowed values, in words that follow `must be`."""


@dataclass(frozen=True)
class Whole:
    """A whole number in [low, high]."""

    low: int | None = None
    high: int | None = None

    def cast(self, given: Value) -> int:
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise ValueError
        if not math.isfinite(given) or given != int(given):
            raise ValueError
        value = int(given)
        if abs(value) > LARGEST:
            raise ValueError("the largest number is 2**63 - 1")
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            raise ValueError
        return value

    def describe(self) -> str:
        if self.low is None:
            return "a whole number"
        if self.high is None:
            return f"a whole number of at least {self.low}"
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Real:
    """A finite number; `low` and `high` are inclusive bounds, `above` and `below` exclusive bounds."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def cast(self, given: Value) -> float:
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise ValueError
        try:
            value = float(given)
        except OverflowError:
            raise ValueError from None
        if (
            not math.isfinite(value)
            or (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        ):
            raise ValueError
        return value + 0.0  # -0.0 and 0.0 are one value

    def describe(self) -> str:
        bounds = [
            f"{word} {limit:g}"
            for word, limit in (
                ("at least", self.low),
                ("above", self.above),
                ("at most", self.high),
                ("below", self.below),
            )
            if limit is not None
        ]
        return " ".join(["a finite number", " and ".join(bounds)]).strip()


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def cast(self, given: Value) -> bool:
        if not isinstance(given, bool):
            raise ValueError
        return given

    def describe(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Text:
    """A non-empty string, optionally of a given form."""

    pattern: str | None = None
    form: str = "a string"

    def cast(self, given: Value) -> str:
        if not isinstance(given, str) or not given.strip():
            raise ValueError
        if self.pattern is not None and not re.fullmatch(self.pattern, given):
            raise ValueError
        return given

    def describe(self) -> str:
        return self.form


@dataclass(frozen=True)
class Choice:
    """One of the given names; a callable is called each time, so that names of plugins are included."""

    names: tuple[str, ...] | Callable[[], tuple[str, ...]]

    def options(self) -> tuple[str, ...]:
        return self.names() if callable(self.names) else self.names

    def cast(self, given: Value) -> str:
        if not isinstance(given, str) or given not in self.options():
            raise ValueError(did_you_mean(str(given), self.options()).removeprefix("; "))
        return given

    def describe(self) -> str:
        return one_of(self.options())


@dataclass(frozen=True)
class OneOf:
    """A value of any of several kinds, tried in order."""

    kinds: tuple[Kind, ...]

    def cast(self, given: Value) -> Value:
        hints = []
        for kind in self.kinds:
            try:
                return kind.cast(given)
            except ValueError as error:
                hints.append(str(error))
        raise ValueError(next(filter(None, hints), ""))

    def describe(self) -> str:
        return one_of(kind.describe() for kind in self.kinds)


@dataclass(frozen=True)
class Many:
    """A list of values of one kind, with at least `low` and at most `high` of them."""

    item: Kind
    low: int = 1
    high: int | None = None
    form: str | None = None

    def cast(self, given: Value) -> tuple[Value, ...]:
        if not isinstance(given, list | tuple):
            raise ValueError
        if len(given) < self.low or (self.high is not None and len(given) > self.high):
            raise ValueError
        return tuple(self.item.cast(value) for value in given)

    def describe(self) -> str:
        return self.form or f"a list, each item {self.item.describe()}"


@dataclass(frozen=True)
class Where:
    """The condition that `key` has one of `values`, or, if it holds a list, that the list contains one."""

    key: str
    values: tuple[Value, ...]

    def holds(self, point: Point) -> bool:
        value = point.get(self.key)
        if isinstance(value, tuple):
            return any(item in self.values for item in value)
        return value in self.values

    def __str__(self) -> str:
        return f"{self.key} is {one_of(self.values)}"


@dataclass(frozen=True)
class AnyOf:
    """The condition that all conditions of at least one group hold."""

    groups: tuple[tuple[Where | AnyOf, ...], ...]

    def holds(self, point: Point) -> bool:
        return any(all(where.holds(point) for where in group) for group in self.groups)

    def __str__(self) -> str:
        return ", or ".join(" with ".join(str(where) for where in group) for group in self.groups)


REQUIRED: Any = object()
"""Default of a key that a study must set."""
DERIVED: Any = object()
"""Default of a key that the recipe or the teacher sets."""


@dataclass(frozen=True)
class Key:
    """One key of a study point."""

    name: str
    """Dotted name, such as `labels.temperature`."""
    kind: Kind
    """Kind of the values; null is also allowed if the default is null."""
    summary: str
    """Meaning, with units."""
    default: Value = REQUIRED
    """Value if the key is not given; REQUIRED and DERIVED are special."""
    where: tuple[Where | AnyOf, ...] = ()
    """Conditions that must all hold for the key to apply."""
    inert: bool = False
    """Whether the default changes nothing. Ids then omit it, so that later versions can add keys without
    renaming old results."""
    file: bool = False
    """Whether the value is the path of a file; ids contain the digest of its contents instead of the path."""

    def applies(self, point: Point) -> bool:
        return all(condition.holds(point) for condition in self.where)

    def conditions(self) -> str:
        """Where the key applies, in words."""
        return " and ".join(str(condition) for condition in self.where) or "everywhere"

    def describe(self) -> str:
        allowed = self.kind.describe()
        return f"{allowed}, or null" if self.default is None else allowed

    def cast(self, given: Value) -> Value:
        """The canonical value; raises `ValueError` with one clause: what was given and what is allowed."""
        if given is None and self.default is None:
            return None
        try:
            return self.kind.cast(given)
        except ValueError as error:
            hint = f"; {error}" if str(error) else ""
            raise ValueError(f"is {show(given)}, but must be {self.describe()}{hint}") from None


def show(given: Value) -> str:
    """`given` as it is written in a study file, shortened to 60 characters."""
    if given is None:
        return "null"
    if isinstance(given, bool):
        return str(given).lower()
    text = repr(given) if not isinstance(given, tuple) else repr(list(given))
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class Grammar:
    """An ordered set of keys; a key comes after the keys that its conditions refer to."""

    keys: Mapping[str, Key] = field(default_factory=dict)

    @staticmethod
    def of(keys: Iterable[Key]) -> Grammar:
        table: dict[str, Key] = {}
        for key in keys:
            if key.name in table:
                raise InputError(f"the key {key.name} is declared twice; give one of them another name")
            table[key.name] = key
        return Grammar(table)

    @cached_property
    def blocks(self) -> Mapping[str, Mapping[str, Key]]:
        """Keys by block and by their name inside the block."""
        blocks: dict[str, dict[str, Key]] = {}
        for name, key in self.keys.items():
            block, _, rest = name.partition(".")
            blocks.setdefault(block, {})[rest] = key
        return blocks

    def block(self, block: str) -> Mapping[str, Key]:
        """Keys of one block, by their name inside the block."""
        return self.blocks[block]
