"""DD-Ranking scores against numbers worked out by hand, and rows without counterparts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from raydc.analysis.contrast import Term, combined
from raydc.analysis.ddranking import Ranking, ddranking, score
from raydc.analysis.intervals import Mean
from raydc.errors import InputError


def rows(method: str, kind: str, accuracies: Sequence[float], seeds: Any = None, **keys: Any) -> Any:
    return [
        {
            "evaluation_id": f"{method}-{kind}-{seed}-{keys}",
            "status": "finished",
            "seed": seed,
            "images.method": method,
            "images.ipc": 10,
            "images.end": None if method == "random" else "easy",
            "scorer.arch": None if method == "random" else "convnet-d3-w16",
            "labels.kind": kind,
            "train.loss": None if kind == "hard" else "kl",
            "train.lr": 0.1,
            "train.augment": "none",
            "test_acc": accuracy,
            **{key.replace("__", "."): value for key, value in keys.items()},
        }
        for seed, accuracy in zip(seeds or range(len(accuracies)), accuracies, strict=True)
    ]


STUDY = [
    *rows("el2n", "soft", [0.50, 0.52, 0.54]),
    *rows("el2n", "hard", [0.30, 0.31, 0.32]),
    *rows("random", "soft", [0.46, 0.47, 0.48]),
    *rows("random", "hard", [0.20, 0.24, 0.22]),
]


def find(found: Sequence[Ranking], method: str = "el2n", kind: str = "soft", **keys: Any) -> Ranking:
    wanted = {"images.method": method, "labels.kind": kind}
    wanted |= {key.replace("__", "."): value for key, value in keys.items()}
    (one,) = [r for r in found if all(r.key.get(k) == v for k, v in wanted.items())]
    return one


def known(mean: Mean | None) -> Mean:
    assert mean is not None
    return mean


def test_the_map_has_its_published_ends() -> None:
    assert (score(-1), score(1)) == (pytest.approx(0), pytest.approx(1))
    assert score(0) == pytest.approx((1 - math.exp(-1)) / (math.e - math.exp(-1)))
    assert score(0) == pytest.approx(0.268941, abs=1e-6)


def test_scores_are_the_published_formulas_worked_out_by_hand() -> None:
    found = ddranking(STUDY, full=0.85)
    soft, hard = find(found), find(found, kind="hard")
    assert known(soft.ior).value == pytest.approx(0.05)
    assert known(soft.hlr).value == pytest.approx(0.54)
    # alpha = 0.5 x 0.05 - 0.5 x 0.54 = -0.245; (e^-0.245 - e^-1) / (e - e^-1) = 0.414825 / 2.350402
    assert known(soft.lrs).value == pytest.approx(0.176491, abs=1e-6)
    assert known(hard.ior).value == pytest.approx(0.09)
    assert known(hard.hlr).value == pytest.approx(0.54)
    assert known(hard.lrs).value == pytest.approx(score(0.5 * 0.09 - 0.5 * 0.54))
    tilted = find(ddranking(STUDY, full=0.85, weight=0.75))
    assert known(tilted.lrs).value == pytest.approx(score(0.75 * 0.05 - 0.25 * 0.54))


def test_paired_replicates_are_compared_one_by_one() -> None:
    soft = find(ddranking(STUDY, full=0.85))
    # Differences 0.04, 0.05, 0.06: mean 0.05, deviation 0.01, t(2) = 4.3027.
    half = 4.30265 * 0.01 / math.sqrt(3)
    assert (known(soft.ior).low, known(soft.ior).high) == (
        pytest.approx(0.05 - half, abs=1e-6),
        pytest.approx(0.05 + half, abs=1e-6),
    )
    # alpha by seed: 0.5 x (0.04, 0.05, 0.06) - 0.5 x (0.55, 0.54, 0.53) = -0.255, -0.245, -0.235
    assert known(soft.lrs).low == pytest.approx(score(-0.245 - half))
    assert known(soft.lrs).high == pytest.approx(score(-0.245 + half))


def test_the_full_dataset_may_be_a_study_of_its_own() -> None:
    full = rows("random", "hard", [0.84, 0.86], seeds=[7, 8], images__ipc=5000, train__lr=0.01)
    soft = find(ddranking(STUDY, full=full))
    assert known(soft.hlr).value == pytest.approx(0.54)
    low = known(soft.hlr).low
    assert low is not None
    assert low < 0.54 - 0.01
    assert soft.notes[0] == "the full dataset: with another recipe"
    assert known(soft.hlr).count == 2


def test_the_augmentation_robust_score_pairs_with_and_without() -> None:
    crop = {"train__augment": "rrc", "train__crop_scale": "0.08+1.0"}
    study = [
        *STUDY,
        *rows("el2n", "soft", [0.60, 0.61, 0.62], **crop),
        *rows("random", "soft", [0.50, 0.50, 0.50], **crop),
    ]
    found = ddranking(study)
    with_crops = find(found, train__augment="rrc")
    # beta = 0.5 x 0.11 + 0.5 x 0.05 = 0.08
    assert known(with_crops.ars).value == pytest.approx(score(0.08))
    assert find(found, train__augment="none").ars is None
    tilted = find(ddranking(study, gamma=0.9), train__augment="rrc")
    assert known(tilted.ars).value == pytest.approx(score(0.9 * 0.11 + 0.1 * 0.05))


def test_what_has_no_counterpart_is_said_and_not_guessed() -> None:
    other = rows("random", "soft", [0.4, 0.4, 0.4], train__lr=0.5)
    found = find(ddranking([*rows("el2n", "soft", [0.5, 0.5, 0.5]), *other], full=0.9))
    assert (found.ior, found.hlr, found.lrs, found.ars) == (None, None, None, None)
    assert found.notes == (
        "no random images with all else equal (the closest differ in train.lr)",
        "no results of the method's hard labels for these data, images and student",
        "ARS needs the same images with augmentation",
    )
    without = find(ddranking(STUDY))
    assert without.ior is not None
    assert without.hlr is None
    assert "HLR and LRS need the accuracy of the full dataset" in without.notes


def test_hard_labels_of_several_recipes_are_chosen_by_validation() -> None:
    soft = [r for r in STUDY if r["labels.kind"] == "soft"]
    worse = rows("el2n", "hard", [0.35] * 3, train__lr=0.5, val_acc=0.2)
    better = rows("el2n", "hard", [0.30] * 3, train__lr=0.7, val_acc=0.3)
    chosen = find(ddranking([*soft, *worse, *better], full=0.9))
    assert known(chosen.hlr).value == pytest.approx(0.6)
    assert "the method's hard labels: the best of 2 recipes by val_acc" in chosen.notes
    blind = [{**row, "val_acc": None} for row in (*worse, *better)]
    unknown = find(ddranking([*soft, *blind], full=0.9))
    assert unknown.hlr is None
    assert "the method's hard labels: 2 recipes, and no val_acc to choose among them" in unknown.notes


def test_one_replicate_has_no_interval() -> None:
    found = find(ddranking([row for row in STUDY if row["seed"] == 0], full=0.9))
    assert (known(found.lrs).low, known(found.lrs).high, known(found.lrs).count) == (None, None, 1)


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_hold_the_truth_as_often_as_they_say(paired: bool) -> None:
    generator = np.random.default_rng(int(paired))
    hits = 0
    for _ in range(1000):
        luck = generator.normal(0, 0.05, 5)
        method = 0.5 + luck + generator.normal(0, 0.01, 5)
        random = 0.4 + (luck if paired else generator.normal(0, 0.05, 5)) + generator.normal(0, 0.01, 5)
        seeds = range(5) if paired else range(10, 15)
        study = [*rows("el2n", "hard", method), *rows("random", "hard", random, seeds=seeds)]
        (found,) = ddranking(study, full=0.9)
        lrs = known(found.lrs)
        assert lrs.low is not None
        assert lrs.high is not None
        hits += lrs.low <= score(0.5 * 0.1 - 0.5 * 0.4) <= lrs.high
    assert 930 <= hits <= 972


def test_independent_parts_add_their_variances() -> None:
    one, other = {0: 1.0, 1: 3.0}, {5: 2.0, 6: 2.0, 7: 5.0}
    mean = combined([Term(1, one), Term(-1, other)])
    total = 2 / 2 + 3 / 3
    freedom = total**2 / (1 / 1 + 1 / 2)
    assert mean.value == pytest.approx(-1)
    assert mean.high == pytest.approx(-1 + stats.t.ppf(0.975, freedom) * math.sqrt(total))
    assert combined([Term(2, {0: 1.0, 1: 1.0})]).high == 2.0


@pytest.mark.parametrize(
    ("study", "options", "said"),
    [
        (STUDY, {"full": 62.5}, "must be a fraction from 0 to 1; 62.5 % is 0.625"),
        (STUDY, {"full": math.nan}, "must be a fraction"),
        (STUDY, {"weight": 2.0}, "weight is 2, but must be from 0 to 1"),
        (STUDY, {"gamma": -1.0}, "gamma is -1"),
        (STUDY, {"full": rows("random", "soft", [0.9])}, "no finished row with hard labels"),
        (
            STUDY,
            {"full": rows("random", "hard", [0.9]) + rows("random", "hard", [0.9], images__ipc=50)},
            "sets of 10 and 50 images per class",
        ),
        (rows("random", "hard", [0.5]), {}, "no method other than random"),
    ],
)
def test_what_cannot_be_is_refused(study: Any, options: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ddranking(study, **options)
