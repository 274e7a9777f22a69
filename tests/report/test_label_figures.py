"""Figures of labels as data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from raydc.analysis.labels import divergence, softmax
from raydc.report import drawing
from raydc.report.label_figures import divergence_figure, label_figures
from raydc.spec.plan import Plan
from raydc.spec.study import StudySpec
from raydc.worker.evaluate import attempt
from raydc.worker.workbench import Workbench


def test_the_least_divergence_is_marked() -> None:
    figure = divergence_figure("the teacher", {20: [0.2, 0.3], 5: [0.1, 0.14], 1: [0.4, 0.41]})
    [line] = figure.series
    assert line.x == (1.0, 5.0, 20.0)
    assert line.y == pytest.approx((0.405, 0.12, 0.25))
    assert line.low[1] < 0.12 < line.high[1]
    assert figure.marked.x == (5.0,)
    assert figure.marked.y == pytest.approx((0.12,))
    assert figure.marked.notes == ("epoch 5",)
    assert not figure.percent
    assert "epoch 5" in drawing.svg(drawing.lines(figure))


def test_one_set_has_no_interval_and_epoch_zero_no_logarithm() -> None:
    figure = divergence_figure("the teacher", {0: [0.4], 5: [0.1]})
    assert figure.series[0].low == (None, None)
    assert not figure.log
    drawing.lines(figure)


GRID = """
grid:
  - labels.kind: [soft]
    labels.teacher_epoch: [1, 2]
  - labels.kind: [learned]
    labels.unroll_steps: [2]
    labels.inner_steps: [3]
    labels.outer_steps: [2]
    labels.real_batch: [40]
"""


def test_learned_labels_are_held_against_every_epoch_of_the_teacher(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    plan = ready(small("base.images.ipc=1", extra=GRID))
    rows = [attempt(planned, bench, study="x") for planned in plan.evaluations]
    lines, heats = label_figures(rows, bench.store)
    [figure] = [line for line in lines if line.title.startswith("Learned labels")]
    ((name, _),) = plan.learned.items()
    learned = bench.learned(name)[0].numpy()
    expected = []
    for planned in plan.evaluations:
        if planned.passes:
            logits, _ = bench.logits(planned.passes)
            expected.append(divergence(learned, softmax(logits[0].numpy())))
    assert figure.series[0].y == pytest.approx(expected)
    assert len(heats) == 1  # the learner is no teacher


def test_labels_without_mass_diverge_as_uniform_ones_do() -> None:
    nothing = torch.zeros(2, 4).numpy()
    assert divergence(nothing, torch.full((2, 4), 0.25).numpy()) == pytest.approx(0)
