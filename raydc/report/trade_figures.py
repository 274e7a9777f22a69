"""Figures of images against label information: the joint law, and the envelope over teacher epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raydc.analysis.curves import label_of
from raydc.analysis.frontier import EPOCH, ImagePoint, image_frontier, qualities
from raydc.analysis.joint_laws import FORMULAS, JointLaw, NoJointLaw, fit_joint
from raydc.analysis.surfaces import KEPT, Surface, surfaces
from raydc.report.figures import JointFigure, Lines, Marked, series_of
from raydc.spec.result import Row

MOST_FIGURES = 12


def joint_figures(rows: Sequence[Row]) -> list[JointFigure]:
    """Accuracy over images and kept label entries, for each group of points in which both vary."""
    if all(row.get(KEPT) is None for row in rows):
        return []
    both = [surface for surface in surfaces(rows) if _varies_both(surface)]
    return [_joint_figure(fit_joint(surface)) for surface in both[:MOST_FIGURES]]


def _varies_both(surface: Surface) -> bool:
    return all(len(np.unique(values)) > 1 for values in (surface.x, surface.z))


def _joint_figure(found: JointLaw | NoJointLaw) -> JointFigure:
    name = found.surface.label
    law = found.inside if isinstance(found, NoJointLaw) else found
    fitted = "No joint law" if law is None else f"Lines are the law {FORMULAS[law.form].format(x='n', z='k')}"
    if isinstance(found, NoJointLaw):
        fitted += f": {found.reason}" if law is None else f", valid inside the data only: {found.reason}"
    where = "" if name == "all" else f" ({name})"
    return JointFigure(
        title=name,
        caption=(
            f"Test accuracy over n images per class, with the k largest entries of each label{where}; bars "
            "and bands are 95 % intervals from the spread of replicates, pooled over all points. "
            f"{fitted}."
        ),
        x_label="images per class",
        y_label="test accuracy",
        z_label="kept entries",
        found=found,
    )


def envelopes(rows: Sequence[Row]) -> list[Lines]:
    """Accuracy over images, one line for each teacher epoch, with the upper envelope marked."""
    points = image_frontier(rows)
    groups: dict[str, list[ImagePoint]] = {}
    for point in points:
        groups.setdefault(label_of(point.group), []).append(point)
    drawn = []
    for name, members in groups.items():
        epochs = {point.labels.get(EPOCH) for point in members} - {None}
        if len(epochs) > 1 and len({point.ipc for point in members}) > 1:
            drawn.append(_envelope(name, members))
    return drawn[:MOST_FIGURES]


def _envelope(name: str, points: Sequence[ImagePoint]) -> Lines:
    series = []
    for label in dict.fromkeys(line_of(point.labels) for point in points):
        line = _best_by_ipc([point for point in points if line_of(point.labels) == label])
        notes = tuple(label_of({k: v for k, v in p.labels.items() if k != EPOCH}) for p in line)
        series.append(series_of(label, [p.ipc for p in line], [p.test_acc for p in line], notes))
    best = [point for point in points if point.best]
    where = "" if name == "all" else f" ({name})"
    return Lines(
        title=f"The best teacher epoch for each number of images{where}",
        caption=(
            f"Test accuracy over images per class for each teacher epoch{where}, with the best values of the "
            "other label keys; rings mark the upper envelope, the best epoch for each number of images. "
            f"Chosen by {best[0].chosen_by}; bars are 95 % Student-t intervals."
        ),
        x_label="images per class",
        y_label="test accuracy",
        series=tuple(series),
        marked=Marked(
            "upper envelope",
            tuple(point.ipc for point in best),
            tuple(point.test_acc.value for point in best),
            tuple(line_of(point.labels) for point in best),
        ),
    )


def line_of(labels: dict[str, Any]) -> str:
    """`epoch 4`, or the kind of labels if they do not come from a teacher epoch."""
    epoch = labels.get(EPOCH)
    return str(labels.get("labels.kind") or "no teacher") if epoch is None else f"epoch {epoch}"


def _best_by_ipc(points: Sequence[ImagePoint]) -> list[ImagePoint]:
    best = []
    for ipc in dict.fromkeys(point.ipc for point in points):
        at_ipc = [point for point in points if point.ipc == ipc]
        quality = qualities(at_ipc)
        best.append(at_ipc[quality.index(max(quality))])
    return best
