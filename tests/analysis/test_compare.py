"""Comparisons: matched, paired, pooled and corrected, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from raydc.analysis.compare import TIE, as_rows, compare
from raydc.analysis.paired import holm
from raydc.analysis.sides import Side, levels, studies
from raydc.errors import InputError

HARD = {"labels.kind": "hard"}


def rows(
    spec: Mapping[str, Any], values: Sequence[float], seeds: Sequence[int] = (), **extra: Any
) -> list[Any]:
    """A row a value, with seeds 0, 1, ... unless others are given."""
    return [
        {
            "evaluation_id": f"{sorted(spec.items())}-{seed}",
            "study": "s",
            "seed": seed,
            "status": "finished",
            "test_acc": value,
            "finished_at": 1.0,
            **spec,
            **extra,
        }
        for seed, value in zip(seeds or range(len(values)), values, strict=True)
    ]


def method(name: str, ipc: int, values: Sequence[float], *seeds: int, **extra: Any) -> list[Any]:
    return rows({"images.method": name, "images.ipc": ipc, **HARD}, values, seeds, **extra)


SMALL = [
    *method("random", 1, [0.5, 0.6, 0.7]),
    *method("el2n", 1, [0.6, 0.8, 0.9]),
    *method("random", 10, [0.8, 0.8]),
    *method("el2n", 10, [0.8, 0.9]),
]


def test_paired_t_by_hand() -> None:
    found = compare(levels(SMALL, ["images.method"]), by=["images.method"])
    (versus,) = found.versus
    assert (versus.baseline, versus.level) == ("random", "el2n")
    # Differences 0.1 0.2 0.2 and 0 0.1: squares 1/150 + 1/200, 3 degrees, t = 3.182446.
    deviation = np.sqrt((1 / 150 + 1 / 200) / 3)
    first, second = (c.difference for c in versus.configurations)
    assert first.value == pytest.approx(0.5 / 3)
    assert first.high is not None
    assert first.high - first.value == pytest.approx(3.182446 * deviation / np.sqrt(3), rel=1e-6)
    assert (first.pairs, second.pairs, versus.overall.pairs) == (3, 2, 5)
    assert versus.overall.value == pytest.approx((0.5 / 3 + 0.05) / 2)
    assert versus.overall.low is not None
    assert versus.overall.value - versus.overall.low == pytest.approx(
        3.182446 * deviation * np.sqrt(1 / 3 + 1 / 2) / 2, rel=1e-6
    )
    assert versus.by_ipc[1].value == first.value
    assert found.tests == 2


def test_one_configuration_is_the_textbook_paired_t() -> None:
    (versus,) = compare(levels(SMALL[:6], ["images.method"]), by=["images.method"]).versus
    assert versus.overall.p == pytest.approx(0.0377495513)  # t = 5 with 2 degrees


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0


def test_the_pooled_interval_covers() -> None:
    generator, covered, truth = np.random.default_rng(5), 0, 0.03
    for _ in range(200):
        given = []
        for ipc in (1, 2, 5, 10):
            base = generator.normal(0.5, 0.1, 3)
            given += method("random", ipc, list(base + generator.normal(0, 0.02, 3)))
            given += method("el2n", ipc, list(base + truth + generator.normal(0, 0.02, 3)))
        (versus,) = compare(levels(given, ["images.method"]), by=["images.method"]).versus
        assert versus.overall.low is not None
        assert versus.overall.high is not None
        covered += versus.overall.low <= truth <= versus.overall.high
    assert 180 <= covered <= 198


def test_what_applies_to_one_side_alone_makes_levels() -> None:
    given = [*method("random", 1, [0.5, 0.6])]
    for temperature in (1, 4):
        spec = {
            "images.method": "random",
            "images.ipc": 1,
            "labels.kind": "soft",
            "labels.temperature": temperature,
        }
        given += rows({**spec, "teacher.arch": "convnet"}, [0.6, 0.8])
    found = compare(levels(given, ["labels.kind"]), by=["labels.kind"])
    assert [v.level for v in found.versus] == ["soft, temperature 1", "soft, temperature 4"]
    assert {v.baseline for v in found.versus} == {"hard"}
    found = compare(levels(given, ["labels.temperature"]), by=["labels.temperature"])
    assert [(v.baseline, v.level, v.overall.value) for v in found.versus] == [
        ("temperature 1", "temperature 4", 0)
    ]


def test_studies_are_compared_by_the_columns_that_differ_as_wholes() -> None:
    def study(name: str, recipe: str, ipcs: Sequence[int], gain: float) -> list[Any]:
        return [
            row
            for ipc in ipcs
            for row in rows({"images.ipc": ipc, "train.recipe": recipe}, [0.5 + gain, 0.7 + gain], study=name)
        ]

    first, second = study("one", "a", [1, 2], 0), study("two", "b", [2, 5], 0.1)
    found = compare(studies([("x", first), ("y", second)]))
    assert found.compared == ("train.recipe",)
    (versus,) = found.versus
    assert (versus.baseline, versus.level) == ("one", "two")
    assert [dict(c.spec) for c in versus.configurations] == [{"images.ipc": 2}]
    assert versus.overall.value == pytest.approx(0.1)
    assert found.unmatched == 2
    assert [side.name for side in studies([("x", first), ("y", first)])] == ["x", "y"]


def test_what_is_left_out_is_counted() -> None:
    given = [
        *method("random", 1, [0.5, 0.6, 0.7], 0, 1, 2),
        *method("el2n", 1, [0.1, 0.7, 0.9], 1, 2, 3),
        *method("el2n", 1, [0.6], 1, finished_at=2.0),
        *method("el2n", 2, [0.6]),
        {**method("random", 2, [0.0])[0], "status": "failed"},
    ]
    found = compare(levels(given, ["images.method"]), by=["images.method"])
    assert (found.unmatched, found.unpaired, found.repeated, found.shared) == (1, 2, 1, 0)
    assert found.versus[0].overall.value == pytest.approx(0)  # the later result of seed 1 counts


def test_one_evaluation_on_both_sides_is_no_evidence() -> None:
    shared = rows({"images.ipc": 1, "labels.kind": "hard"}, [0.5, 0.6])
    soft = [rows({"images.ipc": 1, "labels.kind": "soft", "teacher.epochs": e}, [0.5, 0.6]) for e in (1, 30)]
    found = compare([Side("a", shared + soft[0]), Side("b", shared + soft[1])])
    assert (found.compared, found.shared, len(found.versus[0].configurations)) == (("teacher.epochs",), 2, 1)
    with pytest.raises(InputError, match="all 2 pairs are the same evaluation on both sides"):
        compare([Side("a", shared), Side("b", shared)])


def test_the_winner_has_the_lower_loss() -> None:
    given = [{**row, "test_loss": row["test_acc"]} for row in SMALL[:6]]
    sides = levels(given, ["images.method"])
    for metric, winner in (("test_acc", "el2n"), ("test_loss", "random")):
        found = compare(sides, metric, ["images.method"])
        assert found.winner(found.versus[0], found.versus[0].overall) == winner
    found = compare(levels(SMALL[:6], ["images.method"], "el2n"), by=["images.method"])
    assert found.versus[0].overall.value == pytest.approx(-0.5 / 3)


def test_one_seed_is_not_tested() -> None:
    given = [*method("random", 1, [0.5]), *method("el2n", 1, [0.6])]
    found = compare(levels(given, ["images.method"]), by=["images.method"])
    assert found.tests == 0
    (row, *_) = as_rows(found)
    assert (row["p"], row["difference_low"], row["significant"], row["winner"]) == (None,) * 4
    assert row["difference"] == pytest.approx(0.1)


def test_equal_replicates_tie() -> None:
    given = [*method("random", 1, [0.5, 0.5]), *method("el2n", 1, [0.5, 0.5])]
    found = compare(levels(given, ["images.method"]), by=["images.method"])
    assert found.winner(found.versus[0], found.versus[0].overall) == TIE


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: compare(levels(SMALL, ["images.method"]), "test_ac"), "did you mean test_acc"),
        (lambda: compare(levels(SMALL, ["images.method"]), "val_acc"), "no value of 'val_acc'"),
        (lambda: levels(SMALL, ["images.metod"]), "did you mean images.method"),
        (lambda: levels(SMALL, ["seed"]), "must be a key of the study file"),
        (lambda: levels(SMALL, ["labels.kind"]), "has only the value hard"),
        (lambda: levels(SMALL, ["images.method"], "el3n"), "must be el2n or random; did you mean el2n"),
        (lambda: compare([Side("a", SMALL), Side("b", [])]), "b has no finished evaluation with test_acc"),
        (
            lambda: compare(
                levels(method("random", 1, [0.5]) + method("el2n", 2, [0.5]), ["images.method"]),
                by=["images.method"],
            ),
            "they share no value of images.ipc; add it to --by",
        ),
        (
            lambda: compare(
                levels(method("random", 1, [0.5], 0) + method("el2n", 1, [0.5], 1), ["images.method"]),
                by=["images.method"],
            ),
            "with a seed in common: they share no configuration",
        ),
    ],
)
def test_what_cannot_be_compared(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()
