"""A study folder and a store of raydc 0.1.0 stay valid: read, compared, reported, synced and gone on with."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.shell import Shell

SAMPLE = Path(__file__).parents[1] / "samples" / "first_round.tar.xz"
"""20 evaluations on digits, made by `raydc run study.yaml --out out --store store` of raydc 0.1.0."""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(tmp_path, filter="data")
    return Shell(tmp_path)


def test_its_results_are_read(shell: Shell) -> None:
    rows = shell.json("results", "out")
    assert len(rows) == 20
    assert {row["status"] for row in rows} == {"finished"}
    assert all(row["mlflow_run_id"] for row in rows)
    shell("report", "out", "--store", "store")
    assert "first-round" in (shell.folder / "out" / "report.html").read_text()
    compared = shell.json("compare", "out", "--by", "images.method", "--only", "labels.kind=[hard, soft]")
    assert compared


@pytest.mark.mlflow
@pytest.mark.command
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_nothing_of_it_is_trained_again(shell: Shell) -> None:
    before = {row["evaluation_id"]: row for row in shell.json("results", "out")}
    made = sorted(path.relative_to(shell.folder) for path in (shell.folder / "store").glob("*/*"))
    # The study as written, whose store lay elsewhere, in the store as it is now.
    again = ("run", "study.yaml", "--out", "out", "--store", "store", "--no-report")
    assert "20 of 20 evaluations finished" in shell(*again).stdout
    assert "20 finished before" in shell(*again).stdout
    assert sorted(path.relative_to(shell.folder) for path in (shell.folder / "store").glob("*/*")) == made
    assert {row["evaluation_id"]: row["test_acc"] for row in shell.json("results", "out")} == {
        name: row["test_acc"] for name, row in before.items()
    }
    shell("sync", "out")
    names = shell.mlflow_ids("out", "first-round")
    assert sorted(names) == sorted(before)
    # More replicates use the teachers of the store.
    said = shell(*again, "--set", "seeds=3", "--set", "grid={labels.kind: [hard, soft]}").stdout
    assert "2 run now, 4 finished before" in said
    kinds = {
        path.parent.name
        for path in (shell.folder / "store").glob("*/*")
        if path.relative_to(shell.folder) not in made
    }
    assert kinds <= {"set", "logits", "results", "compiled", "source", "statistics"}
