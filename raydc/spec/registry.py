"""Registries: parts by name, checked when they are added, imported when they are first used.

An entry is a frozen description with the dotted path of its code. Listing parts and checking study files
need the description only; `load` imports the code. Entries of plugins have a digest of their code, which is
part of the ids of everything that they produce: an edited part produces new artifacts and new results.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from raydc.errors import InputError, did_you_mean, one_of

NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
CODE_DIGITS = 12
"""Hexadecimal digits of a digest of code."""


@dataclass(frozen=True)
class Source:
    """Where the entries of a plugin come from."""

    label: str
    """Name in messages, such as `--plugin mine.py`."""
    file: Path | None
    """The plugin's file, if it has one."""
    digest: str
    """SHA-256 of the file as it was run; that of no bytes if there is no file."""


_SOURCE: ContextVar[Source | None] = ContextVar("source of the entries that are added", default=None)


@contextmanager
def adding_from(source: Source) -> Iterator[None]:
    """Entries that are added in this block belong to `source`."""
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


Target: TypeAlias = str | Callable[..., Any]
"""Code as `package.module:attribute`, or the function or class of a module itself."""


def code_at(target: Target) -> Any:
    """The function or class that a target refers to; imports its module if necessary."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    found = importlib.import_module(module)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found


def path_of(target: Target) -> str:
    """`package.module:attribute` of a target."""
    if isinstance(target, str):
        return target
    return f"{getattr(target, '__module__', '')}:{getattr(target, '__qualname__', '')}"


@dataclass(frozen=True)
class Entry:
    """One registered part."""

    name: str
    """Name in study files: letters, digits and `. _ -`."""
    target: Target
    """Path of the code, as `package.module:attribute`; the function or class of a module may be given
    instead."""
    summary: str
    """One line for `raydc list`."""
    version: str = field(default="", kw_only=True)
    """Version of a plugin's code, given by its author; ids then contain it instead of the file's digest."""

    has_code: ClassVar[bool] = True
    """Whether `target` refers to code."""

    @property
    def path(self) -> str:
        """Path of the code, as `package.module:attribute`."""
        return path_of(self.target)

    def targets(self) -> tuple[Target, ...]:
        """All code that the entry refers to."""
        return (self.target,) if self.has_code else ()

    def load(self) -> Any:
        """Import and return the code of this entry."""
        return code_at(self.target)

    def problem(self) -> str | None:
        """Why this entry is invalid, as the rest of a sentence that begins with its name; None if valid."""
        if not NAME.fullmatch(self.name):
            return "has a name that a study file cannot hold; use letters, digits and . _ -"
        if not self.summary.strip() or "\n" in self.summary:
            return "must have a summary of one line"
        for path in map(path_of, self.targets()):
            if not TARGET.fullmatch(path):
                return (
                    f"has the target {path!r}, but must name its code as package.module:attribute "
                    "(a function defined in another function has no such name)"
                )
        return None

    def not_one_of(self, attribute: str, given: object, allowed: tuple[str, ...]) -> str | None:
        """The problem if a value of an attribute is not one of `allowed`; None if all are."""
        for value in given if isinstance(given, tuple | frozenset) else (given,):
            if value not in allowed:
                return (
                    f"has {attribute} {value!r}, but must have {one_of(allowed)}"
                    f"{did_you_mean(str(value), allowed)}"
                )
        return None


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """Entries of one kind by name, in the order in which they were added."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, E] = {}
        self._sources: dict[str, Source | None] = {}

    def add(self, entry: E) -> E:
        """Register `entry`.

        Raises `InputError`, with the plugin's file, for a name that is already registered and for an invalid
        entry.
        """
        source = _SOURCE.get()
        where = "" if source is None else f"{source.label}: "
        if entry.name in self._entries:
            raise InputError(f"{where}the {self.kind} {entry.name!r} is registered twice; rename one of them")
        if (problem := entry.problem()) is not None:
            raise InputError(f"{where}the {self.kind} {entry.name!r} {problem}")
        self._entries[entry.name] = entry
        self._sources[entry.name] = source
        return entry

    def added_by(self, source: Source) -> list[E]:
        """The entries that a plugin has added."""
        return [self._entries[name] for name, other in self._sources.items() if other == source]

    def remove(self, source: Source) -> None:
        """Remove the entries of a plugin."""
        for entry in self.added_by(source):
            self.discard(entry.name)

    def discard(self, name: str) -> None:
        """Remove an entry, if it exists."""
        self._entries.pop(name, None)
        self._sources.pop(name, None)

    def check_code(self, source: Source) -> None:
        """Raise `InputError` for an entry of a plugin whose code does not exist."""
        for entry in self.added_by(source):
            for target in entry.targets():
                if (problem := _missing_code(path_of(target))) is not None:
                    raise InputError(f"{source.label}: the {self.kind} {entry.name!r} {problem}")

    def code(self, name: str) -> str | None:
        """Digest of the code of a plugin's entry, with `CODE_DIGITS` digits; None for an entry of raydc.

        The digest is made from the version that the author gives, or from the contents of the file that
        holds the code and of the plugin's file.
        """
        entry, source = self[name], self._sources.get(name)
        module = entry.path.partition(":")[0]
        if not entry.has_code or (source is None and module.partition(".")[0] == "raydc"):
            return None
        hasher = hashlib.sha256()
        if entry.version:
            hasher.update(f"version {entry.version}".encode())
        else:
            hasher.update(source.digest.encode() if source is not None else b"")
            file = _file_of(module)
            if file is not None and (source is None or not _same(file, source.file)):
                hasher.update(file.read_bytes())
        return hasher.hexdigest()[:CODE_DIGITS]

    def __getitem__(self, name: str) -> E:
        if name not in self._entries:
            raise InputError(
                f"there is no {self.kind} {name!r}; choose {one_of(self._entries)}"
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


def _missing_code(path: str) -> str | None:
    """The problem if there is no code at `package.module:attribute`, as the rest of a sentence; else None.

    Modules that are not imported yet are not imported.
    """
    module, _, attribute = path.partition(":")
    if module not in sys.modules:
        try:
            found = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            found = False
        return None if found else f"has the target {path!r}, but there is no module {module!r}"
    try:
        code = code_at(path)
    except AttributeError:
        return f"has the target {path!r}, but {module} has no {attribute!r}"
    return None if callable(code) else f"has the target {path!r}, which is not a function or a class"


def _file_of(module: str) -> Path | None:
    """The file of a module, unless it is part of raydc."""
    if module.partition(".")[0] == "raydc":
        return None
    loaded = sys.modules.get(module)
    if loaded is not None:
        origin = getattr(loaded, "__file__", None)
    else:
        spec = importlib.util.find_spec(module)
        origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and Path(origin).is_file() else None


def _same(one: Path, other: Path | None) -> bool:
    """Whether two paths are one file; workers of a cluster know plugins by relative paths."""
    return other is not None and one.absolute() == other.absolute()
