"""Searches as a user runs them: killed, failing, stopped early, and looked at."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from raydc.search.points import open_storage
from tests.shell import Shell

pytestmark = pytest.mark.slow

SEARCH = """
name: tiny-search
dataset: digits
teacher: {arch: convnet-d2-w8, epochs: 2, lr: 0.1, momentum: 0.9, batch_size: 64, augment: none}
base:
  images: {method: random, ipc: 2}
  labels: {kind: soft}
  student: {arch: convnet-d2-w8}
  train: {recipe: label-worth, steps: 20, augment: none}
search:
  optuna:
    trials: 10
    winner_seeds: 3
    enqueue: [{train.lr: 1.0e+30, labels.temperature: 1, labels.teacher_epoch: 1}]
    space:
      labels.temperature: {loguniform: [0.5, 20]}
      labels.teacher_epoch: {int: [1, 2]}
      train.lr: {categorical: [0.02, 0.05, 1.0e+30]}
seeds: 2
"""


@pytest.fixture
def shell(make_shell: Callable[[], Shell]) -> Shell:
    made = make_shell()
    (made.folder / "search.yaml").write_text(SEARCH)
    return made


def trials(folder: Path) -> list[Any]:
    """What Optuna's storage holds, as anyone can read it."""
    study = optuna.load_study(study_name="tiny-search", storage=open_storage(folder / "search.db"))
    return study.get_trials()


def lines(folder: Path) -> list[dict[str, Any]]:
    ledger = folder / "ledger.jsonl"
    return [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []


@pytest.mark.command
def test_a_killed_search_loses_no_point_and_trains_none_twice(shell: Shell, ray_cluster: object) -> None:
    out = shell.folder / "out"
    arguments = ("run", "search.yaml", "--out", "out")
    process = shell.start(*arguments)
    deadline = time.monotonic() + 300
    while len(lines(out)) < 7 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    before = lines(out)
    assert len(before) < 23
    said = shell(*arguments, code=3).stdout
    states = Counter(trial.state.name for trial in trials(out))
    assert sum(states.values()) == 10
    assert set(states) == {"COMPLETE", "FAIL"}
    assert trials(out)[0].state.name == "FAIL"
    assert "the loss is" in trials(out)[0].user_attrs["raydc.reason"]
    rows = lines(out)
    assert rows[: len(before)] == before
    assert max(Counter(row["evaluation_id"] for row in rows).values()) == 1
    assert len(rows) == 10 * 2 + 3
    # Three fresh replicates of the winner are tested, and nobody else.
    tested = [row for row in rows if row["test_acc"] is not None]
    assert [row["seed"] for row in sorted(tested, key=lambda row: row["seed"])] == [2, 3, 4]
    won = re.search(
        r"The winner is trial (\d+), .*: val_acc ([\d.]+) % \(mean of 2 replicates\), test_acc", said
    )
    assert won is not None, said
    assert {row["trial"] for row in tested} == {int(won[1])}
    own = [row["val_acc"] for row in rows if row["trial"] == int(won[1]) and row["test_acc"] is None]
    assert float(won[2]) == pytest.approx(100 * sum(own) / 2, abs=0.051)
    assert f"10 of 10 points told: {states['COMPLETE']} complete, {states['FAIL']} failed." in said
    # MLflow has every evaluation with its trial; the report has the search.
    recorded = shell.json("results", "mlflow:tiny-search", "--tracking-uri", f"sqlite:///{out}/mlflow.db")
    assert {row["evaluation_id"]: row["trial"] for row in recorded} == {
        row["evaluation_id"]: row["trial"] for row in rows
    }
    report = (out / "report.html").read_text()
    assert '<section id="search">' in report
    assert "<h3>Best points</h3>" in report
    assert won[0].partition(":")[0] in report
    # A third run has nothing to do, and more trials go on from there.
    assert "0 run now" in shell(*arguments, code=3).stdout
    assert lines(out) == rows
    plan = {row["what"]: row for row in shell.json("plan", "search.yaml", "--out", "out")}
    assert plan["evaluations"]["count"] == 23
    assert plan["evaluations"]["note"] == "at most: 10 points x 2 replicates, and 3 of the winner"
    said = shell(*arguments, "--set", "search.optuna.trials=12", code=3).stdout
    assert "12 of 12 points told" in said
    other = ("run", "search.yaml", "--out", "out", "--set", "base.train.steps=21")
    assert "holds a search of another space" in shell(*other, code=2).stderr


def test_a_scheduler_stops_students(shell: Shell, ray_cluster: object) -> None:
    settings = (
        "search.optuna.trials=14",
        "search.optuna.scheduler=median",
        "search.optuna.winner_seeds=0",
        "search.optuna.enqueue=[]",
        "search.optuna.space.train.lr={loguniform: [0.0001, 0.1]}",
        "base.train.steps=54",
    )
    options = [option for setting in settings for option in ("--set", setting)]
    said = shell("run", "search.yaml", "--out", "judged", *options).stdout
    rows = lines(shell.folder / "judged")
    stopped = [row for row in rows if row["status"] == "stopped"]
    assert stopped
    assert re.search(rf"14 of 14 points told: \d+ complete, {len(stopped)} stopped\.", said)
    for row in stopped:
        assert re.fullmatch(r"StoppedError: after (2|6|18) of 54 steps, with val_acc 0\.\d+", row["error"])
        assert row["seed"] == 0
        assert row["val_acc"] is row["test_acc"] is None
    pruned = [trial for trial in trials(shell.folder / "judged") if trial.state.name == "PRUNED"]
    assert sorted(trial.number for trial in pruned) == sorted(row["trial"] for row in stopped)
    assert all(row["test_acc"] is None for row in rows)


def test_a_search_is_not_exported(shell: Shell) -> None:
    said = shell("plan", "search.yaml", "--export", "file.jsonl", code=2).stderr
    assert "is a search, whose points are not known before they are asked" in said
