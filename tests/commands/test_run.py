"""The main job: runs, resumes, grows, shares, survives kills, and says what happened."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raydc
from raydc.study.sync import sync
from raydc.tracking.ledger import read_rows
from raydc.tracking.mlflow_record import read_experiment
from tests.shell import STUDY, Counts, Shell

pytestmark = pytest.mark.slow

EVALUATIONS = 4 * (1 + 2) * 2
# fmt: off
COLUMNS = [
    "evaluation_id", "study", "seed", "status", "images.method", "images.ipc", "labels.kind",
    "labels.teacher", "labels.teacher_epoch", "labels.temperature", "student.arch", "train.recipe",
    "train.lr", "train.steps", "train.augment", "teacher.arch", "dataset.name", "test_acc",
    "best_test_acc", "val_acc", "test_loss", "train_acc", "test_acc_by_class", "teacher_test_acc",
    "images_bytes", "labels_bytes", "steps", "train_seconds", "setup_seconds", "wait_seconds",
    "test_seconds", "labels_seconds", "images_seconds", "device", "attempts", "reused_from",
    "started_at", "finished_at", "protocol_version", "raydc_version", "mlflow_run_id", "error",
]
# fmt: on


def test_a_run_leaves_everything_that_it_promises(finished: Shell) -> None:
    said = finished.said
    assert f"{EVALUATIONS} of {EVALUATIONS} evaluations finished" in said
    assert re.search(r"parallel efficiency: \d\.\d\d", said)
    # Each set once for each of the two checkpoints; a temperature would not add to it.
    # Naively, of each of the two checkpoints and replicates: 10, 20, 40 and 80 images once.
    assert (
        "labels: 600 images forwarded now, 600 in the study; "
        "labelling again for every evaluation would forward 600\n"
    ) in said
    assert "report: runs/tiny/report.html" in said
    folder = finished.folder / "runs" / "tiny"
    assert {"ledger.jsonl", "results.parquet", "report.html", "study.yaml", "mlflow.db"} <= {
        path.name for path in folder.iterdir()
    }
    table = pq.read_table(folder / "results.parquet")
    assert set(COLUMNS) <= set(table.column_names)
    assert table.num_rows == EVALUATIONS
    assert all(table["mlflow_run_id"].to_pylist())
    assert set(table["status"].to_pylist()) == {"finished"}


def test_a_plan_says_how_much_more_a_naive_run_would_label(make_shell: Callable[[], Shell]) -> None:
    grid = "grid={images.ipc: [1, 2], labels.teacher_epoch: [1, 3], labels.temperature: [1, 2, 4]}"
    settings = ("--set", grid, "--set", "base.labels.kind=soft", "--set", "base.train.steps=2")
    plan = {row["what"]: row for row in make_shell().json("plan", "tiny.yaml", *settings)}
    assert plan["evaluations"]["count"] == 24
    # 10 and 20 images, two replicates, two checkpoints: 60 x 2; naively for each of three temperatures.
    assert plan["label passes"]["note"] == "120 images forwarded; a naive run forwards 360"


def test_results_are_rows_with_null_where_nothing_applies(finished: Shell) -> None:
    rows = finished.json("results", "runs/tiny")
    assert len(rows) == EVALUATIONS
    assert all(set(COLUMNS) <= set(row) for row in rows)
    hard = next(row for row in rows if row["labels.kind"] == "hard")
    assert hard["labels.temperature"] is hard["teacher.arch"] is hard["best_test_acc"] is None
    assert sorted(row["evaluation_id"] for row in rows) == sorted(finished.mlflow_ids("runs/tiny"))


def test_a_second_run_runs_nothing(finished: Shell) -> None:
    before = finished.ledger_lines("runs/tiny")
    said = finished("run", "tiny.yaml").stdout
    assert f"0 run now, {EVALUATIONS} finished before" in said
    assert finished.ledger_lines("runs/tiny") == before


def test_plan_and_analyses_work_on_it(finished: Shell) -> None:
    plan = {row["what"]: row for row in finished.json("plan", "tiny.yaml")}
    assert plan["evaluations"]["count"] == plan["evaluations"]["done"] == EVALUATIONS
    assert plan["label passes"] == {
        "what": "label passes",
        "count": 16,
        "done": 16,
        "note": "600 images forwarded; a naive run forwards 600",
    }
    assert "s" in plan["time left"]["count"]
    fits = finished.json("fit", "runs/tiny")
    assert {row["labels.kind"] for row in fits} == {"hard", "soft"}
    assert all(row["reason"] or 0 < row["a"] <= 1 for row in fits)
    assert any(row["on_frontier"] for row in finished.json("frontier", "runs/tiny"))
    assert {row["images.ipc"] for row in finished.json("worth", "runs/tiny")} == {1, 2, 4, 8}
    target = finished.folder / "table.csv"
    finished("results", "runs/tiny", "--csv", str(target))
    assert len(target.read_text().splitlines()) == EVALUATIONS + 1


def mlflow_ids(folder: Path, out: str, experiment: str = "tiny") -> list[str]:
    rows = read_experiment(experiment, f"sqlite:///{folder / out}/mlflow.db")
    return sorted(row["evaluation_id"] for row in rows)


def test_some_rows_only(finished: Shell) -> None:
    rows = finished.json("results", "runs/tiny", "--only", "labels.kind=soft", "--only", "images.ipc=[1, 8]")
    assert len(rows) == 2 * 2 * 2
    assert {(row["labels.kind"], row["images.ipc"]) for row in rows} == {("soft", 1), ("soft", 8)}
    [fitted] = finished.json("fit", "runs/tiny", "--only", "labels.kind=hard")
    assert fitted["points"] == 4
    for setting, said in (
        ("labels.kind", "must be KEY=VALUE"),
        ("labels.kin=soft", "did you mean labels.kind?"),
        ("labels.kind=smooth", "matches no result"),
    ):
        assert said in finished("results", "runs/tiny", "--only", setting, code=2).stderr


def test_growing_a_study_runs_only_the_new_points(
    make_shell: Callable[[], Shell], ray_cluster: object
) -> None:
    shell = make_shell()
    small = ("grid.images.ipc=[1, 2]", "grid.labels.teacher_epoch=[3]", "teacher.keep=[3]", "seeds=1")
    assert shell.run("out", *small) == Counts(finished=4, run_now=4)
    first = (shell.folder / "out" / "ledger.jsonl").read_bytes()
    # An epoch more to keep, a value more in a list, a replicate more; the same folder.
    assert shell.run("out") == Counts(finished=EVALUATIONS, run_now=EVALUATIONS - 4, before=4)
    grown = (shell.folder / "out" / "ledger.jsonl").read_bytes()
    assert grown.startswith(first)
    names = sorted(read_rows(shell.folder / "out"))
    assert grown.count(b"\n") == len(names) == EVALUATIONS
    assert sorted(shell.mlflow_ids("out")) == names
    # Another study with the same points takes them over, without MLflow children of its own.
    more = EVALUATIONS // 2
    other = shell.run("other", "name=other", "seeds=3")
    assert other == Counts(finished=EVALUATIONS + more, run_now=more, taken_over=EVALUATIONS)
    rows = read_rows(shell.folder / "other")
    assert [row["reused_from"] for row in rows.values()].count("tiny") == EVALUATIONS
    assert len(shell.mlflow_ids("other", "other")) == more
    assert shell.run("anew", "seeds=1", reuse=False) == Counts(finished=more, run_now=more)
    for name, row in read_rows(shell.folder / "anew").items():
        assert row["test_acc"] == rows[name]["test_acc"]


@pytest.mark.command
def test_three_kills_lose_nothing_and_repeat_nothing(
    make_shell: Callable[[], Shell], ray_cluster: object
) -> None:
    shell = make_shell()
    chance = random.Random(20)
    arguments = ("run", "tiny.yaml", "--out", "out", "--set", "base.train.steps=150", "--no-report")
    kept: set[str] = set()
    for kill in range(3):
        process = shell.start(*arguments)
        # The first kill comes before anything is finished, while teachers are trained.
        wanted = len(kept) + chance.randint(1, 5) if kill else 0
        if not wanted:
            time.sleep(15)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            ledger = shell.folder / "out" / "ledger.jsonl"
            if ledger.exists() and ledger.read_bytes().count(b"\n") >= wanted:
                break
            time.sleep(0.05)
        time.sleep(chance.random())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kept = set(read_rows(shell.folder / "out"))
        assert len(kept) >= wanted
    said = shell(*arguments).stdout
    assert f"{EVALUATIONS} of {EVALUATIONS} evaluations finished" in said
    assert f"{EVALUATIONS - len(kept)} run now, {len(kept)} finished before" in said
    lines = [line["evaluation_id"] for line in shell.ledger_lines("out")]
    assert len(lines) == len(set(lines)) == EVALUATIONS
    ids = shell.mlflow_ids("out")
    assert len(ids) == len(set(ids)) == EVALUATIONS


@pytest.mark.command
@pytest.mark.ray
def test_an_interrupted_run_says_how_to_go_on(make_shell: Callable[[], Shell]) -> None:
    shell = make_shell()
    process = shell.start("run", "tiny.yaml", "--out", "out", "--set", "base.train.steps=2000")
    ledger = shell.folder / "out" / "ledger.jsonl"
    while process.poll() is None and not (ledger.exists() and ledger.stat().st_size):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "interrupted; `raydc run out/study.yaml --out out` resumes it" in out + err
    assert (shell.folder / "out" / "results.parquet").exists()


def test_one_failing_evaluation_is_recorded_and_the_rest_go_on(
    make_shell: Callable[[], Shell], ray_cluster: object
) -> None:
    shell = make_shell()
    settings = (
        "grid={images.ipc: [1], train.lr: [0.05, 1e30]}",
        "grid.labels.kind=null",
        "grid.labels.teacher_epoch=null",
        "base.train.steps=70",
    )
    assert shell.run("out", *settings, code=3) == Counts(finished=2, failed=2, run_now=2)
    rows = read_rows(shell.folder / "out").values()
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["train.lr"] for row in failed} == {1e30}
    assert all(re.search(r"the loss is (nan|inf) at step \d+", row["error"]) for row in failed)
    # Failed evaluations are tried again, finished ones are not.
    assert shell.run("out", *settings, code=3) == Counts(finished=2, failed=2, before=2)
    assert (shell.folder / "out" / "ledger.jsonl").read_bytes().count(b"\n") == 6


@pytest.mark.command
@pytest.mark.ray
def test_two_runs_of_one_folder_are_refused(make_shell: Callable[[], Shell]) -> None:
    shell = make_shell()
    first = shell.start("run", "tiny.yaml", "--out", "out", "--set", "base.train.steps=3000")
    while first.poll() is None and not (shell.folder / "out" / "study.yaml").exists():
        time.sleep(0.1)
    refused = shell("run", "tiny.yaml", "--out", "out", code=2)
    assert "where another run is active" in refused.stderr
    first.kill()
    first.communicate()


def test_results_made_by_the_core_alone_are_imported(finished: Shell, tmp_path: Path) -> None:
    exported = tmp_path / "tiny.jsonl"
    finished("plan", "tiny.yaml", "--export", str(exported))
    lines = exported.read_text().splitlines()
    assert len(lines) == EVALUATIONS
    exported.write_text("\n".join(lines[:5]) + "\n")
    core = [sys.executable, "-m", "raydc.evaluate", str(exported), "--out", "core", "--device", "cpu"]
    subprocess.run(core, cwd=tmp_path, check=True, capture_output=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "study.yaml").write_text(STUDY)
    done = sync(out, None, tmp_path / "core" / "results.jsonl")
    assert (done.rows, done.imported, done.behind) == (5, 5, 0)
    rows = read_rows(out)
    assert mlflow_ids(tmp_path, "out") == sorted(rows)
    assert sync(out, None, tmp_path / "core" / "results.jsonl").imported == 0
    # One machine, one thread: the core alone gives what the cluster gives, bit for bit.
    reference = {row["evaluation_id"]: row for row in finished.json("results", "runs/tiny")}
    assert all(row["test_acc"] == reference[name]["test_acc"] for name, row in rows.items())


@pytest.mark.command
def test_the_wheel_brings_its_studies(tmp_path: Path) -> None:
    root = Path(raydc.__file__).parent.parent
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", str(root), "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "wheel")]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").glob("raydc-*.whl")
    context = tmp_path / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(context), str(wheel)], check=True, capture_output=True
    )
    script = (
        "import raydc, sys; print(raydc.__file__); sys.argv = ['raydc', 'list', 'studies']; "
        "from raydc.commands.app import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(context)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(context) in ran.stdout
    assert "quickstart" in ran.stdout
    assert "cifar10-cpu" in ran.stdout


def test_any_column_is_drawn_over_any_key(finished: Shell, tmp_path: Path) -> None:
    for suffix in ("svg", "png", "pdf"):
        file = tmp_path / f"figure.{suffix}"
        finished("plot", "runs/tiny", "--by", "labels.kind", "--out", str(file))
        assert file.stat().st_size > 2000
    svg = (tmp_path / "figure.svg").read_text()
    assert "images.ipc" in svg
    assert "hard" in svg
    finished("plot", "runs/tiny", "--y", "test_acc_by_class:3", "--out", str(tmp_path / "class.svg"))
    for arguments in (
        ("--y", "test_acc_by_class:11"),
        ("--y", "nonsense"),
        ("--out", "/dev/null/x.svg"),
        ("--out", "x.nonsense"),
    ):
        assert finished("plot", "runs/tiny", *arguments, code=2).stderr.startswith("error: ")


def test_a_papers_table_is_run_and_printed_beside_its_numbers(tmp_path: Path, ray_cluster: object) -> None:
    shell = Shell(tmp_path)
    settings = ("--set", "dataset={name: digits, zca: true, val_fraction: 0}", "--smoke")
    said = shell("reproduce", "label-worth-table2", "--out", "out", *settings).stdout
    assert "21.1 +- 0.5 %" in said
    assert "not reproduced: CIFAR-100" in said
    assert "a smoke run" in said
    assert (
        "did you mean ipc-50" in shell("reproduce", "label-worth-table2", "--cells", "ipc-5", code=2).stderr
    )
