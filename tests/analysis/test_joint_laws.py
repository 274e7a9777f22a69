"""Joint laws over images and kept label entries, on surfaces whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from raydc.analysis.exchange_rate import exchange_rates, typical
from raydc.analysis.joint_laws import JointLaw, NoJointLaw, as_row, fit_joint
from raydc.analysis.joint_search import NAMES, parameters_of, predict
from raydc.analysis.surfaces import Surface, surfaces
from raydc.errors import InputError
from tests.analysis.test_laws import power, rows

N, K = (1, 2, 5, 10, 20, 50), (1, 2, 4, 10)
TRUTHS = {
    # (a, b, c, d, e, f)
    "additive": (0.9, 0.5, 0.6, 0.15, 0.8, 0.0),
    "product": (0.85, 0.0, 0.6, 0.0, 0.4, 0.6),
    "interaction": (0.9, 0.5, 0.6, 0.2, 0.8, -0.15),
    "logarithmic": (0.2, 0.08, 1.0, 0.05, 1.0, 0.01),
}


def surface(
    form: str,
    seeds: int,
    noise: float,
    seed: int,
    truth: tuple[float, ...] | None = None,
    ks: tuple[int, ...] = K,
) -> Surface:
    generator = np.random.default_rng(seed)
    x, z = (grid.ravel().astype(float) for grid in np.meshgrid(N, ks, indexing="ij"))
    [y] = predict(form, np.array([truth or TRUTHS[form]]), x, z)
    return Surface({}, x, z, tuple(mean + generator.normal(0, noise, seeds) for mean in y))


def inside(found: JointLaw | NoJointLaw) -> JointLaw:
    law = found.inside if isinstance(found, NoJointLaw) else found
    assert law is not None
    return law


@pytest.mark.parametrize("form", list(TRUTHS))
def test_an_exact_law_is_found(form: str) -> None:
    law = fit_joint(surface(form, 1, 0.0, 0), form)
    assert isinstance(law, JointLaw)
    np.testing.assert_allclose(law.values, TRUTHS[form], atol=2e-4)
    assert set(law.parameters()) == set(parameters_of(form))
    assert law.parameters()["a"].low is None  # one replicate has no spread, so no interval
    assert np.abs(law.holdout).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("form", list(TRUTHS))
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_hold_the_truth_as_often_as_they_say(form: str, seeds: int) -> None:
    places = [NAMES.index(name) for name in parameters_of(form)]
    true = surface(form, 1, 0.0, 0)
    held, curve, draws = np.zeros(len(places)), np.zeros(len(true.x)), 200
    for draw in range(draws):
        law = inside(fit_joint(surface(form, seeds, 0.01, draw), form, seed=draw))
        known = law.parameters()
        intervals = [known[NAMES[place]] for place in places]
        held += [i.low <= TRUTHS[form][p] <= i.high for i, p in zip(intervals, places, strict=True)]
        low, high = law.band(true.x, true.z)
        curve += (low <= true.means) & (true.means <= high)
    for part in (held / draws, curve / draws):
        assert (part >= 0.90).all(), part
        assert (part <= 0.99).all(), part


@pytest.mark.parametrize("form", list(TRUTHS))
def test_aicc_prefers_the_form_that_made_the_data(form: str) -> None:
    chosen = [inside(fit_joint(surface(form, 5, 0.002, draw))).form for draw in range(10)]
    # A sum may be written with an interaction that is next to nothing, at a small price.
    assert chosen.count(form) >= 8


def test_a_wrong_form_fails_at_the_largest_n() -> None:
    some = surface("product", 5, 0.002, 0)
    right, wrong = (inside(fit_joint(some, form)) for form in ("product", "logarithmic"))
    assert np.abs(right.holdout).max() < 0.02 < np.abs(wrong.holdout).max()
    assert right.aicc < wrong.aicc
    assert wrong.lack_of_fit < 0.01 < right.lack_of_fit


def test_an_accuracy_with_whole_labels_is_at_most_one() -> None:
    law = inside(fit_joint(surface("additive", 3, 0.002, 0, (1.1, 0.6, 0.6, 0.15, 0.8, 0.0)), "additive"))
    a, _, _, d, e, _ = law.values
    assert a - d * max(K) ** -e == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("truth", "form", "reason"),
    [
        ((0.9, 0.0, 0.6, 0.15, 0.8, 0.0), "additive", "hides the effect of n|does not rise with n"),
        ((0.9, 0.5, 0.6, 0.0, 0.8, 0.0), "additive", "hides the effect of k"),
        ((0.8, 0.5, 0.6, -0.15, 0.8, 0.0), "additive", "does not rise with k"),
        ((0.2, 0.05, 1.0, 0.02, 1.0, 0.0), "logarithmic", "like a logarithm of n"),
    ],
)
def test_data_that_cannot_support_a_law_get_a_reason(
    truth: tuple[float, ...], form: str, reason: str
) -> None:
    found = fit_joint(surface(form, 5, 0.004, 2, truth), "additive")
    assert isinstance(found, NoJointLaw)
    assert any(part in found.reason for part in reason.split("|"))
    row = as_row(found)
    assert row["a"] is None
    assert row["reason"] == found.reason


def test_too_few_values_or_pairs_that_do_not_cross_are_refused() -> None:
    two = surface("additive", 3, 0.01, 0, ks=(1, 10))
    assert fit_joint(two).reason == "2 value(s) of k, but a joint law needs 3"
    some = surface("interaction", 3, 0.002, 0)
    corner = some.part((some.x == 50) | (some.z == 10))
    assert inside(fit_joint(corner)).form != "interaction"
    assert "do not determine the parameters" in fit_joint(corner, "interaction").reason


def test_a_doubling_of_k_in_a_product_is_worth_a_constant_factor() -> None:
    truth = TRUTHS["product"]
    law = fit_joint(surface("product", 5, 0.002, 0), "product")
    found = exchange_rates(law)
    factor = 2 ** (truth[4] / truth[2])
    assert {(item.n, item.k) for item in found} == {(n, k) for n in N for k in (1, 2, 4)}
    for item in found:
        assert item.images.value == pytest.approx(factor * item.n, rel=0.03)
        assert item.images.low <= factor * item.n <= item.images.high
        assert item.gain.low <= truth[5] * item.n**-0.6 * item.k**-0.4 * (1 - 2**-0.4) <= item.gain.high
    assert typical(found).k == 1


def test_a_doubling_is_never_read_outside_the_data() -> None:
    found = exchange_rates(fit_joint(surface("product", 5, 0.002, 0), "product"))
    [largest] = [item for item in found if (item.n, item.k) == (50, 1)]
    assert largest.text() == "> 50"
    assert largest.ratio is None
    assert largest.row()["images"] is None
    [near] = [item for item in found if (item.n, item.k) == (20, 1)]
    assert near.row()["images_high"] is not None or "> 50" in near.text()


def test_labels_without_a_limit_keep_all_entries_and_hard_labels_none() -> None:
    some = rows("hard", power(0.8, 0.5, 0.5)) + rows("soft", power(0.8, 0.4, 0.5))
    some += rows("soft", power(0.8, 0.45, 0.5), labels__top_k=2)
    for row in some:
        row["test_acc_by_class"] = [0.5] * 7
    [found] = surfaces(some)
    assert found.key == {"labels.kind": "soft"}
    assert set(found.z) == {2, 7}
    with pytest.raises(InputError, match=r"no value of 'labels\.topk'"):
        surfaces(some, z="labels.topk")
