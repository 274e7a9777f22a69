"""Figures of labels as data."""

from __future__ import annotations

import pytest

from raydc.report import drawing
from raydc.report.label_figures import divergence_figure


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
