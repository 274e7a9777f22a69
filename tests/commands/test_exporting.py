"""raydc export-labels on a study made without Ray, and studies that learn from its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raydc.labels.fkd import FkdFolder
from raydc.spec.study import StudySpec
from raydc.tracking.study_folder import STUDY
from tests.shell import raydc

GRID = """
grid:
  labels.kind: [hard, per_view]
  labels.temperature: [1, 4]
seeds: 2
"""
SETTINGS = ("base.train.augment=[rrc, flip]", "base.train.batch_size=20", "base.train.steps=6")


@pytest.fixture
def folder(small: Callable[..., StudySpec], recorded: Callable[[StudySpec], Path]) -> Path:
    return recorded(small(*SETTINGS, extra=GRID))


def test_each_table_of_labels_is_written_once(folder: Path) -> None:
    to = folder / "exported"
    result = raydc("export-labels", str(folder), "--out", str(to), "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    # Two replicates with views of their own; temperatures share what a teacher said.
    assert [(row["images"], row["batches"]) for row in rows] == [(20, 6), (20, 6)]
    for row in rows:
        assert row["labels.kind"] == "per_view"
        labels = FkdFolder(Path(row["folder"]))
        assert (labels.steps, labels.images, labels.classes) == (6, 20, 10)
        assert len(list(Path(row["folder"]).glob("images/new*/*.png"))) == 20
        files = [f for f in Path(row["folder"]).rglob("*") if f.is_file() and f.suffix != ".png"]
        assert row["bytes"] == sum(f.stat().st_size for f in files)


def test_a_study_on_exported_files_is_planned(folder: Path) -> None:
    to = folder / "exported"
    said = raydc("export-labels", str(folder), "--out", str(to), "--only", "seed=0")
    assert said.exit_code == 0, said.output
    (labels,) = to.iterdir()
    assert f"to train on them: labels: {{kind: fkd, path: {labels}}}" in said.output
    text = f"""
name: replay
dataset: digits
base:
  images: {{method: imported, path: {labels}/images, ipc: 2}}
  labels: {{kind: fkd, path: {labels}, temperature: 4}}
  student: {{arch: convnet-d2-w8}}
  train: {{recipe: label-worth, augment: none, batch_size: 20, steps: 6, loss: kl}}
"""
    (folder / "replay.yaml").write_text(text)
    planned = raydc("plan", str(folder / "replay.yaml"), "--json", "--store", str(folder / "s"))
    assert planned.exit_code == 0, planned.output
    (folder / "replay.yaml").write_text(text.replace("ipc: 2", "ipc: 1"))
    refused = raydc("plan", str(folder / "replay.yaml"), "--store", str(folder / "s"))
    assert refused.exit_code == 2
    assert "which labels 20 images of 10 classes per epoch, but the set has 10 images" in refused.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "{}/exported", "--only", "labels.kind=hard"), "used labels of views"),
        (("--out", "{}"), "which exists and is not empty"),
        (("--out", "{}/study.yaml"), "which exists and is not empty"),
        (("--out", "/dev/null/x"), "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    result = raydc("export-labels", str(folder), *(a.format(folder) for a in arguments))
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_refused_export_leaves_nothing(
    small: Callable[..., StudySpec], recorded: Callable[[StudySpec], Path]
) -> None:
    grid = "grid:\n  train.augment: [flip, dsa]\n"
    made = recorded(small("base.labels.kind=per_view", "base.train.steps=2", extra=grid))
    to = made / "exported"
    result = raydc("export-labels", str(made), "--out", str(to))
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "train.augment has dsa, which FKD files cannot store" in said
    assert "use --only to exclude evaluations" in said
    assert not to.exists()
    assert raydc("export-labels", str(made), "--out", str(to), "--only", "train.augment=flip").exit_code == 0


def test_a_study_file_of_other_evaluations_is_refused(folder: Path) -> None:
    study = (folder / STUDY).read_text().replace("- rrc\n", "- crop\n")
    (folder / STUDY).write_text(study)
    result = raydc("export-labels", str(folder), "--out", str(folder / "x"))
    # Other views are another study: none of its evaluations is among the results.
    assert result.exit_code == 2
    assert "no finished evaluation" in result.output
