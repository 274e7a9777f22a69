"""Orders by NLL and by entropy, and the crop ratio at which an advantage is gone, on known curves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from raydc.analysis.entropy import SetPoint, mean_points, orders, reversals

RATIOS = (0.1, 0.3, 0.5, 0.7, 1.0)


def sets(
    method: str,
    entropy: Callable[[float], float],
    nll: float = 1.0,
    seeds: int = 5,
    noise: float = 0.0,
    ipc: int = 10,
    generator: np.random.Generator | None = None,
) -> list[SetPoint]:
    generator = generator or np.random.default_rng(len(method))
    luck = generator.normal(0, noise, seeds)
    return [
        SetPoint(
            f"{method}-{seed}",
            {"images.method": method, "images.ipc": ipc},
            (seed,),
            ratio,
            entropy(ratio) + luck[seed],
            nll,
        )
        for seed in range(seeds)
        for ratio in RATIOS
    ]


def crossing_at(ratio: float) -> list[SetPoint]:
    """el2n is the lower by ratio - r, which is 0 at `ratio`."""
    return [*sets("el2n", lambda r: 1.0 - (r - ratio), noise=0.02), *sets("random", lambda _: 1.0)]


def test_a_lower_nll_with_a_higher_entropy_is_found() -> None:
    points = [*sets("el2n", lambda _: 0.9, nll=0.5), *sets("rded", lambda _: 0.7, nll=0.8)]
    found = orders(points)
    assert [o.ratio for o in found] == list(RATIOS)
    for order in found:
        assert (order.one["images.method"], order.other["images.method"]) == ("el2n", "rded")
        assert order.nll.value == pytest.approx(0.3)
        assert order.entropy.value == pytest.approx(-0.2)
        assert (order.opposed, order.pairs, order.disagrees) == (5, 5, True)
    agreeing = orders([*sets("el2n", lambda _: 0.7, nll=0.5), *sets("rded", lambda _: 0.9, nll=0.8)])
    assert {(o.opposed, o.disagrees) for o in agreeing} == {(0, False)}


def test_sets_of_other_sizes_are_not_compared() -> None:
    assert orders([*sets("el2n", lambda _: 1), *sets("random", lambda _: 2, ipc=50)]) == []


@pytest.mark.parametrize("truth", [0.2, 0.44, 0.81])
def test_the_ratio_at_which_the_advantage_is_gone(truth: float) -> None:
    (found,) = reversals(crossing_at(truth))
    assert found.one["images.method"] == "el2n"
    assert found.advantage.value == pytest.approx(1 - truth, abs=0.05)
    assert found.ratio == pytest.approx(truth, abs=0.05)
    assert found.ratio is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.ratio <= found.high


def test_an_exact_crossing_is_read_between_the_ratios() -> None:
    points = [*sets("el2n", lambda r: 1.4 - r), *sets("random", lambda _: 1.0)]
    (found,) = reversals(points)
    assert found.ratio == pytest.approx(0.4)


def test_an_advantage_that_stays_is_said_to() -> None:
    (found,) = reversals([*sets("el2n", lambda _: 0.5, noise=0.01), *sets("random", lambda _: 1.0)])
    assert (found.ratio, found.text(), found.note) == (None, "none in range", "")


def test_intervals_of_the_crossing_hold_the_truth() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        el2n = sets("el2n", lambda r: 1.4 - r, noise=0.05, generator=generator)
        (found,) = reversals([*el2n, *sets("random", lambda _: 1.0, noise=0.05, generator=generator)])
        low = 0.0 if found.low is None else found.low
        assert found.high is not None
        hits += low <= 0.4 <= found.high
    assert 89 <= hits <= 99


def test_sets_without_spread_have_no_interval() -> None:
    key = {"images.method": "herding", "images.ipc": 10}
    one = [SetPoint("herding", key, (0, 1, 2, 3, 4), ratio, 0.5 + ratio, 1.0) for ratio in RATIOS]
    two = [SetPoint("el2n", {**key, "images.method": "el2n"}, p.seeds, p.ratio, 1.1, 1.0) for p in one]
    (found,) = reversals([*one, *two])
    assert (found.low, found.high, found.note) == (None, None, "one comparison: no interval")
    assert found.ratio == pytest.approx(0.6)
    assert {mean.entropy.count for mean in mean_points([*one, *two])} == {1}
    # Against sets that differ, what varies is theirs.
    (mixed,) = reversals([*one, *sets("random", lambda _: 2.0, noise=0.1)])
    assert mixed.advantage.count == 5
    assert mixed.advantage.low is not None
