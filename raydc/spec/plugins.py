"""Plugins: methods, label kinds, recipes, datasets and scores from outside the package.

A plugin is a module that adds entries to the catalogue when it is imported:

    from raydc.spec.catalog import METHODS, Method

    METHODS.add(Method("mine", "my_module:select", "one line on what it does", seeded=True))

It is found as an entry point of the group `raydc.plugins`, or as a file in RAYDC_PLUGINS (paths joined by the
system's path separator; `raydc --plugin FILE` sets it). Files are sent along to the workers of a cluster;
an entry point must be installed on every machine. A target in a file is named by the
file's own module, its stem.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from raydc.errors import InputError

GROUP = "raydc.plugins"
VARIABLE = "RAYDC_PLUGINS"


def use(given: Sequence[Path]) -> None:
    """Load plugin files here and in all processes that are started from here."""
    if given:
        named = [str(path.absolute()) for path in (*files(), *given)]
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(named))
    load()


def files() -> list[Path]:
    """The plugin files that are in use here."""
    return [Path(path) for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]


def copy_to(folder: Path) -> dict[str, str]:
    """Copy the plugin files into `folder`; what the environment tells processes that begin there of them."""
    for file in files():
        shutil.copyfile(file, folder / file.name)
    return {VARIABLE: os.pathsep.join(file.name for file in files())} if files() else {}


def load() -> None:
    """Load every plugin once; `InputError` names one that cannot be loaded."""
    for entry in importlib.metadata.entry_points(group=GROUP):
        _load_entry(entry.name, entry.value)
    for path in files():
        _load_file(str(path))


@cache
def _load_entry(name: str, value: str) -> None:
    try:
        importlib.import_module(value.partition(":")[0])
    except Exception as error:
        raise InputError(f"the plugin {name!r} ({value}) cannot be loaded: {error!r}") from None


@cache
def _load_file(path: str) -> None:
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise InputError(f"--plugin is {path!r}, which is no Python file; give one that ends in .py")
    if name in sys.modules:
        raise InputError(f"--plugin is {path!r}, whose name {name!r} is a module already; rename the file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"--plugin is {path!r}, which cannot be loaded: {error!r}") from None
