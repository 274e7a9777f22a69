"""Selection of the parts to test: those of plugins, or all parts of raydc if there is no plugin."""

from __future__ import annotations

from typing import TypeVar

import pytest

from raydc.spec import catalog, plugins
from raydc.spec.registry import Entry, Registry

E = TypeVar("E", bound=Entry)


def under_test(registry: Registry[E]) -> list[E]:
    """Entries of a registry to test."""
    plugins.load()
    own = {(r.kind, name) for r in catalog.REGISTRIES for name in r.names() if r.code(name) is not None}
    return [entry for entry in registry if not own or (registry.kind, entry.name) in own]


def each(argument: str, registry: Registry[E]) -> pytest.MarkDecorator:
    """Parametrize a test by the entries of a registry to test."""
    return pytest.mark.parametrize(argument, under_test(registry), ids=lambda entry: entry.name)
