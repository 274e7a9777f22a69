"""Registries: what there is, by name, without importing it.

An entry is a frozen description with a dotted path to its code. Listing and validating need the
description only; `load` imports the code when it is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from raydc.errors import InputError, did_you_mean, one_of


@dataclass(frozen=True)
class Entry:
    """One registered thing."""

    name: str
    """What study files call it."""
    target: str
    """Where its code is, as `package.module:attribute`."""
    summary: str
    """One line for `raydc list`."""

    def load(self) -> Any:
        """Import and return the code of this entry."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """Entries of one kind by name, in the order of registration."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, E] = {}

    def add(self, entry: E) -> E:
        """Register `entry`; a name that is taken raises `InputError`."""
        if entry.name in self._entries:
            raise InputError(f"the {self.kind} {entry.name!r} is registered twice; rename one of them")
        self._entries[entry.name] = entry
        return entry

    def __getitem__(self, name: str) -> E:
        if name not in self._entries:
            raise InputError(
                f"there is no {self.kind} {name!r}; there are {one_of(self._entries)}"
                f"{did_you_mean(name, self._entries)}"
            )
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[E]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)
