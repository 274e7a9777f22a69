"""The raydc command as a user has it: a subprocess in an empty folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import Result
from typer.testing import CliRunner

from raydc.commands.app import app
from raydc.spec.plan import Plan
from raydc.spec.study import StudySpec
from raydc.store.local import LocalStore
from raydc.tracking.ledger import Ledger
from raydc.tracking.study_folder import STUDY as STUDY_FILE
from raydc.worker.evaluate import attempt
from raydc.worker.workbench import Workbench

STUDY = """
name: tiny
dataset: digits
teacher: {arch: convnet-d2-w8, epochs: 3, keep: [1, 3], lr: 0.1, momentum: 0.9, batch_size: 64, augment: none}
base:
  images: {method: random, ipc: 1}
  student: {arch: convnet-d2-w8}
  train: {recipe: label-worth, steps: 30, augment: none, lr: 0.05}
grid:
  images.ipc: [1, 2, 4, 8]
  labels.kind: [hard, soft]
  labels.teacher_epoch: [1, 3]
seeds: 2
"""


class Counts(NamedTuple):
    """What a run says that it did."""

    finished: int
    failed: int = 0
    run_now: int = 0
    before: int = 0
    taken_over: int = 0


class Shell:
    """Runs raydc in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tiny.yaml").write_text(STUDY)
        self.environment = {**os.environ, "RAYDC_STORE": str(folder / "store"), "COLUMNS": "200"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command that is looked after by the caller."""
        return subprocess.Popen(
            [sys.executable, "-m", "raydc", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A background shell starts its children with SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its exit code must be `code`."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=500)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def run(self, out: str, *settings: str, reuse: bool = True, code: int = 0) -> Counts:
        """Run the tiny study, with some keys changed."""
        options = [option for setting in settings for option in ("--set", setting)]
        options += [] if reuse else ["--no-reuse"]
        said = self("run", "tiny.yaml", "--out", out, "--no-report", *options, code=code).stdout
        total = re.search(r"(\d+) of \d+ evaluations finished(?:, (\d+) failed)?", said)
        assert total is not None, said
        finished, failed = int(total[1]), int(total[2] or 0)
        parts = re.search(r"(\d+) run now, (\d+) finished before, (\d+) reused", said)
        return Counts(finished, failed, *(map(int, parts.groups()) if parts else (finished,)))

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """What a command with --json prints, and that it prints nothing else."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        rows = json.loads(self(*arguments, "--json").stdout, parse_constant=refuse)
        assert isinstance(rows, list)
        return rows

    def ledger_lines(self, out: str) -> list[dict[str, Any]]:
        """Every line of a ledger, doubles included."""
        return [json.loads(line) for line in (self.folder / out / "ledger.jsonl").read_text().splitlines()]

    def mlflow_ids(self, out: str, experiment: str = "tiny") -> list[str]:
        """Evaluation ids of all child runs, doubles included."""
        rows = self.json(
            "results", f"mlflow:{experiment}", "--tracking-uri", f"sqlite:///{self.folder / out}/mlflow.db"
        )
        return [row["evaluation_id"] for row in rows]


@pytest.fixture(scope="session")
def make_shell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Shell]:
    return lambda: Shell(tmp_path_factory.mktemp("shell"))


@pytest.fixture(scope="session")
def finished(make_shell: Callable[[], Shell]) -> Shell:
    """A shell in which the tiny study has run into runs/tiny."""
    shell = make_shell()
    shell.said = shell("run", "tiny.yaml").stdout  # type: ignore[attr-defined]
    return shell


def raydc(*arguments: str) -> Result:
    """A raydc command in this process."""
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def recorded(
    tmp_path: Path, ready: Callable[[StudySpec], Plan], bench: Workbench, store: LocalStore
) -> Callable[[StudySpec], Path]:
    """The folder of a study whose evaluations were run without Ray."""

    def make(study: StudySpec) -> Path:
        study = study.located(None, str(store.root))
        (tmp_path / STUDY_FILE).write_text(study.to_yaml())
        with Ledger(tmp_path) as ledger:
            ledger.append(attempt(planned, bench, study="small") for planned in ready(study).evaluations)
        return tmp_path

    return make
