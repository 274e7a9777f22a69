"""The Pareto frontier over stored bytes: what accuracy a byte buys, images and labels together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydc.analysis.curves import Mean, finished, group, label_of, mean_of, varying_keys
from raydc.result import Row


@dataclass(frozen=True)
class StoredPoint:
    """One configuration: its size and its accuracy."""

    key: dict[str, Any]
    """The keys that tell it from the others."""
    images_bytes: float
    """Mean over replicates."""
    labels_bytes: float
    test_acc: Mean
    val_acc: float | None
    """Mean over replicates; membership is decided by it where there is one."""
    on_frontier: bool

    @property
    def total_bytes(self) -> float:
        return self.images_bytes + self.labels_bytes

    @property
    def label(self) -> str:
        return label_of(self.key)


def frontier(rows: Sequence[Row], keys: Sequence[str] | None = None) -> list[StoredPoint]:
    """All configurations by rising size, those on the frontier marked.

    A configuration is on the frontier if no other is at least as small and at least as accurate on
    the validation part (on the test split only where no validation accuracy is recorded).
    """
    rows = [r for r in finished(rows) if r.get("images_bytes") is not None]
    keys = list(keys) if keys is not None else varying_keys(rows)
    points = []
    for values, members in group(rows, keys).items():
        val = [r["val_acc"] for r in members if r.get("val_acc") is not None]
        points.append(
            StoredPoint(
                key=dict(zip(keys, values, strict=True)),
                images_bytes=float(np.mean([r["images_bytes"] for r in members])),
                labels_bytes=float(np.mean([r["labels_bytes"] for r in members])),
                test_acc=mean_of([r["test_acc"] for r in members]),
                val_acc=float(np.mean(val)) if len(val) == len(members) else None,
                on_frontier=False,
            )
        )
    by_val = all(point.val_acc is not None for point in points)

    def quality(point: StoredPoint) -> float:
        return float(point.val_acc if by_val and point.val_acc is not None else point.test_acc.value)

    points.sort(key=lambda p: (p.total_bytes, -quality(p)))
    best = -np.inf
    marked = []
    for point in points:
        better = quality(point) > best
        best = max(best, quality(point))
        marked.append(StoredPoint(**{**vars(point), "on_frontier": better}))
    return marked
