"""Plugins: parts of every kind from outside the package are listed, run on workers, and told apart by their
code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shell import Shell

PLUGINS = Path(__file__).parents[1] / "plugins"
PARTS = {
    "methods": ("first_images", "first-images"),
    "augmentations": ("inverted", "inverted"),
    "losses": ("huber", "huber"),
    "schedules": ("sawtooth", "sawtooth"),
    "optimizers": ("signs", "sign-sgd"),
    "networks": ("perceptron", "perceptron"),
    "codecs": ("rounded", "rounded"),
}
GRID = """
- {labels.kind: [hard], images.method: [random, first-images]}
- {labels.kind: [hard], train.augment: [inverted]}
- {labels.kind: [hard], train.schedule: [sawtooth], train.teeth: [1, 3]}
- {labels.kind: [hard], train.optimizer: [sign-sgd], train.lr: [0.001]}
- {labels.kind: [hard], student.arch: [perceptron]}
- {labels.kind: [soft], train.loss: [soft_ce, huber]}
- {labels.kind: [soft], labels.codec: [rounded]}
"""


def options(folder: Path) -> list[str]:
    return [word for file, _ in PARTS.values() for word in ("--plugin", str(folder / f"{file}.py"))]


@pytest.mark.ray
@pytest.mark.command
@pytest.mark.slow
def test_parts_of_every_kind_run_on_the_workers(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    text = (tmp_path / "tiny.yaml").read_text()
    head, _, _ = text.partition("grid:")
    (tmp_path / "tiny.yaml").write_text(f"{head}grid:{GRID.replace(chr(10), chr(10) + '  ')}\nseeds: 1\n")
    shell.process(*options(PLUGINS), "run", "tiny.yaml", "--out", "out", "--set", "base.train.steps=20")
    rows = shell.json("results", "out")
    assert len(rows) == 10
    plain = next(row for row in rows if "code" not in " ".join(key for key in row if row[key] is not None))
    assert plain["images.method"] == "random"
    for column in ("images", "train", "labels", "student"):
        assert sum(row.get(f"{column}.code") is not None for row in rows) > 0
    told = {row["train.augment"]: row["test_loss"] for row in rows if row["labels.kind"] == "hard"}
    assert told["inverted"] != told["none"]
    losses = {row["test_loss"] for row in rows if row["labels.kind"] == "hard"}
    assert len(losses) == 7  # every part changes the result
    soft = {row["train.loss"]: row for row in rows if row["labels.codec"] == "fp16"}
    assert soft["huber"]["test_loss"] != soft["soft_ce"]["test_loss"]
    (rounded,) = (row for row in rows if row["labels.codec"] == "rounded")
    assert rounded["labels_bytes"] == 10 * 10
    assert "first-images" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.ray
@pytest.mark.command
@pytest.mark.slow
def test_a_part_that_was_edited_is_made_and_trained_again(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for file in ("first_images.py", "perceptron.py"):
        shutil.copy(PLUGINS / file, tmp_path / file)
    command = ("--plugin", "first_images.py", "--plugin", "perceptron.py", "run", "tiny.yaml", "--no-report")
    grid = "grid={images.method: [first-images, random], student.arch: [convnet-d2-w8, perceptron]}"
    settings = ("--set", grid, "--set", "base.train.steps=20", "--set", "seeds=1")
    shell.process(*command, *settings, "--out", "out")
    before = {row["evaluation_id"]: row for row in shell.json("results", "out")}
    text = (tmp_path / "first_images.py").read_text()
    (tmp_path / "first_images.py").write_text(text.replace("rows[: pool.ipc]", "rows[-pool.ipc :]"))
    text = (tmp_path / "perceptron.py").read_text()
    (tmp_path / "perceptron.py").write_text(text.replace("32", "8"))
    said = shell.process(*command, *settings, "--out", "out").stdout
    assert "3 run now, 1 finished before" in said
    after = {row["evaluation_id"]: row for row in shell.json("results", "out")}
    assert {name: row["test_acc"] for name, row in after.items() if name in before} == {
        name: row["test_acc"] for name, row in before.items()
    }
    new = [row for name, row in after.items() if name not in before]
    assert len(new) == 3
    # Rows of the old code and of the new one differ in a column that says what was evaluated.
    for row in new:
        old = next(
            other
            for other in before.values()
            if (other["images.method"], other["student.arch"]) == (row["images.method"], row["student.arch"])
        )
        assert (old.get("images.code"), old.get("student.code")) != (
            row.get("images.code"),
            row.get("student.code"),
        )
    # As in a store that has never seen the old code.
    shell.process(*command, *settings, "--out", "fresh", "--store", "fresh-store")
    fresh = {row["evaluation_id"]: row["test_acc"] for row in shell.json("results", "fresh")}
    assert {row["evaluation_id"]: row["test_acc"] for row in new}.items() <= fresh.items()
    # The command that goes on names the plugins.
    failing = ("--set", "base.train.lr=1e30", "--out", "failing")
    said = shell.process(*command, *settings, *failing, code=3).stdout
    assert f"raydc --plugin {tmp_path / 'first_images.py'} --plugin {tmp_path / 'perceptron.py'} run " in said


@pytest.mark.command
def test_a_plugin_that_cannot_be_loaded(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert "is not a Python file" in shell.process("--plugin", "nowhere.py", "list", "methods", code=2).stderr
    (tmp_path / "broken_plugin.py").write_text("import nothing_of_this_name")
    sentence = shell.process("--plugin", "broken_plugin.py", "list", "methods", code=2).stderr
    assert "cannot be loaded: ModuleNotFoundError" in sentence
    (tmp_path / "json.py").write_text("")
    sentence = shell.process("--plugin", str(tmp_path / "json.py"), "list", "methods", code=2).stderr
    assert "there is already a module" in sentence
    assert "RAYDC_PLUGINS" not in os.environ


@pytest.mark.command
def test_every_kind_is_listed(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for kind, (file, name) in PARTS.items():
        said = shell.process("--plugin", str(PLUGINS / f"{file}.py"), "list", kind, "--json").stdout
        listed = json.loads(said)
        assert [row["name"] for row in listed][-1] == name


@pytest.mark.command
@pytest.mark.slow
def test_the_contracts_of_plugins_run_with_one_line(tmp_path: Path) -> None:
    files = os.pathsep.join(str(PLUGINS / f"{file}.py") for file, _ in PARTS.values())
    command = [sys.executable, "-m", "pytest", "--pyargs", "raydc.testing", "-v", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "RAYDC_PLUGINS": files}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout
    for _, name in PARTS.values():
        assert f"[{name}" in ran.stdout or f"-{name}" in ran.stdout, name
    assert "[random" not in ran.stdout  # parts of raydc are left out
