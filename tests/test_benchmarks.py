"""Benchmarks measure on raydc's side what they say that they measure."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import students


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_students_precision_is_that_which_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    trained: list[str] = []
    tested: list[str] = []
    evaluate, measure = students.evaluate, students.measure

    def spied_evaluate(planned: Any, bench: Any) -> Any:
        trained.append(planned.evaluation.recipe.precision)
        return evaluate(planned, bench)

    def spied_measure(*arguments: Any) -> Any:
        tested.append(arguments[4])
        return measure(*arguments)

    monkeypatch.setattr(students, "evaluate", spied_evaluate)
    monkeypatch.setattr(students, "measure", spied_measure)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # whether it is compiled is not the question
    arguments = Namespace(
        data=None, work=tmp_path, device="cpu", side="raydc", arch="convnet-d2-w8", ipc=[1], steps=3, seed=0,
        precision=precision, accuracy=0,
    )  # fmt: skip
    students.side(arguments)
    assert trained == [precision]
    assert set(tested) == {precision}
    assert json.loads(capsys.readouterr().out)["engine"] == "eager"
