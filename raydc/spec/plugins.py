"""Plugins: parts of every kind from outside the package.

A plugin is a module that adds entries to the catalogue when it is imported:

    from raydc.spec.catalog import METHODS, Method

    METHODS.add(Method("mine", "my_module:select", "one line on what it does", seeded=True))

Plugins are entry points of the group `raydc.plugins`, or files in RAYDC_PLUGINS (paths joined by the
system's path separator; `raydc --plugin FILE` sets it). Files are copied to the workers of a cluster; an
entry point must be installed on every machine. The module name of a plugin file is its name without `.py`;
a target may also be the function itself.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from raydc.errors import InputError, did_you_mean, one_of
from raydc.spec import catalog
from raydc.spec.point import cast, point_grammar
from raydc.spec.registry import Source, adding_from

GROUP = "raydc.plugins"
VARIABLE = "RAYDC_PLUGINS"


def use(given: Sequence[Path]) -> None:
    """Load plugin files in this process and in all processes that it starts."""
    if given:
        named = [str(path.absolute()) for path in (*files(), *given)]
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(named))
    load()


def files() -> list[Path]:
    """The plugin files that this process uses."""
    return [Path(path) for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]


def options() -> str:
    """The command-line options that load the same plugin files, as `--plugin FILE `; empty without files."""
    return "".join(f"--plugin {file} " for file in files())


def copy_to(folder: Path) -> dict[str, str]:
    """Copy the plugin files into `folder`; returns the environment for processes that start there."""
    for file in files():
        shutil.copyfile(file, folder / file.name)
    return {VARIABLE: os.pathsep.join(file.name for file in files())} if files() else {}


def load() -> None:
    """Load every plugin once; raises `InputError` for a plugin that cannot be loaded."""
    for entry in importlib.metadata.entry_points(group=GROUP):
        _load_entry(entry.name, entry.value)
    for path in files():
        _load_file(str(path))


def forget() -> None:
    """Let `load` load all plugins again; the entries that they have added stay registered."""
    _load_entry.cache_clear()
    _load_file.cache_clear()


@cache
def _load_entry(name: str, value: str) -> None:
    module = value.partition(":")[0]
    label = f"the plugin {name!r} ({value})"
    try:
        spec = importlib.util.find_spec(module)
    except ImportError as error:
        raise InputError(f"{label} cannot be loaded: {error!r}") from None
    origin = None if spec is None or spec.origin is None else Path(spec.origin)
    content = origin.read_bytes() if origin is not None and origin.is_file() else b""
    with _checked(Source(label, origin, hashlib.sha256(content).hexdigest())):
        importlib.import_module(module)


@cache
def _load_file(path: str) -> None:
    name, label = Path(path).stem, f"--plugin {path}"
    if Path(path).suffix != ".py" or not Path(path).is_file():
        raise InputError(f"--plugin is {path!r}, which is not a Python file; give one that ends in .py")
    if name in sys.modules:
        raise InputError(f"--plugin is {path!r}, but there is already a module {name!r}; rename the file")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"--plugin is {path!r}, which cannot be read ({error.strerror})") from None
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    try:
        with _checked(Source(label, Path(path), hashlib.sha256(content).hexdigest())):
            sys.modules[name] = module
            # Run the bytes that the digest was made from, even if the file is edited in the meantime.
            exec(compile(content, path, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise


def _check_names(source: Source) -> None:
    """Raise `InputError` for an invalid key, an unknown score or an invalid value in a recipe."""
    grammar = point_grammar()
    for method in catalog.METHODS.added_by(source):
        for score in method.scores:
            if score not in catalog.SCORES:
                raise InputError(
                    f"the method {method.name!r} has the score {score!r}, but must have "
                    f"{one_of(catalog.SCORES.names())}{did_you_mean(score, catalog.SCORES.names())}"
                )
    for recipe in catalog.RECIPES.added_by(source):
        for key, value in recipe.values.items():
            cast(grammar, key, value, f"the recipe {recipe.name!r}: ")


@contextmanager
def _checked(source: Source) -> Iterator[None]:
    """Register the entries of `source` that are added in this block; if one is invalid, all are removed."""
    try:
        with adding_from(source):
            yield
        for registry in catalog.REGISTRIES:
            registry.check_code(source)
        _check_names(source)
    except Exception as error:
        for registry in catalog.REGISTRIES:
            registry.remove(source)
        if isinstance(error, InputError):
            named = str(error).startswith(source.label)
            raise error if named else InputError(f"{source.label}: {error}") from None
        raise InputError(f"{source.label} cannot be loaded: {error!r}") from None
