"""Claims: paired by seed, averaged over contrasts, undecided where 0 is inside."""

from __future__ import annotations

import pytest

from raydc.analysis.claims import Claim, Contrast, evaluate


def rows(**values: list[float]) -> list[dict[str, object]]:
    """One row a value: `a=[...]` are the replicates of the configuration whose `labels.kind` is a."""
    return [
        {
            "status": "finished",
            "seed": seed,
            "labels.kind": kind,
            "test_acc": value,
            "test_acc_by_class": [value],
        }
        for kind, replicates in values.items()
        for seed, value in enumerate(replicates)
    ]


def contrast(more: str, less: str, measure: str = "test_acc") -> Contrast:
    return Contrast(measure, {"labels.kind": more, "labels.top_k": None}, {"labels.kind": less})


def test_a_claim_holds_where_the_paired_interval_is_above_0() -> None:
    table = rows(a=[0.5, 0.6, 0.7], b=[0.4, 0.52, 0.58])
    verdict = evaluate(Claim("x", "a is above b", (contrast("a", "b"),)), table)
    assert verdict.more == pytest.approx(0.6)
    assert verdict.difference.value == pytest.approx(0.1)
    # Differences 0.10, 0.08, 0.12: deviation 0.02, t of 2 degrees 4.303.
    assert verdict.difference.low == pytest.approx(0.1 - 4.3027 * 0.02 / 3**0.5, abs=1e-4)
    assert verdict.holds is True
    assert evaluate(Claim("x", "b is above a", (contrast("b", "a"),)), table).holds is False


def test_a_claim_is_open_where_0_is_inside_or_nothing_is_known() -> None:
    table = rows(a=[0.5, 0.4, 0.6], b=[0.45, 0.5, 0.5])
    assert evaluate(Claim("x", "", (contrast("a", "b"),)), table).holds is None
    one = evaluate(Claim("x", "", (contrast("a", "b"),)), rows(a=[0.5], b=[0.1]))
    assert (one.difference.value, one.holds) == (pytest.approx(0.4), None)
    assert evaluate(Claim("x", "", (contrast("a", "c"),)), table).difference is None


def test_contrasts_of_a_seed_are_averaged_and_unpaired_seeds_left_out() -> None:
    table = rows(a=[0.5, 0.6, 0.9], b=[0.4, 0.4], c=[0.3, 0.5, 0.1])
    claim = Claim("x", "", (contrast("a", "b"), contrast("a", "c", "test_acc_by_class:0")))
    verdict = evaluate(claim, table)
    assert verdict.difference.count == 2
    assert verdict.difference.value == pytest.approx(((0.1 + 0.2) / 2 + (0.2 + 0.1) / 2) / 2)
    assert [part.value for part in verdict.parts] == pytest.approx([0.15, 0.15])
    assert claim.points == [
        {"labels.kind": "a"},
        {"labels.kind": "b"},
        {"labels.kind": "a"},
        {"labels.kind": "c"},
    ]


def test_a_key_that_must_not_apply_excludes_rows_that_have_it() -> None:
    table = [{**row, "labels.top_k": 1} for row in rows(a=[0.5, 0.6])] + rows(b=[0.4, 0.4])
    assert evaluate(Claim("x", "", (contrast("a", "b"),)), table).difference is None


def test_a_claim_may_compare_two_differences() -> None:
    table = rows(a=[0.9, 0.8, 0.85], b=[0.5, 0.42, 0.44], c=[0.7, 0.6, 0.66], d=[0.6, 0.52, 0.56])
    claim = Claim("x", "a - b is above c - d", (contrast("a", "b"),), against=(contrast("c", "d"),))
    verdict = evaluate(claim, table)
    assert (verdict.more, verdict.less) == (pytest.approx(0.4 - 0.01 / 3), pytest.approx(0.28 / 3))
    assert verdict.difference.value == pytest.approx((0.3 + 0.3 + 0.31) / 3)
    assert verdict.holds is True
    assert len(verdict.parts) == 2
    assert len(claim.points) == 4
