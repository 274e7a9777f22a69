"""What a search asks: in which order, and nothing twice."""

from __future__ import annotations

import pytest

from raydc.spec.plan import Planned
from raydc.spec.result import FINISHED, Row
from tests.search.lab import Lab, Make


def test_another_seed_asks_for_other_points(lab: Make) -> None:
    asked = [
        lab(f"search.optuna.seed={seed}", folder=str(seed)).run()["trials"][0]["params"] for seed in (0, 0, 1)
    ]
    assert asked[0] == asked[1] != asked[2]


def test_enqueued_points_come_first(lab: Make) -> None:
    first = "{labels.kind: soft, labels.temperature: 4, labels.teacher_epoch: 2, train.lr: 0.02}"
    points = f"[{first}, {{train.lr: 0.01}}]"
    trials = lab(f"search.optuna.enqueue={points}").run()["trials"]
    assert trials[0]["params"] == {
        "labels.kind": "soft", "labels.temperature": 4.0, "labels.teacher_epoch": 2, "train.lr": 0.02
    }  # fmt: skip
    assert trials[1]["params"]["train.lr"] == 0.01
    assert len(trials) == 12


def test_a_grid_asks_for_every_combination_once(lab: Make) -> None:
    space = """
      labels.kind: {categorical: [hard, soft]}
      labels.teacher_epoch: {int: [1, 2], when: {labels.kind: soft}}
      train.augment: {categorical: [none, [flip, crop]]}
"""
    one = lab("search.optuna.sampler=grid", "search.optuna.trials=50", space=space)
    one.run(most=3)
    again = lab("search.optuna.sampler=grid", "search.optuna.trials=50", space=space)
    trials = again.run()["trials"]
    asked = [tuple(sorted(trial["params"].items())) for trial in trials]
    assert len(asked) == len(set(asked)) == 6
    assert {trial["params"]["train.augment"] for trial in trials} == {"none", "crop+flip"}
    assert len(one.trained) + len(again.trained) == 6 * 2 + 3


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_finite_space_is_asked_without_repeating(lab: Make, sampler: str) -> None:
    space = """
      labels.kind: {categorical: [hard, soft]}
      labels.temperature: {categorical: [16, 1, 4], when: {labels.kind: soft}}
      train.lr: {categorical: [0.1, 0.001, 0.01]}
"""
    few = lab(f"search.optuna.sampler={sampler}", space=space).run(most=5)
    assert len(few["trials"]) < 12
    trials = lab(f"search.optuna.sampler={sampler}", "search.optuna.trials=50", space=space).run()["trials"]
    asked = [tuple(sorted(trial["params"].items())) for trial in trials]
    assert len(asked) == len(set(asked)) == 3 + 3 * 3


def test_listed_numbers_have_an_order(lab: Make) -> None:
    """A sampler that knows the order finds the best of a smooth valley sooner than chance."""
    space = "\n      train.lr: {categorical: [" + ", ".join(f"{n / 1000:g}" for n in range(1, 101)) + "]}\n"

    class Valley(Lab):
        def outcome(self, planned: Planned) -> Row:
            return {"status": FINISHED, "val_acc": 1 - abs(planned.evaluation.point["train.lr"] - 0.04)}

    settings = ("search.optuna.trials=30", "seeds=1", "search.optuna.winner_seeds=0")
    best = {
        sampler: [
            max(trial["values"][0] for trial in lab(
                f"search.optuna.sampler={sampler}", f"search.optuna.seed={seed}", *settings,
                folder=f"{sampler}-{seed}", space=space, kind=Valley,
            ).run()["trials"])
            for seed in range(5)
        ]
        for sampler in ("tpe", "gp", "random")
    }  # fmt: skip
    assert min(best["tpe"]) >= 0.998
    assert min(best["gp"]) >= 0.999
    assert sum(best["random"]) < sum(best["tpe"])
