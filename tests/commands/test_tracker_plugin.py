"""Studies with a tracker from a plugin, and with none, as the command line runs them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.shell import Shell
from tests.tracking.json_lines import plugin_text

pytestmark = [pytest.mark.command, pytest.mark.slow]

SETTINGS = (
    "--set", "grid={images.ipc: [1, 2], labels.kind: [hard, soft]}", "--set", "seeds=1",
    "--set", "base.train.steps=5", "--set", "teacher={arch: convnet-d2-w8, epochs: 1, keep: [1]}",
)  # fmt: skip
NO_MLFLOW = """
import traceback
from pathlib import Path

with Path(__file__).with_name("imports.txt").open("a") as file:
    traceback.print_stack(file=file)
raise ImportError("there is no MLflow here")
"""


def test_a_tracker_from_a_plugin(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    (tmp_path / "json_lines.py").write_text(plugin_text())
    plugin = ("--plugin", "json_lines.py")
    assert "json-lines" in [
        row["name"] for row in json.loads(shell.process(*plugin, "list", "trackers", "--json").stdout)
    ]
    chosen = (*SETTINGS, "--out", "out", "--no-report", "--set", "tracking.kind=json-lines")
    sentence = shell.process("run", "tiny.yaml", *chosen, code=2).stderr
    assert "tracking.kind is 'json-lines', but must be mlflow or none" in sentence
    sentence = shell.process(
        *plugin, "run", "tiny.yaml", *chosen, "--tracking-uri", "/proc/no/file", code=2
    ).stderr
    assert "/proc/no/file cannot be opened: No such file or directory; start the server or give" in sentence
    assert not (tmp_path / "out" / "ledger.jsonl").exists()

    said = shell.process(*plugin, "run", "tiny.yaml", *chosen).stdout
    assert "4 of 4 evaluations finished" in said
    record = tmp_path / "out" / "record.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    rows = shell.json("results", "out")
    assert sorted(line["evaluation_id"] for line in lines) == sorted(row["evaluation_id"] for row in rows)
    assert {row["mlflow_run_id"] for row in rows} == {None}
    assert not (tmp_path / "out" / "mlflow.db").exists()
    watched = shell.process("watch", "out").stdout
    assert "done; whether the tracker 'json-lines' has every result is unknown on this machine" in watched

    # What the tracker has lost is given to it again.
    record.write_text("".join(f"{json.dumps(line)}\n" for line in lines[:1]))
    synced = shell.process(*plugin, "sync", "out").stdout
    assert "4 results in the ledger (0 imported now), 0 missing in the tracker 'json-lines'" in synced
    assert len(record.read_text().splitlines()) == 4
    resumed = shell.process(*plugin, "run", "out/study.yaml", "--out", "out", "--no-report").stdout
    assert "0 run now, 4 finished before" in resumed
    assert len(record.read_text().splitlines()) == 4


def test_a_study_without_a_tracker_never_imports_mlflow(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "mlflow.py").write_text(NO_MLFLOW)
    paths = [str(tmp_path / "stub"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with_mlflow = shell.environment
    shell.environment = {**with_mlflow, "PYTHONPATH": os.pathsep.join(paths)}
    chosen = (*SETTINGS, "--out", "out", "--set", "tracking.kind=none")
    refused = shell.process(
        "run", "tiny.yaml", *chosen, "--tracking-uri", "http://127.0.0.1:9", code=2
    ).stderr
    assert "--tracking-uri is 'http://127.0.0.1:9', but tracking.kind is none, which takes no URI" in refused

    ran = shell.process("run", "tiny.yaml", *chosen)
    assert "4 of 4 evaluations finished" in ran.stdout
    assert "mlflow" not in (ran.stdout + ran.stderr).lower()
    out = tmp_path / "out"
    assert {"results.parquet", "report.html", "figures"} <= {path.name for path in out.iterdir()}
    assert not {"mlflow.db", "mlartifacts", "tracked.jsonl"} & {path.name for path in out.iterdir()}
    assert yaml.safe_load((out / "study.yaml").read_text())["tracking"] == {"kind": "none"}
    rows = shell.json("results", "out")
    assert {(row["status"], row["mlflow_run_id"]) for row in rows} == {("finished", None)}
    shell.process("report", "out")
    synced = shell.process("sync", "out").stdout
    assert synced == (
        "4 results in the ledger (0 imported now); the study has no tracker (tracking.kind is none), so "
        "nothing else was written\n"
    )
    assert (
        "--tracking-uri"
        in shell.process("sync", "out", "--tracking-uri", "http://127.0.0.1:9", code=2).stderr
    )
    assert shell.process("watch", "out").stdout.splitlines()[-1].endswith("done")
    assert "0 run now, 4 finished before" in shell.process("run", "out/study.yaml", "--out", "out").stdout
    imports = tmp_path / "stub" / "imports.txt"
    assert not imports.exists(), imports.read_text()
    # That the module in MLflow's place is the one that would be imported:
    broken = shell.process("run", "tiny.yaml", *SETTINGS, "--tracking-uri", "http://127.0.0.1:9", code=2)
    assert "there is no MLflow here" in broken.stderr
    assert imports.exists()

    # The same study is recorded later, without training anything again.
    shell.environment = with_mlflow
    later = shell.process("run", "out/study.yaml", "--out", "out", "--set", "tracking.kind=mlflow").stdout
    assert "0 run now, 4 finished before" in later
    assert sorted(shell.mlflow_ids("out")) == sorted(row["evaluation_id"] for row in rows)
