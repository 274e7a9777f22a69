"""Where a training takes its targets from, step by step."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from raydc.augmentation.views import View
from raydc.training.losses import Targets


class TargetSource(Protocol):
    """What a student should say of each view."""

    def at(self, view: View, epoch: int, batch: int) -> Targets:
        """Targets of the images of a view, which is that of `batch` of `epoch`."""

    def to(self, device: torch.device) -> Self:
        """The same source, resident on `device`."""


@runtime_checkable
class ViewTable(Protocol):
    """A source whose targets can be made for all views at once."""

    temperature: float
    """T of its softmax."""

    def table_name(self) -> Hashable:
        """Equal for sources whose targets are equal, view by view."""

    def span(self, epoch: int, batch: int) -> tuple[int, int]:
        """First row and end of the view of `batch` of `epoch`."""

    def softened(self) -> Tensor | None:
        """Probabilities [rows, C] of all views; None if they cannot be held."""


class StaticTargets:
    """One fixed target an image, mixed as the view's images are."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets

    def at(self, view: View, epoch: int, batch: int) -> Targets:
        del epoch, batch
        return self.targets.of(view)

    def to(self, device: torch.device) -> StaticTargets:
        return StaticTargets(self.targets.to(device))
