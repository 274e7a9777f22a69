"""Logits of views: a checkpoint's logits of every image of every step, in the order of the steps.

A table is written in segments of whole steps, each in its own Arrow file, so that labelling resumes after a
kill and a longer study adds only the missing segments.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydc.labels.logits_file import not_as_made, read_logits
from raydc.spec.plan import LabelPass
from raydc.store.artifact import MANIFEST, Artifact, Store

SEGMENT_ROWS = 32768
"""Number of labels per segment; 131 MB for 1,000 classes."""
RESIDENT_BYTES = 1 << 30
"""Tables up to this size are held on the student's device."""


def segment_name(label_pass: LabelPass, start: int) -> str:
    """Name of the segment that begins at step `start`."""
    return f"{label_pass.id}-{start:09d}"


def segments(label_pass: LabelPass, store: Store, steps: int) -> tuple[list[Artifact], int]:
    """(contiguous segments in the store from step 0, the first missing step)."""
    found: list[Artifact] = []
    step = 0
    while step < steps and (artifact := store.find("logits", segment_name(label_pass, step))) is not None:
        found.append(artifact)
        stop = artifact.noted("stop")
        if not isinstance(stop, int) or stop <= step:
            # Otherwise the loop would not end.
            manifest = artifact.path(MANIFEST)
            raise not_as_made(
                artifact.folder, f"{manifest} states that labels from step {step} end at step {stop!r}"
            )
        step = stop
    return found, step


def row_of(step: int, images: int, batch_size: int) -> int:
    """First row of the labels of a step, for a set of `images` images and steps of `batch_size` images."""
    batch_size = min(batch_size, images)
    epoch, batch = divmod(step, -(-images // batch_size))
    return epoch * images + batch * batch_size


def spans(first: int, steps: int, images: int, batch_size: int) -> Iterator[tuple[int, int, int]]:
    """(first step, step after the last, rows) of the segments for the steps first..steps-1."""
    while first < steps:
        begin, stop = row_of(first, images, batch_size), first + 1
        while stop < steps and row_of(stop, images, batch_size) - begin < SEGMENT_ROWS:
            stop += 1
        yield first, stop, row_of(stop, images, batch_size) - begin
        first = stop


@dataclass(frozen=True)
class _Table:
    """The segments of one pass."""

    starts: list[int]
    """First row of each segment."""
    parts: list[NDArray[np.float32]]

    def rows(self, first: int, last: int) -> Tensor:
        """Rows first..last-1, which lie in one segment: [last - first, C] float32."""
        number = bisect_right(self.starts, first) - 1
        start = self.starts[number]
        return torch.from_numpy(self.parts[number][first - start : last - start].copy())


class ViewLogits:
    """Logits of K networks for the views of a set; `ArtifactError` if the artifacts contain anything else.

    images: number of images of the set; batch_size: images per full step; steps: distinct views of the set;
    classes: C.
    """

    def __init__(
        self, tables: Sequence[Sequence[Artifact]], images: int, batch_size: int, steps: int, classes: int
    ) -> None:
        self.images = images
        self.batch_size = min(batch_size, images)
        self.rows = row_of(steps, images, batch_size)
        """Number of distinct (view, image) pairs."""
        self._tables = [self._open(artifacts, classes) for artifacts in tables]
        self._resident: Tensor | None = None
        self.size = max((_size(artifact) for table in tables for artifact in table), default=0.0)
        """Largest absolute value of the logits."""

    def _open(self, artifacts: Sequence[Artifact], classes: int) -> _Table:
        stops = [row_of(artifact.noted("stop"), self.images, self.batch_size) for artifact in artifacts]
        starts = [0, *stops[:-1]]
        parts = [
            read_logits(artifact.folder, stop - start, classes)
            for artifact, start, stop in zip(artifacts, starts, stops, strict=True)
        ]
        return _Table(starts, parts)

    def span(self, epoch: int, batch: int) -> tuple[int, int]:
        """First row and end of the labels of the view of `batch` of `epoch`."""
        first = epoch * self.images + batch * self.batch_size
        return first, first + min(self.batch_size, self.images - batch * self.batch_size)

    def at(self, epoch: int, batch: int) -> Tensor:
        """Logits [K, B, C] float32 of the view of `batch` of `epoch`."""
        first, end = self.span(epoch, batch)
        if self._resident is not None:
            return self._resident[:, first:end]
        return torch.stack([table.rows(first, end) for table in self._tables])

    def whole(self) -> Tensor | None:
        """All logits [K, rows, C], or None if they are too large to hold in memory."""
        if self._resident is not None or not self.rows:
            return self._resident
        if sum(part.nbytes for table in self._tables for part in table.parts) > RESIDENT_BYTES:
            return None
        whole = [np.concatenate(table.parts)[: self.rows] for table in self._tables]
        return torch.from_numpy(np.stack(whole))

    def to(self, device: torch.device) -> ViewLogits:
        """This object, with its table on a GPU if it is not too large."""
        if device.type == "cpu" or not self.rows:
            return self
        if self._resident is not None and self._resident.device.type == device.type:
            return self
        whole = self.whole()
        self._resident = None if whole is None else whole.to(device)
        return self


def _size(artifact: Artifact) -> float:
    """Largest absolute value of a segment's logits: from its manifest, or read now if not recorded."""
    noted = artifact.meta.get("size")
    if isinstance(noted, int | float):
        return float(noted)
    logits = read_logits(artifact.folder)
    return float(np.maximum(logits.max(), -logits.min())) if logits.size else 0.0
