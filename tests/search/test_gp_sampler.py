"""The Gaussian process of a search in a listed space."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import create_trial

from raydc.search import proposing
from raydc.search.gp_sampler import ListedGPSampler
from raydc.spec.search import Dimension, SearchSpec

STEPS = range(10)


@pytest.fixture
def valley() -> optuna.Study:
    """A study that was told a third of a plane with the best point at (3, 4)."""
    distributions: dict[str, BaseDistribution] = {"x": IntDistribution(0, 9), "y": IntDistribution(0, 9)}
    study = optuna.create_study(direction="maximize")
    for x in STEPS:
        for y in STEPS:
            if (x + y) % 3 == 0:
                away = abs(x - 3) + abs(y - 4)
                study.add_trial(
                    create_trial(value=-away, params={"x": x, "y": y}, distributions=distributions)
                )
    return study


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_the_listed_points_is_asked_for(valley: optuna.Study, seed: int) -> None:
    # By itself the process asks for what is best anywhere, next to (3, 4).
    valley.sampler = ListedGPSampler([{"x": 9, "y": 8}, {"x": 6, "y": 4}, {"x": 0, "y": 1}], seed)
    asked = valley.ask({"x": IntDistribution(0, 9), "y": IntDistribution(0, 9)})
    assert asked.params == {"x": 6, "y": 4}


def test_a_key_that_is_not_asked_at_a_point_counts_nothing(valley: optuna.Study) -> None:
    valley.sampler = ListedGPSampler([{"x": 9}, {"x": 8}], 0)
    assert valley.ask({"x": IntDistribution(0, 9), "y": IntDistribution(0, 9)}).params["x"] == 8


def test_a_search_lists_the_points_that_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[list[object]] = []

    class Noted(ListedGPSampler):
        def __init__(self, points: list[dict[str, object]], seed: int) -> None:
            listed.append(list(points))
            super().__init__(points, seed)

    monkeypatch.setattr(proposing, "ListedGPSampler", Noted)
    rates, kinds = (0.4, 0.1, 0.2), ("hard", "soft")
    space = (
        Dimension("labels.kind", "categorical", choices=kinds),
        Dimension("train.lr", "categorical", choices=rates, when=(("labels.kind", ("soft",)),)),
    )
    trials = [
        create_trial(
            value=0.5,
            params={"labels.kind": "soft", "train.lr": rate},
            distributions={
                "labels.kind": CategoricalDistribution(kinds),
                "train.lr": CategoricalDistribution(rates),
            },
        )
        for rate in rates[:2]
    ]
    search = SearchSpec(space, trials=4, sampler="gp")
    asked = proposing.proposal(search, trials, len(trials))
    # Listed numbers are positions, from the smallest.
    new = [{"labels.kind": "hard"}, {"labels.kind": "soft", "train.lr": 1}]
    assert listed[0] == new
    assert asked in ({"labels.kind": "hard"}, {"labels.kind": "soft", "train.lr": 0.2})
