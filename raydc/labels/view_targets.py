"""Targets of views from the logits of a teacher, made for each view when it is used or for all at once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import torch
from torch import Tensor

from raydc.augmentation.views import View
from raydc.labels.softening import Softening
from raydc.labels.views import ViewLogits
from raydc.training.losses import Targets


class LabelledViews(Protocol):
    """Logits of views by their epoch and batch."""

    def at(self, epoch: int, batch: int) -> Tensor:
        """Logits [K, B, C] float32 of the view of `batch` of `epoch`."""


class TeacherViewTargets:
    """Targets of each view, made from its logits when a student uses it."""

    def __init__(
        self, labelled: LabelledViews, labels: Tensor, one_hot: Tensor, softening: Softening
    ) -> None:
        self.labelled = labelled
        self.labels = labels
        self.one_hot = one_hot
        self.softening = softening

    def at(self, view: View, epoch: int, batch: int) -> Targets:
        labels = self.labels if view.index is None else self.labels[view.index]
        logits = self.labelled.at(epoch, batch).to(labels.device)
        probabilities, stored = self.softening(logits, labels)
        return Targets(probabilities, view.mix(self.one_hot), stored, self.softening.temperature)

    def to(self, device: torch.device) -> TeacherViewTargets:
        return TeacherViewTargets(
            self.labelled, self.labels.to(device), self.one_hot.to(device), self.softening
        )


class ViewTargets(TeacherViewTargets):
    """Targets of views whose logits are in one table, so that all can be made at once."""

    def __init__(self, views: ViewLogits, labels: Tensor, one_hot: Tensor, softening: Softening) -> None:
        super().__init__(views, labels, one_hot, softening)
        self.views = views

    @property
    def temperature(self) -> float:
        return self.softening.temperature

    def table_name(self) -> Hashable:
        """A key that is equal for sources with equal targets for every view."""
        return id(self.views), self.softening

    def span(self, epoch: int, batch: int) -> tuple[int, int]:
        """First row and end of the view of `batch` of `epoch`."""
        return self.views.span(epoch, batch)

    def softened(self) -> Tensor | None:
        """Probabilities [rows, C] of all views; None if they are too large or depend on the images."""
        whole = None if self.softening.drop_class is not None else self.views.whole()
        if whole is None:
            return None
        return self.softening(whole, self.labels[:0])[0]

    def to(self, device: torch.device) -> ViewTargets:
        return ViewTargets(
            self.views.to(device), self.labels.to(device), self.one_hot.to(device), self.softening
        )
