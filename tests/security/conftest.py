"""The canary: it sings where code from a file was run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.shell import STUDY


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """The folder that a bomb makes; the test fails if it is there in the end."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code from a file was run"


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in a folder with `tiny.yaml`; returns the sentence with which it is refused."""
    from typer.testing import CliRunner

    from raydc.commands.app import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYDC_STORE", str(tmp_path / "store"))
    Path("tiny.yaml").write_text(STUDY)

    def refuse(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        (line,) = result.stderr.strip().splitlines()
        assert line.startswith("error: ")
        return line

    return refuse
