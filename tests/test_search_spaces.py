"""Every study that comes with raydc: its plan, and its smoke run from data to results, on a small copy."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from raydc.commands.app import app
from raydc.search.answers import Answers
from raydc.spec import shipped_studies
from raydc.spec.result import Row
from raydc.spec.study import StudySpec, load_study
from raydc.store.local import LocalStore
from raydc.study.launch import open_search
from raydc.study.planning import search_evaluations
from raydc.study.preflight import ReadyStudy, preflight
from raydc.tracking.ledger import Ledger
from raydc.worker.evaluate import attempt
from raydc.worker.making import make, make_everything
from raydc.worker.planned_work import work_of_point
from raydc.worker.workbench import Workbench

STUDIES = shipped_studies.studies()


def _table(count: int, seed: int) -> pa.Table:
    """Images of 32 x 32 pixels of ten colours, as hubs store them."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    hue = np.random.default_rng(0).integers(40, 216, (10, 3))[labels]
    pixels = np.clip(hue[:, None, None] + generator.normal(0, 30, (count, 32, 32, 3)), 0, 255)
    encoded = []
    for image in pixels.astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    names = [f"class {number}" for number in range(10)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table({"image": encoded, "label": labels}).replace_schema_metadata(metadata)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small-cifar10")
    pq.write_table(_table(700, 1), folder / "train-0.parquet")
    pq.write_table(_table(100, 2), folder / "test-0.parquet")
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


def opened(name: str, data: Path, *, smoke: bool) -> StudySpec:
    study = load_study(shipped_studies.find(name), smoke=smoke)
    settings = [] if study.dataset.name == "digits" else [f"dataset.parquet={data}"]
    return load_study(shipped_studies.find(name), settings=settings, smoke=smoke)


@pytest.mark.slow
@pytest.mark.parametrize("name", [study.name for study in STUDIES])
def test_the_smoke_run_of_every_study_finishes(
    name: str, data: Path, shared: LocalStore, tmp_path: Path
) -> None:
    study = opened(name, data, smoke=True)
    ready = preflight(study, shared)
    bench = Workbench(ready.dataset, shared, torch.device("cpu"))
    assert make_everything(ready.plan, bench) == {}
    if study.search is not None:
        rows = searched(ready, bench, tmp_path)
        assert sum(row["test_acc"] is not None for row in rows) == study.search.winner_seeds
    else:
        rows = [attempt(planned, bench, study=study.name) for planned in ready.plan.evaluations]
        assert len(rows) == len(study.evaluations())
    assert [row["error"] for row in rows] == [None] * len(rows)


def searched(ready: ReadyStudy, bench: Workbench, folder: Path) -> list[Row]:
    """Rows of a search that is run in this process."""
    rows: list[Row] = []
    study = ready.study
    with Ledger(folder) as ledger:
        search = open_search(ready, folder, Answers(ledger, {}, study.name))
        waiting = search.ask()
        while waiting:
            planned = waiting.pop(0)
            for work in work_of_point(planned):
                make(work, bench)
            rows.append(attempt(planned, bench, study=study.name))
            ledger.append(rows[-1:])
            waiting += search.hear(rows[-1:])
        assert search.over()
    return rows


@pytest.mark.parametrize("name", [study.name for study in STUDIES])
def test_every_study_has_a_price(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # CIFAR-10 is not here: a plan is counted all the same
    result = CliRunner().invoke(app, ["plan", name, "--store", "store", "--json"])
    assert result.exit_code == 0, result.output
    prices = {row["what"]: row for row in json.loads(result.stdout)}
    study = load_study(shipped_studies.find(name))
    known = len(study.evaluations()) if study.search is None else search_evaluations(study)
    assert prices["evaluations"]["count"] == known
    assert prices["compressed sets"]["count"] > 0
    assert "time left" in prices
