"""`raydc fit --z` and `raydc frontier --over images` on results whose truth is known."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from raydc.commands.app import app
from tests.report.test_html import kept_rows


@pytest.fixture(autouse=True)
def _results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydc.tracking.rows.load_rows", lambda where, uri=None: kept_rows())


def raydc(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_the_joint_law_of_each_teacher_epoch() -> None:
    laws = json.loads(raydc("fit", "x", "--z", "labels.top_k", "--json").stdout)
    assert [law["labels.teacher_epoch"] for law in laws] == [1, 30]
    for law, limit in zip(laws, (0.8, 0.9), strict=True):
        assert law["form"] == "product"
        assert law["a_low"] <= limit <= law["a_high"]
        assert law["b"] is None
        assert abs(law["holdout_error"]) < 0.02
        [worth] = [item for item in law["exchange_rates"] if (item["n"], item["k"]) == (10, 1)]
        assert worth["images"] == pytest.approx(10 * 2**0.8, rel=0.1)
    text = raydc("fit", "x", "--z", "labels.top_k").stdout
    assert "What doubling labels.top_k is worth" in text


def test_the_best_epoch_for_each_number_of_images() -> None:
    points = json.loads(raydc("frontier", "x", "--over", "images", "--json").stdout)
    best = [point for point in points if point["best"]]
    assert [point["images.ipc"] for point in best] == [1, 2, 5, 10, 20, 50]
    assert {point["labels.teacher_epoch"] for point in best} == {30}
    assert len(points) == 6 * 9
    assert "teacher_epoch 30" in raydc("frontier", "x", "--over", "images").stdout
    assert "total_bytes" in json.loads(raydc("frontier", "x", "--json").stdout)[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("frontier", "x", "--over", "epochs"), "--over is 'epochs', but must be bytes or images"),
        (
            ("fit", "x", "--z", "labels.top_k", "--form", "power"),
            "--form is 'power', but must be auto, additive, product, interaction or logarithmic with --z",
        ),
        (("fit", "x", "--form", "product"), "but must be auto, power, exponential or logarithmic"),
        (("fit", "x", "--z", "labels.topk"), "no value of 'labels.topk'; did you mean labels.top_k?"),
        (("fit", "x", "--z", "labels.kind"), "'labels.kind' does not hold numbers only"),
    ],
)
def test_wrong_values_are_refused_in_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    result = raydc(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
