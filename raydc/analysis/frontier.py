"""Pareto frontiers of accuracy over stored bytes (images and labels together) and over images.

Over images the frontier is the upper envelope of arXiv 2406.10485: for each number of images, the best
accuracy over all teacher epochs and other choices of labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raydc.analysis.curves import finished, group, is_label_key, label_of, varying_keys
from raydc.analysis.intervals import Mean, mean_of
from raydc.spec.result import Row

OVER = ("bytes", "images")
"""Quantities that a frontier can be over."""
EPOCH = "labels.teacher_epoch"


@dataclass(frozen=True)
class StoredPoint:
    """One configuration: its size and its accuracy."""

    key: dict[str, Any]
    """The keys that distinguish it from the others."""
    images_bytes: float
    """Mean over replicates."""
    labels_bytes: float
    test_acc: Mean
    val_acc: float | None
    """Mean over replicates, which decides membership; None if a replicate has none."""
    on_frontier: bool

    @property
    def total_bytes(self) -> float:
        return self.images_bytes + self.labels_bytes

    @property
    def label(self) -> str:
        return label_of(self.key)


def frontier(rows: Sequence[Row], keys: Sequence[str] | None = None) -> list[StoredPoint]:
    """All configurations by ascending size, with those on the frontier marked.

    A configuration is on the frontier if no other is at least as small and at least as accurate on
    the validation part (on the test split only if no validation accuracy is recorded).
    """
    rows = [r for r in finished(rows) if r.get("images_bytes") is not None]
    keys = list(keys) if keys is not None else varying_keys(rows)
    points = []
    for values, members in group(rows, keys).items():
        points.append(
            StoredPoint(
                key=dict(zip(keys, values, strict=True)),
                images_bytes=float(np.mean([r["images_bytes"] for r in members])),
                labels_bytes=float(np.mean([r["labels_bytes"] for r in members])),
                test_acc=mean_of([r["test_acc"] for r in members]),
                val_acc=_mean_val(members),
                on_frontier=False,
            )
        )
    quality = qualities(points)
    order = sorted(range(len(points)), key=lambda i: (points[i].total_bytes, -quality[i]))
    best = -np.inf
    marked = []
    for i in order:
        marked.append(replace(points[i], on_frontier=quality[i] > best))
        best = max(best, quality[i])
    return marked


def qualities(points: Sequence[StoredPoint] | Sequence[ImagePoint]) -> list[float]:
    """The deciding accuracies: validation accuracy, or test accuracy if any point lacks it."""
    val = [point.val_acc for point in points if point.val_acc is not None]
    return val if len(val) == len(points) else [point.test_acc.value for point in points]


@dataclass(frozen=True)
class ImagePoint:
    """One choice of labels at one number of images."""

    group: dict[str, Any]
    """The keys, such as the method, each of whose values has a frontier of its own."""
    ipc: float
    labels: dict[str, Any]
    """The varying label keys, the teacher's epoch first; None for a key that does not apply."""
    test_acc: Mean
    val_acc: float | None
    """Mean over replicates; None if a replicate has none."""
    chosen_by: str
    """val_acc, or test_acc if a row of its group has no validation accuracy."""
    best: bool
    """Whether these are the best labels for this number of images."""
    on_frontier: bool
    """Whether it is the best, and fewer images do not do as well."""


def image_frontier(rows: Sequence[Row]) -> list[ImagePoint]:
    """All choices of labels by group and ascending IPC, with the best at each IPC and the frontier marked.

    Both are decided by validation accuracy (by test accuracy only if none is recorded).
    """
    rows = finished(rows)
    varied = varying_keys(rows, ["images.ipc"])
    shared = [key for key in varied if not is_label_key(key)]
    chosen = [key for key in varied if is_label_key(key)]
    chosen.sort(key=lambda key: key != EPOCH)
    found: list[ImagePoint] = []
    for values, members in group(rows, shared).items():
        reached = -np.inf
        by = "val_acc" if all(r.get("val_acc") is not None for r in members) else "test_acc"
        for (ipc,), at_ipc in group(members, ["images.ipc"]).items():
            options = [
                _image_point(
                    dict(zip(shared, values, strict=True)),
                    float(ipc),
                    dict(zip(chosen, labels, strict=True)),
                    part,
                )
                for labels, part in group(at_ipc, chosen).items()
            ]
            quality = [
                o.val_acc if by == "val_acc" and o.val_acc is not None else o.test_acc.value for o in options
            ]
            first = int(np.argmax(quality))
            found += [
                replace(
                    option, chosen_by=by, best=i == first, on_frontier=i == first and quality[i] > reached
                )
                for i, option in enumerate(options)
            ]
            reached = max(reached, quality[first])
    return found


def _image_point(key: dict[str, Any], ipc: float, labels: dict[str, Any], rows: Sequence[Row]) -> ImagePoint:
    return ImagePoint(
        key,
        ipc,
        labels,
        mean_of([r["test_acc"] for r in rows]),
        _mean_val(rows),
        "",
        best=False,
        on_frontier=False,
    )


def _mean_val(rows: Sequence[Row]) -> float | None:
    val = [r["val_acc"] for r in rows if r.get("val_acc") is not None]
    return float(np.mean(val)) if len(val) == len(rows) else None
