"""Losses of students. The temperature T always divides logits: softmax(logits / T).

| name    | formula (mean over the batch)                               | source |
| ------- | ----------------------------------------------------------- | ------ |
| ce      | -sum y log softmax(z)                                        | hard labels |
| soft_ce | -sum p_T log softmax(z); the student at T = 1                | arXiv 2406.10485 |
| kl      | sum p_T (log p_T - log softmax(z / T)), no T^2               | FKD, RDED, arXiv 2502.06434 |
| kl_t2   | T^2 times kl                                                 | Hinton et al. 2015 |
| mse_ce  | mean (z - z_teacher)^2 + 0.1 ce with the class              | G-VBSM, arXiv 2311.17950 |

Each loss has a stacked form for packs, for S students at once: logits [S, B, C] -> losses [S].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from raydc.augmentation.views import View
from raydc.spec import catalog
from raydc.spec.evaluation import Recipe
from raydc.spec.registry import code_at

MSE_CE_WEIGHT = 0.1
"""Weight of the cross-entropy in mse_ce (G-VBSM on ImageNet-1K and Tiny-ImageNet)."""


@dataclass(frozen=True)
class Targets:
    """Targets of a student; rows are the images of a set, or of a view."""

    probabilities: Tensor
    """[N, C]; rows sum to one unless a transform removed mass."""
    classes: Tensor
    """[N, C], one-hot classes."""
    logits: Tensor | None = None
    """[N, C], the teacher's logits, if there are any."""
    temperature: float | Tensor = 1.0
    """Temperature of the softmax of `probabilities`; a scalar tensor in a pack."""

    @staticmethod
    def hard(labels: Tensor, classes: int) -> Targets:
        """One-hot targets of labels [N] int64."""
        one_hot = F.one_hot(labels, classes).float()
        return Targets(one_hot, one_hot)

    def of(self, view: View) -> Targets:
        """Targets of a view's images, mixed like the images."""
        return replace(
            self,
            probabilities=view.mix(self.probabilities),
            classes=view.mix(self.classes),
            logits=None if self.logits is None else view.mix(self.logits),
        )

    def to(self, device: torch.device) -> Targets:
        return replace(
            self,
            probabilities=self.probabilities.to(device),
            classes=self.classes.to(device),
            logits=None if self.logits is None else self.logits.to(device),
        )


@dataclass(frozen=True)
class StackedTargets:
    """Targets of S students."""

    probabilities: Tensor
    """[S, N, C]; rows sum to one unless a transform removed mass."""
    temperature: Tensor
    """[S], temperature of the softmax of `probabilities`."""
    classes: Tensor | None = None
    """[S, N, C], one-hot; only for losses that read it."""
    logits: Tensor | None = None
    """[S, N, C], the teachers' logits; only for losses that read it."""

    def _each(self, change: Callable[[Tensor], Tensor]) -> StackedTargets:
        return StackedTargets(
            change(self.probabilities),
            self.temperature,
            None if self.classes is None else change(self.classes),
            None if self.logits is None else change(self.logits),
        )

    def _parts(self) -> list[Tensor]:
        return [t for t in (self.probabilities, self.classes, self.logits) if t is not None]

    def take(self, index: Tensor) -> StackedTargets:
        """Targets of the images `index` [S, B] of each student."""
        rows = torch.arange(len(index), device=index.device)[:, None]
        return self._each(lambda part: part[rows, index])

    def mixed(self, partner: Tensor, share: Tensor) -> StackedTargets:
        """Targets mixed like the images: partner [S, B] positions, share [S, B] of the image itself."""
        rows = torch.arange(len(partner), device=partner.device)[:, None]
        own, other = share[..., None], 1 - share[..., None]
        return self._each(lambda part: part * own + part[rows, partner] * other)

    def clone(self) -> StackedTargets:
        return self._each(Tensor.clone)

    def copy_(self, other: StackedTargets) -> None:
        """Copy the values of targets of the same shape."""
        for target, source in zip(self._parts(), other._parts(), strict=True):
            target.copy_(source)

    def student(self, number: int) -> Targets:
        """The targets of one student."""
        assert self.classes is not None
        logits = None if self.logits is None else self.logits[number]
        return Targets(self.probabilities[number], self.classes[number], logits, self.temperature[number])


def stack_targets(targets: Sequence[Targets], loss: str) -> StackedTargets:
    """The targets of S students for `loss`, stacked."""
    reads = catalog.LOSSES[loss].reads
    first = targets[0].probabilities
    logits = [t.logits for t in targets if t.logits is not None]
    assert "logits" not in reads or len(logits) == len(targets), f"{loss} needs the teacher's logits"
    return StackedTargets(
        torch.stack([t.probabilities for t in targets]),
        torch.tensor([t.temperature for t in targets], dtype=first.dtype, device=first.device),
        torch.stack([t.classes for t in targets]) if "classes" in reads else None,
        torch.stack(logits) if "logits" in reads else None,
    )


def full_precision(logits: Tensor) -> Tensor:
    """Logits in at least float32, so that losses are not summed in bf16."""
    return logits if logits.dtype == torch.float64 else logits.float()


def loss_function(recipe: Recipe) -> Callable[[Tensor, Targets], Tensor]:
    """The loss of a recipe: student logits [B, C] and the targets of the same batch -> a scalar."""
    entry = catalog.LOSSES[recipe.loss]
    return partial(entry.load(), **recipe.arguments(entry.keys))


def stacked_loss_function(recipe: Recipe) -> Callable[[Tensor, StackedTargets], Tensor]:
    """The loss of a recipe for packs: logits [S, B, C] and the targets of the same batches -> [S]."""
    entry = catalog.LOSSES[recipe.loss]
    keys = recipe.arguments(entry.keys)
    return (
        partial(code_at(entry.stacked), **keys) if entry.stacked else partial(_one_by_one, entry.load(), keys)
    )


def _one_by_one(
    loss: Callable[..., Tensor], keys: Mapping[str, Any], students: Tensor, targets: StackedTargets
) -> Tensor:
    """The losses of S students, by the loss function of a single student."""
    return torch.stack([loss(logits, targets.student(s), **keys) for s, logits in enumerate(students)])


# --- the losses, each with its stacked form --------------------------------------------------------


def cross_entropy(student: Tensor, targets: Targets) -> Tensor:
    """ce and soft_ce."""
    return F.cross_entropy(student, targets.probabilities)


def stacked_cross_entropy(students: Tensor, targets: StackedTargets) -> Tensor:
    """ce and soft_ce."""
    return _entropies(students, targets.probabilities)


def _entropies(students: Tensor, probabilities: Tensor) -> Tensor:
    return -(probabilities * F.log_softmax(students, dim=2)).sum(2).mean(1)


def kl(student: Tensor, targets: Targets) -> Tensor:
    """kl."""
    log_student = F.log_softmax(student / targets.temperature, dim=1)
    return F.kl_div(log_student, targets.probabilities, reduction="batchmean")


def stacked_kl(students: Tensor, targets: StackedTargets) -> Tensor:
    """kl."""
    probabilities = targets.probabilities
    log_student = F.log_softmax(students / targets.temperature[:, None, None], dim=2)
    divergence = torch.xlogy(probabilities, probabilities) - probabilities * log_student
    return divergence.sum(2).mean(1)


def kl_t2(student: Tensor, targets: Targets) -> Tensor:
    """kl_t2."""
    return kl(student, targets) * targets.temperature**2


def stacked_kl_t2(students: Tensor, targets: StackedTargets) -> Tensor:
    """kl_t2."""
    return stacked_kl(students, targets) * targets.temperature**2


def mse_ce(student: Tensor, targets: Targets) -> Tensor:
    """mse_ce."""
    assert targets.logits is not None, "mse_ce needs the teacher's logits"
    return F.mse_loss(student, targets.logits) + MSE_CE_WEIGHT * F.cross_entropy(student, targets.classes)


def stacked_mse_ce(students: Tensor, targets: StackedTargets) -> Tensor:
    """mse_ce."""
    assert targets.logits is not None
    assert targets.classes is not None
    distance = (students - targets.logits).square().mean((1, 2))
    return distance + MSE_CE_WEIGHT * _entropies(students, targets.classes)
