"""Kinds of labels: from a compressed set and its logits to targets and their stored size."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from raydc.augmentation.views import View
from raydc.errors import EvaluationError
from raydc.labels import codecs, transforms
from raydc.labels.fkd import METADATA_BYTES
from raydc.labels.replayed import Replayed
from raydc.labels.views import ViewLogits
from raydc.training.losses import Targets
from raydc.training.targets import StaticTargets, TargetSource


@dataclass(frozen=True)
class LabelInputs:
    """What labels are made of."""

    labels: Tensor
    """[N] int64, class of each image."""
    classes: int
    """Number of classes."""
    logits: Tensor | None = None
    """[K, N, C] float32, logits of the K networks that label, where a teacher labels images."""
    views: ViewLogits | None = None
    """Logits of every view, where a teacher labels views."""
    brought: Tensor | None = None
    """[N, C] float32, probabilities that the compressed set or a file brings or that were learnt, if any."""
    replayed: Replayed | None = None
    """Views that others labelled."""
    replayed_rows: int = 0
    """(View, image) pairs of `replayed` that the student meets."""


@dataclass(frozen=True)
class LabelOutputs:
    """Targets of a compressed set and what they take to store."""

    source: TargetSource
    labels_bytes: int


@dataclass(frozen=True)
class Softening:
    """From the logits of K networks to the probabilities that a student learns.

    mean of logits -> codec -> divide by T, softmax -> drop_class -> swap_rank -> top_k -> renormalise
    """

    temperature: float
    codec: str = "fp16"
    store_top_k: int | None = None
    drop_class: int | None = None
    swap_rank: int | None = None
    top_k: int | None = None
    renormalise: bool = False

    def __call__(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(probabilities [N, C], logits [N, C] as stored) of logits [K, N, C] and classes [N].

        The logits must have passed `codecs.check`.
        """
        stored = codecs.round_trip(transforms.ensemble(logits), self.codec, self.store_top_k)
        probabilities = transforms.soften(stored, self.temperature)
        if self.drop_class is not None:
            probabilities = transforms.drop_class(probabilities, labels, self.drop_class)
        if self.swap_rank is not None:
            probabilities = transforms.swap_rank(probabilities, self.swap_rank)
        if self.top_k is not None:
            probabilities = transforms.top_k(probabilities, self.top_k)
        if self.renormalise:
            probabilities = transforms.renormalise(probabilities)
        return probabilities, transforms.fill_missing(stored)

    def record_bytes(self, classes: int) -> int:
        """Bytes of one label; after `top_k` it is stored whole where that is smaller."""
        if self.store_top_k is not None:
            keep = min(self.store_top_k, self.top_k or classes)
            return codecs.record_bytes(self.codec, classes, keep)
        whole = codecs.record_bytes(self.codec, classes)
        return min(whole, codecs.record_bytes(self.codec, classes, self.top_k))


def hard(inputs: LabelInputs) -> LabelOutputs:
    """The class of each image; 1 byte up to 256 classes, 2 beyond."""
    size = len(inputs.labels) * codecs.hard_bytes(inputs.classes)
    return LabelOutputs(StaticTargets(Targets.hard(inputs.labels, inputs.classes)), size)


def smooth(inputs: LabelInputs, *, smoothing: float) -> LabelOutputs:
    """(1 - s) onehot + s / C; stored as a class number, since the rest is known."""
    one_hot = Targets.hard(inputs.labels, inputs.classes).classes
    probabilities = one_hot * (1 - smoothing) + smoothing / inputs.classes
    size = len(inputs.labels) * codecs.hard_bytes(inputs.classes)
    return LabelOutputs(StaticTargets(Targets(probabilities, one_hot)), size)


def stored(inputs: LabelInputs) -> LabelOutputs:
    """The set's own probabilities, a file's, or learnt ones, stored as fp16; rows need not sum to one."""
    if inputs.brought is None:
        raise EvaluationError("the compressed set brings no soft labels; choose another labels.kind")
    probabilities = inputs.brought.half().float()
    one_hot = Targets.hard(inputs.labels, inputs.classes).classes
    size = len(inputs.labels) * codecs.record_bytes("fp16", inputs.classes)
    return LabelOutputs(StaticTargets(Targets(probabilities, one_hot)), size)


def soft(inputs: LabelInputs, **keys: Any) -> LabelOutputs:
    """One fixed vector an image: softmax of the mean logits over T, then transforms; keys: `Softening`."""
    assert inputs.logits is not None, "soft labels need logits"
    softening = Softening(**keys)
    codecs.check(softening.codec, codecs.size_of(transforms.ensemble(inputs.logits)))
    probabilities, logits = softening(inputs.logits, inputs.labels)
    one_hot = Targets.hard(inputs.labels, inputs.classes).classes
    size = len(inputs.labels) * softening.record_bytes(inputs.classes)
    return LabelOutputs(StaticTargets(Targets(probabilities, one_hot, logits, softening.temperature)), size)


def per_view(inputs: LabelInputs, **keys: Any) -> LabelOutputs:
    """A vector for every view of every image (FKD, RDED, arXiv 2502.06434).

    A view's geometry is named by its seed and costs nothing; keys are those of `Softening`.
    """
    assert inputs.views is not None, "per-view labels need the logits of views"
    softening = Softening(**keys)
    codecs.check(softening.codec, inputs.views.size)
    one_hot = Targets.hard(inputs.labels, inputs.classes).classes
    size = inputs.views.rows * softening.record_bytes(inputs.classes)
    return LabelOutputs(ViewTargets(inputs.views, inputs.labels, one_hot, softening), size)


def fkd(inputs: LabelInputs, **keys: Any) -> LabelOutputs:
    """What others' teacher said of others' views, by keys of `Softening`; FKD's record of a view counts."""
    assert inputs.replayed is not None, "FKD labels need their folder"
    softening = Softening(**keys)
    one_hot = Targets.hard(inputs.labels, inputs.classes).classes
    size = inputs.replayed_rows * (softening.record_bytes(inputs.classes) + METADATA_BYTES)
    return LabelOutputs(TeacherViewTargets(inputs.replayed, inputs.labels, one_hot, softening), size)


class LabelledViews(Protocol):
    """Logits of views by their epoch and batch."""

    def at(self, epoch: int, batch: int) -> Tensor:
        """Logits [K, B, C] float32 of the view of `batch` of `epoch`."""


class TeacherViewTargets:
    """What a teacher said of each view."""

    def __init__(self, said: LabelledViews, labels: Tensor, one_hot: Tensor, softening: Softening) -> None:
        self.said = said
        self.labels = labels
        self.one_hot = one_hot
        self.softening = softening

    def at(self, view: View, epoch: int, batch: int) -> Targets:
        labels = self.labels if view.index is None else self.labels[view.index]
        logits = self.said.at(epoch, batch).to(labels.device)
        probabilities, stored = self.softening(logits, labels)
        return Targets(probabilities, view.mix(self.one_hot), stored, self.softening.temperature)

    def to(self, device: torch.device) -> TeacherViewTargets:
        return TeacherViewTargets(self.said, self.labels.to(device), self.one_hot.to(device), self.softening)


class ViewTargets(TeacherViewTargets):
    """What a teacher said of each view, in a table of all views."""

    def __init__(self, views: ViewLogits, labels: Tensor, one_hot: Tensor, softening: Softening) -> None:
        super().__init__(views, labels, one_hot, softening)
        self.views = views

    @property
    def temperature(self) -> float:
        return self.softening.temperature

    def table_name(self) -> Hashable:
        """Equal for sources whose targets are equal, view by view."""
        return id(self.views), self.softening

    def span(self, epoch: int, batch: int) -> tuple[int, int]:
        """First row and end of the view of `batch` of `epoch`."""
        return self.views.span(epoch, batch)

    def softened(self) -> Tensor | None:
        """Probabilities [rows, C] of all views; None if they are too many or depend on the images."""
        whole = None if self.softening.drop_class is not None else self.views.whole()
        if whole is None:
            return None
        return self.softening(whole, self.labels[:0])[0]

    def to(self, device: torch.device) -> ViewTargets:
        return ViewTargets(
            self.views.to(device), self.labels.to(device), self.one_hot.to(device), self.softening
        )
