"""The Python API: a study from a mapping, run, its table and figures; the same words as the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

import raydc
from raydc.errors import InputError
from tests.shell import STUDY, Shell


def content(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(STUDY), **changes}


def test_a_study_is_run_and_read_from_python(tmp_path: Path, ray_cluster: object) -> None:
    study = raydc.Study.from_dict(
        content(seeds=1), settings={"grid": {"labels.kind": ["hard", "soft"]}, "base.train.steps": 5}
    )
    assert study.name == "tiny"
    assert len(study.evaluations) == 2
    store = str(tmp_path / "store")
    plan = study.plan(tmp_path / "out", store).set_index("what")
    assert plan.loc["evaluations", "count"] == 2
    run = study.run(tmp_path / "out", store=store, quiet=True)
    assert run.summary.exit_code == 0
    table = run.results
    assert len(table) == 2
    assert set(table["labels.kind"]) == {"hard", "soft"}
    assert table["test_acc"].between(0, 1).all()


def test_results_and_figures_of_a_finished_study(finished: Shell) -> None:
    where = finished.folder / "runs" / "tiny"
    table = raydc.results(where)
    assert len(table) == 24
    by_kind = table.groupby("labels.kind")["test_acc"].mean()
    assert by_kind["soft"] > 0.1
    figures = raydc.figures(where)
    assert {"accuracy", "laws", "frontier"} <= set(figures)
    assert all(isinstance(figure, Figure) for figure in figures.values())


def test_bad_input_is_a_value_error_with_a_sentence() -> None:
    with pytest.raises(InputError, match=r"base\.images\.icp is not a key of images"):
        raydc.Study.from_dict(content(base={"images": {"icp": 1}, "student": {"arch": "convnet-d2-w8"}}))
    with pytest.raises(ValueError, match="did you mean quickstart"):
        raydc.Study.from_file("quikstart")
