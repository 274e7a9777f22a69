"""Where a training takes its targets from, step by step."""

from __future__ import annotations

from typing import Protocol, Self

import torch

from raydc.augmentation.views import Step, View
from raydc.training.losses import Targets


class TargetSource(Protocol):
    """What a student should say of each view."""

    def at(self, view: View, step: Step) -> Targets:
        """Targets of the view's images."""

    def to(self, device: torch.device) -> Self:
        """The same source, resident on `device`."""


class StaticTargets:
    """One fixed target an image, mixed as the view's images are."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets

    def at(self, view: View, step: Step) -> Targets:
        del step
        return self.targets.of(view)

    def to(self, device: torch.device) -> StaticTargets:
        return StaticTargets(self.targets.to(device))
