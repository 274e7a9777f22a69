"""What the figures show, as data."""

from __future__ import annotations

from raydc.report.figures import all_figures
from tests.analysis.test_laws import power, rows


def test_hard_and_soft_labels_of_every_method_share_the_axis_of_total_bytes() -> None:
    # Each method has one kind of labels here, so the method alone tells the points apart.
    hard = [{**row, "images.method": "el2n"} for row in rows("hard", power(0.8, 0.5, 0.5))]
    soft = [{**row, "images.method": "rded"} for row in rows("soft", power(0.8, 0.4, 0.5))]
    (scatter,) = all_figures([*hard, *soft]).frontier
    assert set(scatter.groups) == {"el2n, hard", "rded, soft"}
    sizes = {
        (g, p.key["images.ipc"]): p.total_bytes for g, p in zip(scatter.groups, scatter.points, strict=True)
    }
    assert sizes["el2n, hard", 10] == 10 * (100 + 1)
    assert sizes["rded, soft", 10] == 10 * (100 + 20)


def test_one_kind_of_labels_is_not_named() -> None:
    (scatter,) = all_figures(rows("hard", power(0.8, 0.5, 0.5))).frontier
    assert set(scatter.groups) == {"all"}
