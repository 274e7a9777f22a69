"""Output of `raydc fit --z` and `raydc frontier --over images`: images against label information."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raydc.commands.terminal import emit, show_table
from raydc.errors import InputError

if TYPE_CHECKING:
    from raydc.analysis.frontier import ImagePoint, StoredPoint
    from raydc.spec.result import Row


def fit_surfaces(
    rows: list[Row], x: str, z: str, y: str, by: list[str] | None, form: str, as_json: bool
) -> None:
    """Print joint laws over x and z, one row per group of points, and what doubling z is worth in images."""
    from raydc.analysis.exchange_rate import exchange_rates
    from raydc.analysis.joint_laws import FORMULAS, NoJointLaw, as_row, fit_joint
    from raydc.analysis.surfaces import surfaces
    from raydc.report.result_tables import holdout_error, parameters
    from raydc.report.tables import points

    fits = [fit_joint(surface, form) for surface in surfaces(rows, x, z, y, by)]
    check_any(fits)
    answers = [exchange_rates(found) for found in fits]
    shown: list[dict[str, Any]] = []
    for found in fits:
        law = found.inside if isinstance(found, NoJointLaw) else found
        line: dict[str, Any] = {"points": found.surface.label}
        if law is not None:
            line |= {"law": FORMULAS[law.form].format(x="n", z="k"), "rmse": law.rmse, "AICc": law.aicc}
            line["largest n"] = holdout_error(law)
        if isinstance(found, NoJointLaw):
            line["note"] = f"{'no fit' if law is None else 'valid inside the data only'}: {found.reason}"
        else:
            line["parameters"] = parameters(found)
            line["note"] = spread(int(found.surface.counts.min()))
        shown.append(line)
    worths = [
        {
            "points": found.surface.label,
            "n": item.n,
            "k": f"{item.k:g} to {2 * item.k:g}",
            "gain, points": points(item.gain),
            "equivalent images with k": item.text(),
        }
        for found, part in zip(fits, answers, strict=True)
        for item in part
    ]

    def show() -> None:
        show_table(
            f"{y} over n = {x} and k = {z}",
            shown,
            ["points", "law", "parameters", "rmse", "AICc", "largest n", "note"],
        )
        if worths:
            show_table(f"What doubling {z} is worth", worths)

    full = [
        {**as_row(found), "exchange_rates": [item.row() for item in part]}
        for found, part in zip(fits, answers, strict=True)
    ]
    emit(full, as_json, show)


def check_any(fits: Sequence[object]) -> None:
    """Raise `InputError` if there is nothing to fit."""
    if not fits:
        raise InputError("there is no finished evaluation to fit yet; run the study first")


def spread(replicates: int) -> str:
    """`3 replicates`, or the reason why there are no intervals."""
    return "one replicate: no intervals" if replicates == 1 else f"{replicates} replicates"


def frontier_over_images(rows: list[Row], as_json: bool) -> None:
    """Print the best labels for each number of images; as JSON all labels, with the best ones marked."""
    from raydc.analysis.curves import label_of
    from raydc.analysis.frontier import image_frontier
    from raydc.report.tables import percent

    points = image_frontier(rows)
    full = [
        {
            **point.group,
            "images.ipc": point.ipc,
            **point.labels,
            **accuracies(point),
            "chosen_by": point.chosen_by,
            "best": point.best,
            "on_frontier": point.on_frontier,
        }
        for point in points
    ]
    shown = [
        {
            "group": label_of(point.group),
            "IPC": point.ipc,
            "labels": label_of(point.labels),
            "test accuracy": percent(point.test_acc),
            "chosen by": point.chosen_by,
            "on the frontier": point.on_frontier,
        }
        for point in points
        if point.best
    ]
    emit(full, as_json, lambda: show_table("The best labels for each number of images", shown))


def accuracies(point: StoredPoint | ImagePoint) -> dict[str, Any]:
    """Test accuracy of a point with its interval, validation accuracy and number of replicates."""
    return {
        "test_acc": point.test_acc.value,
        "test_acc_low": point.test_acc.low,
        "test_acc_high": point.test_acc.high,
        "val_acc": point.val_acc,
        "replicates": point.test_acc.count,
    }
