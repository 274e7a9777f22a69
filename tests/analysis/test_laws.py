"""Laws, frontiers and worth on results whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from raydc.analysis.curves import Curve, curves, varying_keys
from raydc.analysis.frontier import frontier, image_frontier
from raydc.analysis.intervals import mean_of
from raydc.analysis.laws import Law, NoLaw, fit
from raydc.analysis.worth import worth
from raydc.errors import InputError

IPCS = (1, 2, 5, 10, 20, 50)


def rows(
    kind: str, accuracy: Any, ipcs: Iterable[float] = IPCS, seeds: int = 3, noise: float = 0.0, **keys: Any
) -> list[dict[str, Any]]:
    generator = np.random.default_rng(len(kind))
    return [
        {
            "evaluation_id": f"{kind}-{ipc}-{seed}-{keys}",
            "study": "s",
            "status": "finished",
            "seed": seed,
            "images.method": "random",
            "images.ipc": ipc,
            "labels.kind": kind,
            "labels.codec": None if kind == "hard" else "fp16",
            **{key.replace("__", "."): value for key, value in keys.items()},
            "test_acc": float(accuracy(ipc) + generator.normal(0, noise)),
            "val_acc": float(accuracy(ipc)),
            "images_bytes": 100 * ipc,
            "labels_bytes": ipc * (1 if kind == "hard" else 20),
        }
        for ipc in ipcs
        for seed in range(seeds)
    ]


def power(a: float, b: float, c: float) -> Any:
    return lambda n: a - b * n**-c


def curve_of(law: Any, seeds: int, noise: float, seed: int, x: Iterable[float] = IPCS) -> Curve:
    generator = np.random.default_rng(seed)
    places = np.array(list(x), float)
    return Curve({}, places, tuple(law(n) + generator.normal(0, noise, seeds) for n in places))


def test_an_exact_law_is_found() -> None:
    law = fit(curve_of(power(0.8, 0.5, 0.5), 1, 0.0, 0))
    assert isinstance(law, Law)
    assert law.a.value == pytest.approx(0.8, abs=0.003)
    assert law.b.value == pytest.approx(0.5, abs=0.003)
    assert law.c.value == pytest.approx(0.5, abs=0.01)
    assert law.a.low is None  # one replicate has no spread, so no interval


@pytest.mark.parametrize(
    ("law", "x", "noise", "reason"),
    [
        (power(0.8, 0.5, 0.5), (1, 10, 50), 0.01, "3 values of x"),
        (lambda n: 0.5, IPCS, 0.02, "hides any rise|does not rise"),
        (lambda n: 0.5 - 0.04 * np.log(n), IPCS, 0.01, "does not rise"),
        (lambda n: 0.2 + 0.05 * np.log(n), IPCS, 0.001, "rises like a logarithm"),
        (lambda n: 0.2 if n < 2 else 0.5, IPCS, 0.001, "flat after its first point"),
    ],
)
def test_data_that_cannot_support_a_fit_get_a_reason(
    law: Any, x: tuple[int, ...], noise: float, reason: str
) -> None:
    found = fit(curve_of(law, 3, noise, 1, x))
    assert isinstance(found, NoLaw)
    assert any(part in found.reason for part in reason.split("|"))


def test_an_accuracy_is_at_most_one() -> None:
    law = fit(curve_of(power(1.05, 0.5, 0.6), 3, 0.002, 0, (1, 2, 5, 10)))
    assert isinstance(law, Law)
    assert law.a.value == law.a.high == 1


def test_a_law_without_a_limit_still_serves_inside_the_data() -> None:
    found = fit(curve_of(lambda n: 0.2 + 0.05 * np.log(n), 3, 0.001, 0))
    assert isinstance(found, NoLaw)
    np.testing.assert_allclose(found.inside.predict(found.curve.x), found.curve.means, atol=0.015)


def test_points_off_the_law_are_noticed() -> None:
    wiggly = fit(curve_of(lambda n: 0.8 - 0.5 * n**-0.5 + 0.05 * np.sin(3 * n), 3, 0.003, 0))
    straight = fit(curve_of(power(0.8, 0.5, 0.5), 3, 0.003, 0))
    assert wiggly.lack_of_fit < 0.01 < straight.lack_of_fit


def test_curves_are_told_apart_by_the_fewest_keys() -> None:
    some = rows("hard", power(0.8, 0.5, 0.5)) + rows("soft", power(0.9, 0.4, 0.5), labels__temperature=4.0)
    assert varying_keys(some, ["images.ipc"]) == ["labels.kind"]
    found = curves(some)
    assert [curve.label for curve in found] == ["hard", "soft"]
    assert [len(curve.x) for curve in found] == [6, 6]
    with pytest.raises(InputError, match=r"no value of 'image\.ipc'; did you mean images\.ipc"):
        curves(some, x="image.ipc")


def test_one_value_has_no_interval_and_three_have_students() -> None:
    assert mean_of([0.5]).low is None
    mean = mean_of([0.4, 0.5, 0.6])
    assert (mean.low, mean.high) == pytest.approx((0.5 - 0.2484, 0.5 + 0.2484), abs=1e-4)


def test_rows_that_did_not_finish_count_nowhere() -> None:
    some = rows("hard", power(0.8, 0.5, 0.5))
    some[0]["status"] = "failed"
    some[1]["status"] = "stopped"
    assert curves(some)[0].counts.tolist() == [1, 3, 3, 3, 3, 3]


def test_the_frontier_is_what_nobody_beats() -> None:
    points = frontier(
        rows("hard", power(0.8, 0.5, 0.5)) + rows("soft", power(0.7, 0.1, 0.5), labels__temperature=1.0)
    )
    best = [p for p in points if p.on_frontier]
    sizes = [p.total_bytes for p in best]
    accuracies = [p.test_acc.value for p in best]
    assert sizes == sorted(sizes)
    assert accuracies == sorted(accuracies)
    for p in points:
        beaten = any(q.total_bytes <= p.total_bytes and q.val_acc >= p.val_acc and q is not p for q in points)
        assert beaten != p.on_frontier


def test_the_frontier_over_images_names_the_best_epoch() -> None:
    early = rows("soft", power(0.7, 0.2, 0.5), labels__teacher_epoch=1)
    late = rows("soft", power(0.9, 0.5, 0.5), labels__teacher_epoch=30)
    cold = rows("soft", power(0.9, 0.6, 0.5), labels__teacher_epoch=30, labels__temperature=4.0)
    for row in cold:
        row["test_acc"] = 0.99  # what is best on test only is not chosen
    points = image_frontier(early + late + cold)
    assert len(points) == 3 * len(IPCS)
    best = [p for p in points if p.best]
    assert [p.ipc for p in best] == list(IPCS)
    assert [p.labels["labels.teacher_epoch"] for p in best] == [1, 1, 30, 30, 30, 30]
    assert {p.chosen_by for p in points} == {"val_acc"}
    assert {p.labels["labels.temperature"] for p in best} == {None}
    assert all(p.on_frontier for p in best)
    for row in cold:
        row["val_acc"] = None
    assert {p.chosen_by for p in image_frontier(early + late + cold)} == {"test_acc"}


def test_more_images_that_do_worse_are_not_on_the_frontier() -> None:
    some = rows("soft", lambda n: 0.5 if n == 5 else 0.4 + n / 1000, labels__teacher_epoch=1)
    some += rows("soft", lambda n: 0.1, labels__teacher_epoch=2)
    best = {p.ipc: p.on_frontier for p in image_frontier(some) if p.best}
    assert best == {1: True, 2: True, 5: True, 10: False, 20: False, 50: False}


def test_worth_is_read_off_the_hard_labels_law() -> None:
    hard, soft = power(0.8, 0.5, 0.5), power(0.8, 0.35, 0.5)
    answers = worth(
        rows("hard", hard, noise=0.002)
        + rows("soft", soft, (1, 5, 50), noise=0.002, labels__temperature=4.0)
        + rows("soft", power(0.3, 0.1, 0.5), (1, 5, 50), labels__temperature=1.0)
    )
    assert [a.ipc for a in answers] == [1, 5, 50]
    assert {a.chosen_by for a in answers} == {"val_acc"}
    assert {a.labels["labels.temperature"] for a in answers} == {4.0}
    for answer in answers[:2]:
        truth = answer.ipc * (0.5 / 0.35) ** 2
        assert answer.hard_ipc == pytest.approx(truth, rel=0.1)
        assert answer.low <= truth <= answer.high
        assert answer.ratio == pytest.approx(2.04, rel=0.1)
    assert answers[2].text() == "> 50"


def test_worth_says_why_there_is_no_number() -> None:
    few = worth(rows("hard", power(0.8, 0.5, 0.5), (1, 10)) + rows("soft", power(0.8, 0.4, 0.5), (1,)))
    assert few[0].text() == "-"
    assert "at least 4" in few[0].note
    with pytest.raises(InputError, match="there are no hard-labelled results"):
        worth(rows("soft", power(0.8, 0.4, 0.5)))


def test_label_keys_are_never_chosen_by_test_accuracy() -> None:
    some = rows("hard", power(0.8, 0.5, 0.5))
    for temperature in (1.0, 4.0):
        some += rows("soft", power(0.8, 0.4, 0.5), labels__temperature=temperature)
    for row in some:
        row["val_acc"] = None
    with pytest.raises(InputError, match="chosen by val_acc, which these results do not have"):
        worth(some)


def test_worth_treats_the_loss_of_soft_labels_as_a_label_key() -> None:
    some = rows("hard", power(0.8, 0.5, 0.5))
    for loss, b in (("kl", 0.4), ("soft_ce", 0.3)):
        some += rows("soft", power(0.8, b, 0.5), train__loss=loss)
    assert {answer.labels["train.loss"] for answer in worth(some)} == {"soft_ce"}


def test_worth_says_when_nothing_can_be_compared() -> None:
    some = rows("hard", power(0.8, 0.5, 0.5), images__method="herding")
    with pytest.raises(InputError, match="no such pair was evaluated"):
        worth(some + rows("soft", power(0.8, 0.4, 0.5)))


def exponential(a: float, b: float, c: float) -> Any:
    return lambda n: a - b * np.exp(-c * n)


def logarithmic(a: float, b: float) -> Any:
    return lambda n: a + b * np.log(n)


LAWS = {"exponential": exponential(0.7, 0.5, 0.15), "logarithmic": logarithmic(0.2, 0.08)}


@pytest.mark.parametrize("form", list(LAWS))
def test_every_form_is_found_exactly(form: str) -> None:
    law = fit(curve_of(LAWS[form], 1, 0.0, 0), form)
    assert isinstance(law, Law)
    assert law.form == form
    np.testing.assert_allclose(law.predict(np.array(IPCS, float)), [LAWS[form](n) for n in IPCS], atol=2e-3)
    assert (law.c is None) == (form == "logarithmic")
    assert abs(law.holdout) < 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["power", *LAWS])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_of_every_form_hold_the_truth(form: str, seeds: int) -> None:
    truth = {"power": power(0.8, 0.5, 0.5), **LAWS}[form]
    parameters = {"power": (0.8, 0.5, 0.5), "exponential": (0.7, 0.5, 0.15), "logarithmic": (0.2, 0.08)}[form]
    x = np.array(IPCS, float)
    held, curve, draws = np.zeros(len(parameters)), np.zeros(len(x)), 0
    for draw in range(200):
        law = fit(curve_of(truth, seeds, 0.01, draw), form, seed=draw)
        law = law.inside if isinstance(law, NoLaw) and law.inside is not None else law
        if isinstance(law, Law):
            draws += 1
            held += [law_holds(law, name, t) for name, t in zip("abc", parameters, strict=False)]
            low, high = law.band(x)
            curve += (low <= truth(x)) & (truth(x) <= high)
    assert draws >= 190
    assert (held / draws >= 0.90).all()
    assert (held / draws <= 0.99).all()
    assert (curve / draws >= 0.90).all()
    assert (curve / draws <= 0.99).all()


def law_holds(law: Law, name: str, truth: float) -> bool:
    interval = getattr(law, name)
    return bool(interval.low <= truth <= interval.high)


@pytest.mark.parametrize("form", list(LAWS))
def test_aicc_prefers_the_form_that_made_the_data(form: str) -> None:
    chosen = [fit(curve_of(LAWS[form], 5, 0.005, draw), "auto").form for draw in range(20)]
    assert chosen.count(form) >= 18


def test_a_wrong_form_fails_at_the_largest_x() -> None:
    curve = curve_of(power(0.8, 0.5, 0.5), 5, 0.002, 0)
    right, wrong = fit(curve, "power"), fit(curve, "exponential")
    assert abs(right.holdout) < 0.02 < abs(wrong.holdout)
    assert right.aicc < wrong.aicc
