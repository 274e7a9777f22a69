"""What the shell completes, and that every command that prints a table takes --json."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raydc import commands
from raydc.commands import app as cli
from raydc.commands import completing

FOLDER = Path(commands.__file__).parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/quick", "runs/other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs" / "quick" / "study.yaml").write_text("name: quick")
    (tmp_path / "quiet.yaml").touch()
    (tmp_path / "quiet.txt").touch()
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_studies_are_those_that_come_with_raydc_and_files(here: Path) -> None:
    assert completing.studies("qui") == ["quickstart", "quiet.yaml"]
    assert completing.studies("runs/quick/") == ["runs/quick/study.yaml"]
    assert completing.studies("nowhere/") == []
    assert "runs/" in completing.studies("")
    assert ".hidden/" not in completing.studies("")


def test_folders_are_those_of_studies_and_those_on_the_way(here: Path) -> None:
    assert completing.folders("r") == ["runs/"]
    assert completing.folders("runs/") == ["runs/other/", "runs/quick"]
    assert completing.folders(f"{here}/runs/q") == [f"{here}/runs/quick"]


def test_kinds_and_reproductions() -> None:
    assert completing.kinds("re") == ["recipes", "reproductions"]
    assert "label-worth-table2" in completing.reproductions("label-worth")


@pytest.mark.parametrize(
    ("line", "offered"),
    [("raydc list me", "methods"), ("raydc run qui", "quickstart"), ("raydc watch ru", "runs/")],
)
def test_the_shell_is_offered_them(line: str, offered: str, here: Path) -> None:
    environment = {
        "_RAYDC_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    said = CliRunner().invoke(cli.app, prog_name="raydc", env=environment)
    assert offered in said.stdout.splitlines()


def calls() -> dict[str, set[str]]:
    """The names that each function of the commands calls."""
    found = {}
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                inner = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
                found[node.name] = {
                    f.id if isinstance(f, ast.Name) else f.attr
                    for f in inner
                    if isinstance(f, ast.Name | ast.Attribute)
                }
    return found


def test_every_command_that_prints_a_table_takes_json() -> None:
    graph = calls()
    printing = {"show_table"}
    while more := {name for name, called in graph.items() if called & printing} - printing:
        printing |= more
    commands_ = [command.callback for command in cli.app.registered_commands]
    tables = [c for c in commands_ if c is not None and c.__name__ in printing]
    assert {"results", "plan", "fit", "worth", "compare", "doctor"} <= {c.__name__ for c in tables}
    for command in tables:
        assert "as_json" in inspect.signature(command).parameters, command.__name__
