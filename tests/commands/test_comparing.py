"""raydc compare on what raydc's tracker and other programs have logged to MLflow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mlflow
import pytest
from typer.testing import CliRunner, Result

from raydc.commands.app import app
from raydc.tracking.ledger import Ledger
from raydc.tracking.mlflow_tracker import MlflowTracker
from tests.analysis.test_compare import method

DOCS = Path(__file__).parents[2] / "docs"


def raydc(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["compare", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A study's folder with two methods."""
    path = tmp_path / "ours"
    path.mkdir()
    with Ledger(path) as ledger:
        ledger.append(ours())
    return str(path)


def ours() -> list[dict[str, Any]]:
    found = []
    for ipc in (1, 10):
        found += method("random", ipc, [0.50, 0.52, 0.51], study="ours", attempts=1, started_at=0.5)
        found += method("el2n", ipc, [0.60, 0.61, 0.64], study="ours", attempts=1, started_at=0.5)
    return found


def test_files_and_json(folder: str, tmp_path: Path) -> None:
    names = {kind: str(tmp_path / f"table.{kind}") for kind in ("csv", "markdown", "latex")}
    options = [part for kind, name in names.items() for part in (f"--{kind}", name)]
    result = raydc(folder, "--by", "images.method", "--json", *options)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["scope"] for row in rows] == ["overall", "ipc", "ipc", "configuration", "configuration"]
    assert (rows[0]["baseline"], rows[0]["winner"], rows[0]["pairs"]) == ("random", "el2n", 6)
    lines = Path(names["csv"]).read_text().splitlines()
    assert lines[0].startswith("scope,baseline,level,images.ipc,metric,baseline_mean")
    assert lines[4].startswith("configuration,random,el2n,1,test_acc,0.51,0.61")
    assert "| el2n | random | +10.7 * |" in Path(names["markdown"]).read_text()
    assert r"\toprule" in Path(names["latex"]).read_text()
    assert "Winner at each IPC" in raydc(folder, "--by", "images.method").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "is one study; give another one"),
        (("--by", "images.metod"), "did you mean images.method"),
        (("--by", "images.method", "--metric", "accuracy"), "--metric is 'accuracy', but must be"),
        (("--by", "images.method", "--baseline", "x"), "--baseline is 'x'"),
        (("--by", "images.method", "--only", "seed=7"), "matches no result"),
        (("--by", "images.method", "--csv", "no/where.csv"), "cannot be written"),
        (("nowhere",), "holds no study"),
        (("mlflow:x",), "give --tracking-uri"),
    ],
)
def test_refusals(folder: str, arguments: tuple[str, ...], said: str) -> None:
    result = raydc(folder, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert said in line


@pytest.mark.command  # MLflow asks git for its version
@pytest.mark.mlflow
def test_runs_of_others_are_as_good_as_ours(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = MlflowTracker(uri, "ours", tmp_path)
    tracker.start()
    tracker.record(ours())
    assert tracker.close("finished", 60) == 0
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "mlflow.md").read_text(), re.DOTALL)
    (snippet,) = (block for block in blocks if "set_tracking_uri" in block)
    try:
        exec(snippet, {"uri": uri})
    finally:
        mlflow.set_tracking_uri(None)  # which unsets the variable, too
    result = raydc("mlflow:ours", "mlflow:theirs", "--tracking-uri", uri, "--json")
    assert result.exit_code == 0, result.output
    overall = {row["baseline"]: row for row in json.loads(result.stdout) if row["scope"] == "overall"}
    assert set(overall) == {"ours, random", "ours, el2n"}
    assert overall["ours, random"]["difference"] == pytest.approx(0.64 - 0.51)
    assert overall["ours, el2n"]["pairs"] == 3
