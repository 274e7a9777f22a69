"""Watching a study: what its folder and MLflow say of it while it runs and when it is over."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console
from typer.testing import CliRunner, Result

from raydc.commands import watching
from raydc.commands.app import app
from raydc.errors import InputError
from raydc.study.watch import state_of
from raydc.tracking import study_folder
from raydc.tracking.ledger import Ledger
from raydc.tracking.mlflow_tracker import MlflowTracker
from raydc.tracking.run_ids import note_run
from raydc.tracking.tracker import PLANNED
from tests.tracking.record import row

BEGAN = 1_700_000_000.0


def ended(number: int, status: str = "finished", **values: Any) -> dict[str, Any]:
    """An evaluation that ended 30 seconds after the one before it."""
    at = BEGAN + 30 * number
    return row(f"e{number}", status, started_at=at - 20, finished_at=at, seed=number, **values)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three of six evaluations have ended; one failed."""
    out = tmp_path / "study"
    study_folder.prepare(out, "s")
    (out / study_folder.STUDY).write_text("name: s\n")
    study_folder.write_plan(out, {"evaluations": 6})
    with Ledger(out) as ledger:
        ledger.append([ended(0, val_acc=0.5), ended(1, "failed"), ended(2, val_acc=0.75)])
    return out


def watch(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["watch", *arguments])


def test_a_study_that_is_going(study: Path) -> None:
    with study_folder.locked(study):
        state = state_of(str(study))
        assert watch(str(study), "--once").exit_code == 0
    assert (state.study, state.planned, state.finished, state.failed) == ("s", 6, 2, 1)
    assert state.per_minute == pytest.approx(2)
    assert state.seconds_left == pytest.approx(90)
    assert state.best == 0.75
    assert state.best_name is not None
    assert state.best_name.startswith("random ipc 10 soft")
    assert [failure.evaluation_id for failure in state.failures] == ["e1"]
    assert state.exit_code is None
    assert watching.status_line(state) == (
        f"s: 3/6 ended, 1 failed, 2/min, best 75.0 % ({state.best_name}), 1 min 30 s left"
    )


def test_looking_does_not_keep_a_run_out(study: Path) -> None:
    (study / study_folder.LOCK).touch()
    assert not study_folder.is_going(study)
    with study_folder.locked(study):
        assert study_folder.is_going(study)
        with pytest.raises(InputError, match="another run is active"), study_folder.locked(study):
            pass


def test_the_exit_code_is_that_of_the_run(study: Path) -> None:
    said = watch(str(study))
    assert said.exit_code == 130
    assert "failed: e1: EvaluationError: no <b>luck</b>" in said.stdout
    assert said.stdout.splitlines()[-1].endswith("interrupted")
    with Ledger(study) as ledger:
        ledger.append([ended(number) for number in (3, 4, 5)])
    assert watch(str(study)).exit_code == 3
    with Ledger(study) as ledger:
        ledger.append([ended(1)])
    assert watch(str(study)).exit_code == 4  # MLflow has none of them
    for number in range(6):
        note_run(study, f"e{number}", "run")
    said = watch(str(study), "--json")
    assert said.exit_code == 0
    (state,) = map(json.loads, said.stdout.splitlines())
    assert (state["finished"], state["planned"], state["exit_code"]) == (6, 6, 0)


@pytest.mark.parametrize(
    ("tracking", "said"),
    [
        ("{kind: none}", "done"),
        ("{kind: mine}", "done; whether the tracker 'mine' has every result is unknown on this machine"),
    ],
)
def test_a_study_that_mlflow_does_not_record_is_not_behind(study: Path, tracking: str, said: str) -> None:
    (study / study_folder.STUDY).write_text(f"name: s\ntracking: {tracking}\n")
    with Ledger(study) as ledger:
        ledger.append([ended(number) for number in (1, 3, 4, 5)])
    looked = watch(str(study))
    assert looked.exit_code == 0
    assert looked.stdout.rstrip().endswith(f", {said}")


def test_it_watches_until_the_end_and_says_what_is_new(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on while the watcher sleeps."""
    lock = study_folder.locked(study)
    lock.__enter__()
    left = [3, 4, 5]

    def sleep(seconds: float) -> None:
        if left:
            with Ledger(study) as ledger:
                ledger.append([ended(left.pop(0))])
        else:
            lock.__exit__(None, None, None)

    monkeypatch.setattr(watching.time, "sleep", sleep)
    monkeypatch.setattr(watching, "LINE_SECONDS", 0.0)
    said = watch(str(study))
    assert said.exit_code == 3
    lines = [line.split(",")[0] for line in said.stdout.splitlines()]
    assert lines == [
        "failed: e1: EvaluationError: no <b>luck</b>",
        *(f"s: {n}/6 ended" for n in (3, 4, 5, 6, 6)),
    ]


def test_a_reader_can_leave(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(seconds: float) -> None:
        raise KeyboardInterrupt

    with study_folder.locked(study):
        monkeypatch.setattr(watching.time, "sleep", leave)
        assert watch(str(study)).exit_code == 0


def test_a_terminal_gets_a_block(study: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    with study_folder.locked(study):
        watching._live(iter([state_of(str(study))]), console)
    shown = text.getvalue()
    for part in ("3 of 6, 1 failed", "2/min", "1 min 30 s left", "75.0 %", "no <b>luck</b>"):
        assert part in shown


def test_a_study_in_mlflow(study: Path, mlflow_file: Callable[[Path], str]) -> None:
    uri = mlflow_file(study)
    tracker = MlflowTracker(uri, "s", study)
    tracker.start()
    tracker.describe({PLANNED: 6})
    tracker.record([ended(0, val_acc=0.5), ended(1, "failed"), ended(2, val_acc=0.75)])
    assert tracker.close("failed", 60) == 0
    local, remote = state_of(str(study)), state_of("mlflow:s", uri)
    assert remote.exit_code == 3
    same = ("study", "planned", "finished", "failed", "per_minute", "best", "failures", "last_at")
    assert [getattr(remote, name) for name in same] == [getattr(local, name) for name in same]
    client = MlflowClient(uri)
    client.update_run(tracker.parent_id, status="RUNNING")
    going = state_of("mlflow:s", uri)
    assert going.exit_code is None
    assert going.seconds_left == pytest.approx(90)
    assert watch("mlflow:s", "--tracking-uri", uri, "--once").exit_code == 0


def test_runs_that_others_log(tmp_path: Path, mlflow_file: Callable[[Path], str]) -> None:
    uri = mlflow_file(tmp_path)
    client = MlflowClient(uri)
    experiment = client.create_experiment("theirs", str(tmp_path / "artifacts"))
    runs = [client.create_run(experiment).info.run_id for _ in range(3)]
    for seed, run in enumerate(runs):
        client.log_param(run, "seed", seed)
        client.log_param(run, "images.ipc", 10)
        client.log_metric(run, "test_acc", 0.5 + seed / 10)
    client.set_terminated(runs[0])
    client.set_terminated(runs[1])
    state = state_of("mlflow:theirs", uri)
    assert (state.planned, state.finished, state.running, state.exit_code) == (None, 2, 1, None)
    assert state.best == pytest.approx(0.6)
    client.set_terminated(runs[2], "FAILED")
    assert state_of("mlflow:theirs", uri).exit_code == 3


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    for arguments in ([str(tmp_path)], ["mlflow:s"]):
        assert watch(*arguments).exit_code == 2


@pytest.mark.parametrize("jump_seconds", [-3600.0, 24 * 3600.0])
def test_a_clock_that_jumps_harms_no_estimate(tmp_path: Path, jump_seconds: float) -> None:
    out = tmp_path / "study"
    study_folder.prepare(out, "s")
    (out / study_folder.STUDY).write_text("name: s\n")
    study_folder.write_plan(out, {"evaluations": 30})
    before, after = [ended(n) for n in range(10)], [ended(n) for n in range(10, 20)]
    for one in after:
        one["started_at"] += jump_seconds
        one["finished_at"] += jump_seconds
    with Ledger(out) as ledger:
        ledger.append([*before, *after])
    with study_folder.locked(out):
        state = state_of(str(out))
        assert watch(str(out), "--once").exit_code == 0
    # The rate is that of what was reckoned by one clock.
    assert state.per_minute == pytest.approx(2)
    assert state.seconds_left == pytest.approx(300)
    assert state.finished == 20
