"""Sources of the targets of a training, for each step."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from raydc.augmentation.views import View
from raydc.training.losses import Targets


class TargetSource(Protocol):
    """The targets of each view."""

    def at(self, view: View, epoch: int, batch: int) -> Targets:
        """Targets of the images of a view, the view of `batch` of `epoch`."""

    def to(self, device: torch.device) -> Self:
        """The same source, resident on `device`."""


@runtime_checkable
class ViewTable(Protocol):
    """A source whose targets can be computed for all views at once."""

    temperature: float
    """Temperature of the softmax."""

    def table_name(self) -> Hashable:
        """A key that is equal for sources with equal targets."""

    def span(self, epoch: int, batch: int) -> tuple[int, int]:
        """(first row, last row + 1) of the view of `batch` of `epoch`."""

    def softened(self) -> Tensor | None:
        """Probabilities [rows, C] of all views; None if they do not fit into memory."""


class StaticTargets:
    """One fixed target per image, mixed like the view's images."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets

    def at(self, view: View, epoch: int, batch: int) -> Targets:
        del epoch, batch
        return self.targets.of(view)

    def to(self, device: torch.device) -> StaticTargets:
        return StaticTargets(self.targets.to(device))
