"""Plugins: a method from outside the package is listed, planned, run on workers and reported."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.shell import Shell

PLUGIN = '''
"""first_images: the first images of each class."""
from raydc.methods.pool import Pool, Rows
from raydc.spec.catalog import METHODS, Method


def select(pool: Pool) -> Rows:
    return pool.by_class(lambda rows: rows[: pool.ipc])


METHODS.add(Method("first-images", "first_images:select", "the first images of each class"))
'''


@pytest.mark.command
@pytest.mark.ray
@pytest.mark.slow
def test_a_method_from_a_file(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    (tmp_path / "first_images.py").write_text(PLUGIN)
    plugin = ("--plugin", "first_images.py")
    names = [row["name"] for row in json.loads(shell.process(*plugin, "list", "methods", "--json").stdout)]
    assert "first-images" in names
    assert "first-images" not in [row["name"] for row in shell.json("list", "methods")]
    grid = "grid={images.method: [first-images, random], images.ipc: [1, 2]}"
    settings = ("--set", grid, "--set", "base.train.steps=5", "--set", "seeds=1", "--out", "out")
    shell.process(*plugin, "run", "tiny.yaml", *settings)
    methods = {row["images.method"] for row in shell.json("results", "out")}
    assert methods == {"first-images", "random"}
    assert "first-images" in (tmp_path / "out" / "report.html").read_text()


def test_a_plugin_that_cannot_be_loaded(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert "is no Python file" in shell("--plugin", "nowhere.py", "list", "methods", code=2).stderr
    (tmp_path / "broken_plugin.py").write_text("import nothing_of_this_name")
    sentence = shell("--plugin", "broken_plugin.py", "list", "methods", code=2).stderr
    assert "cannot be loaded: ModuleNotFoundError" in sentence
    (tmp_path / "json.py").write_text("")
    assert (
        "is a module already"
        in shell("--plugin", str(tmp_path / "json.py"), "list", "methods", code=2).stderr
    )
    assert "RAYDC_PLUGINS" not in os.environ
