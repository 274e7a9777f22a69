"""raydc ddranking and raydc entropy on a study's folder that was made without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydc.labels.logits_file import read_logits
from raydc.spec.study import StudySpec
from raydc.store.artifact import get
from raydc.store.local import LocalStore
from raydc.teachers.crop_predictions import entropy_and_nll
from tests.shell import raydc

GRID = """
grid:
  images.method: [random, herding]
  labels.kind: [hard, soft]
seeds: 2
"""


@pytest.fixture
def folder(small: Callable[..., StudySpec], recorded: Callable[[StudySpec], Path]) -> Path:
    return recorded(small(extra=GRID))


def test_methods_are_ranked(folder: Path) -> None:
    result = raydc("ddranking", str(folder), "--full-acc", "0.9", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["images.method"], row["labels.kind"]) for row in rows] == [
        ("herding", "hard"),
        ("herding", "soft"),
    ]
    assert all(row["lrs_low"] <= row["lrs"] <= row["lrs_high"] for row in rows)
    assert rows[0]["hlr"] == pytest.approx(0.9 - rows[0]["test_acc"])
    shown = raydc("ddranking", str(folder), "--full", str(folder), "--only", "labels.kind=soft")
    assert "ARS needs the same images" in " ".join(shown.stdout.split())


def test_entropy_of_whole_images_is_that_of_the_stored_logits(folder: Path, store: LocalStore) -> None:
    picture = folder / "entropy.svg"
    result = raydc("entropy", str(folder), "--ratio", "0.3", "--draws", "1", "--plot", str(picture), "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert {row["what"] for row in rows} == {"set", "order", "reversal"}
    assert picture.read_text().startswith("<?xml")
    whole = {row["set_id"]: row for row in rows if row["what"] == "set" and row["ratio"] == 1}
    assert sorted(len(row["seeds"]) for row in whole.values()) == [1, 1, 2]
    results = json.loads(raydc("results", str(folder), "--json").stdout)
    for row in (r for r in results if r["labels_id"]):
        logits = read_logits(get(store, "logits", row["labels_id"]).folder)
        entropy, _ = entropy_and_nll(torch.tensor(logits), torch.zeros(len(logits), dtype=torch.long))
        assert whole[row["set_id"]]["entropy"] == pytest.approx(entropy.mean().item(), abs=1e-6)
    again = raydc("entropy", str(folder), "--ratio", "0.3", "--draws", "1", "--json")
    assert json.loads(again.stdout) == rows


def test_any_epoch_and_any_network_can_be_the_classifier(folder: Path, store: LocalStore) -> None:
    early = raydc("entropy", str(folder), "--ratio", "1", "--epoch", "1")
    assert "Under teacher (convnet-d2-w8, epoch 1)" in early.stdout
    checkpoint = next(a for a in (store.root / "checkpoint").rglob("weights.safetensors"))
    block = f"{{arch: convnet-d2-w8, checkpoint: {checkpoint}}}"
    given = raydc("entropy", str(folder), "--ratio", "1", "--teacher", block)
    assert given.exit_code == 0, given.output
    assert "Under classifier (convnet-d2-w8)" in given.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("entropy", "DIR", "--ratio", "0,1"), "--ratio has 0, but must be above 0"),
        (("entropy", "DIR", "--ratio", "a"), "must be numbers separated by commas"),
        (("entropy", "DIR", "--ratio", "8"), "--ratio has 8"),
        (("entropy", "DIR", "--draws", "0"), "--draws is 0, but must be at least 1"),
        (("entropy", "DIR", "--teacher", "techer"), "did you mean teacher?"),
        (("entropy", "DIR", "--epoch", "9"), "is trained for 2 epochs; choose from 0 to 2"),
        (("entropy", "DIR", "--teacher", "{epochs: 3}"), "--teacher: arch is missing"),
        (("entropy", "DIR", "--plot", "x.nothing"), "--plot is 'x.nothing', which cannot be written"),
        (("entropy", "DIR", "--store", "STORE"), "none of the 3 compressed sets is in the store"),
        (("ddranking", "DIR", "--full-acc", "90"), "must be a fraction from 0 to 1; 90 % is 0.9"),
        (("ddranking", "DIR", "--full-acc", "0.9", "--full", "DIR"), "exclude each other"),
        (("ddranking", "DIR", "--only", "images.method=random"), "no method other than random"),
        (("ddranking", "nowhere"), "'nowhere' holds no study"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    places = {"DIR": str(folder), "STORE": str(folder / "store")}
    result = raydc(*(places.get(argument, argument) for argument in arguments))
    assert result.exit_code == 2
    assert said in result.stderr
