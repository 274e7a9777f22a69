"""The raydc command as a user has it, in an empty folder: in this process, or in one of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import traceback
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

if TYPE_CHECKING:
    from click.testing import Result

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


def raydc(*arguments: str) -> Result:
    """A raydc command in this process."""
    from typer.testing import CliRunner

    from raydc.commands.app import app

    return CliRunner().invoke(app, list(arguments))


class Counts(NamedTuple):
    """What a run says that it did."""

    finished: int
    failed: int = 0
    run_now: int = 0
    before: int = 0
    taken_over: int = 0


class Shell:
    """Runs raydc in a folder of its own.

    A call runs a command in this process. A study that has something left to train needs the fixture
    `ray_cluster` for that. `process` and `start` run it in a process of its own, which starts its own Ray.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tiny.yaml").write_text(STUDY)
        self.environment = {"RAYDC_STORE": str(folder / "store"), "COLUMNS": "200"}
        """What is set beside the environment of this process."""

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a process of its own that is looked after by the caller."""
        return subprocess.Popen(
            [sys.executable, "-m", "raydc", *arguments],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A background shell starts its children with SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def process(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in a process of its own; its exit code must be `code`."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=500)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in this process; its exit code must be `code`."""
        with chdir(self.folder), patch.dict(os.environ, self.environment):
            result = raydc(*arguments)
        trace = "".join(traceback.format_exception(*result.exc_info)) if result.exc_info else ""
        assert result.exit_code == code, f"exit code {result.exit_code}\n{result.output}\n{trace}"
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)

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
