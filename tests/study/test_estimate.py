"""What work will take, from what it took."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raydc.data.dataset import Dataset
from raydc.spec.plan import Plan
from raydc.spec.study import StudySpec
from raydc.study.estimate import price, work_rates
from raydc.worker.evaluate import attempt
from raydc.worker.planned_work import work_of
from raydc.worker.workbench import Workbench

LEARNED = (
    "base.labels={kind: learned, unroll_steps: 2, inner_steps: 4, outer_steps: 3, lr: 0.1, real_batch: 50}"
)


def test_work_is_priced_by_what_such_work_took(
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    planned: Callable[[StudySpec], Plan],
    bench: Workbench,
    digits: Dataset,
) -> None:
    soft, learnt = ready(small("base.labels.kind=soft", "seeds=2")), ready(small(LEARNED))
    rows = [attempt(one, bench, study="small") for plan in (soft, learnt) for one in plan.evaluations]
    known = work_rates([*rows, *rows], digits.facts)  # each piece counts once
    more = planned(small(LEARNED.replace("outer_steps: 3", "outer_steps: 300"), "seeds=[5, 6]"))
    prices = price(work_of(more, 10), digits.facts, known)
    took = rows[2]["labels_seconds"]
    assert prices["learned labels"] == pytest.approx(len(more.learned) * 100 * took)
    images = {row["set_id"]: row["images_seconds"] for row in rows}
    assert prices["sets"] == pytest.approx(len(more.sets) * sum(images.values()) / len(images))
    passes = planned(small("base.labels.kind=soft", "seeds=[5, 6, 7]"))
    seconds = sum(row["labels_seconds"] for row in rows[:2])
    assert price(work_of(passes, 10), digits.facts, known)["labels"] == pytest.approx(3 * seconds / 2)


def test_what_was_never_made_has_no_price(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], digits: Dataset
) -> None:
    plan = planned(small("base.labels.kind=soft"))
    prices = price(work_of(plan, 10), digits.facts, {})
    assert prices == {"teachers": None, "sets": None, "labels": None}
