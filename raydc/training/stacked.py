"""Losses, targets and optimizers of stacked students: the formulas of a single one, for S at once.

raydc.training.losses     targets [B, C], a scalar loss      -> here [S, B, C], losses [S]
raydc.training.optimizer  parameters [...], one learning rate -> here [S, ...], S learning rates
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from raydc.spec.evaluation import Recipe
from raydc.training.losses import MSE_CE_WEIGHT, Targets, full_precision

ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class StackedTargets:
    """What S students learn of their images."""

    probabilities: Tensor
    """[S, N, C]"""
    temperature: Tensor
    """[S]"""
    classes: Tensor | None = None
    """[S, N, C], one-hot; only for mse_ce."""
    logits: Tensor | None = None
    """[S, N, C]; only for mse_ce."""

    def _parts(self) -> list[Tensor]:
        return [t for t in (self.probabilities, self.classes, self.logits) if t is not None]

    def _like(self, parts: Sequence[Tensor]) -> StackedTargets:
        return StackedTargets(parts[0], self.temperature, *parts[1:])

    def take(self, index: Tensor) -> StackedTargets:
        """The images `index` [S, B] of each student."""
        rows = torch.arange(len(index), device=index.device)[:, None]
        return self._like([part[rows, index] for part in self._parts()])

    def mixed(self, partner: Tensor, share: Tensor) -> StackedTargets:
        """Mixed as the images are: partner [S, B] positions, share [S, B] of the image itself."""
        rows = torch.arange(len(partner), device=partner.device)[:, None]
        own, other = share[..., None], 1 - share[..., None]
        return self._like([part * own + part[rows, partner] * other for part in self._parts()])

    def clone(self) -> StackedTargets:
        copies = self._like([part.clone() for part in self._parts()])
        return StackedTargets(copies.probabilities, self.temperature, copies.classes, copies.logits)

    def copy_(self, other: StackedTargets) -> None:
        """Take over the values of targets of the same shape."""
        for mine, theirs in zip(self._parts(), other._parts(), strict=True):
            mine.copy_(theirs)


def stack_targets(targets: Sequence[Targets], loss: str) -> StackedTargets:
    """The targets of S students for `loss`, stacked."""
    first = targets[0].probabilities
    probabilities = torch.stack([t.probabilities for t in targets])
    temperature = torch.tensor([t.temperature for t in targets], dtype=first.dtype, device=first.device)
    if loss != "mse_ce":
        return StackedTargets(probabilities, temperature)
    logits = [t.logits for t in targets if t.logits is not None]
    assert len(logits) == len(targets), "mse_ce needs the teacher's logits"
    classes = torch.stack([t.classes for t in targets])
    return StackedTargets(probabilities, temperature, classes, torch.stack(logits))


def losses_of(name: str, students: Tensor, targets: StackedTargets) -> Tensor:
    """The loss `name` of each student: logits [S, B, C] -> [S] (`raydc.training.losses`)."""
    students = full_precision(students)
    probabilities = targets.probabilities
    if name in ("ce", "soft_ce"):
        return _cross_entropy(students, probabilities)
    if name in ("kl", "kl_t2"):
        temperature = targets.temperature[:, None, None]
        log_student = F.log_softmax(students / temperature, dim=2)
        surprise = torch.xlogy(probabilities, probabilities) - probabilities * log_student
        loss = surprise.sum(2).mean(1)
        return loss * targets.temperature**2 if name == "kl_t2" else loss
    assert name == "mse_ce", name
    assert targets.logits is not None
    assert targets.classes is not None
    distance = (students - targets.logits).square().mean((1, 2))
    return distance + MSE_CE_WEIGHT * _cross_entropy(students, targets.classes)


def _cross_entropy(students: Tensor, probabilities: Tensor) -> Tensor:
    return -(probabilities * F.log_softmax(students, dim=2)).sum(2).mean(1)


class StackedOptimizer:
    """SGD, Adam or AdamW on stacked parameters, each student with its own rates.

    The formulas are those of torch.optim (without amsgrad and dampening). All that changes
    from step to step lies in tensors, so that a step can be captured in a CUDA graph.
    """

    def __init__(self, recipes: Sequence[Recipe], parameters: Sequence[Tensor]) -> None:
        self._recipe = recipes[0]
        self._parameters = list(parameters)
        first = parameters[0]
        rates = torch.tensor([r.lr for r in recipes], dtype=first.dtype, device=first.device)
        decays = torch.tensor([r.weight_decay for r in recipes], dtype=first.dtype, device=first.device)
        self._rates = [rates.view(-1, *(1,) * (p.ndim - 1)) for p in parameters]
        self._decays = [
            # AdamW decays matrices and kernels only (raydc.training.optimizer).
            decays.view(-1, *(1,) * (p.ndim - 1)) * (self._recipe.optimizer != "adamw" or p.ndim > 2)
            for p in parameters
        ]
        self._decaying = any(r.weight_decay for r in recipes)
        self._factor = torch.ones((), dtype=first.dtype, device=first.device)
        self._steps = torch.zeros((), dtype=first.dtype, device=first.device)
        self._betas = [torch.full_like(self._steps, beta) for beta in ADAM_BETAS]
        kinds = {"sgd": 1 if self._recipe.momentum else 0, "adam": 2, "adamw": 2}[self._recipe.optimizer]
        self._moments = [[torch.zeros_like(p) for p in parameters] for _ in range(kinds)]

    def state(self) -> list[Tensor]:
        """Everything that a step changes, beside the parameters."""
        return [self._steps, *(t for moments in self._moments for t in moments)]

    def set_factor(self, factor: float) -> None:
        """Part of the peak learning rates in the next step."""
        self._factor.fill_(factor)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Update the parameters in place; gradients have their shapes."""
        self._steps += 1
        if self._recipe.optimizer == "sgd":
            self._sgd(list(gradients))
        else:
            self._adam(list(gradients))

    def _scaled(self) -> list[Tensor]:
        return [rate * self._factor for rate in self._rates]

    def _decayed(self, gradients: list[Tensor]) -> list[Tensor]:
        if not self._decaying:
            return gradients
        return [g + p * decay for g, p, decay in zip(gradients, self._parameters, self._decays, strict=True)]

    def _sgd(self, gradients: list[Tensor]) -> None:
        updates = self._decayed(gradients)
        if self._moments:
            torch._foreach_mul_(self._moments[0], self._recipe.momentum)
            torch._foreach_add_(self._moments[0], updates)
            if self._recipe.nesterov:
                looked = torch._foreach_add(updates, self._moments[0], alpha=self._recipe.momentum)
                updates = list(looked)
            else:
                updates = self._moments[0]
        self._subtract(updates)

    def _adam(self, gradients: list[Tensor]) -> None:
        first, second = self._moments
        if self._recipe.optimizer == "adam":
            gradients = self._decayed(gradients)
        elif self._decaying:
            for p, rate, decay in zip(self._parameters, self._scaled(), self._decays, strict=True):
                p.mul_(1 - rate * decay)
        torch._foreach_lerp_(first, gradients, 1 - ADAM_BETAS[0])
        torch._foreach_mul_(second, ADAM_BETAS[1])
        torch._foreach_addcmul_(second, gradients, gradients, 1 - ADAM_BETAS[1])
        bias = [1 - beta**self._steps for beta in self._betas]
        self._subtract(
            [
                (m / bias[0]) / ((v / bias[1]).sqrt() + ADAM_EPSILON)
                for m, v in zip(first, second, strict=True)
            ]
        )

    def _subtract(self, updates: Sequence[Tensor]) -> None:
        """p -= rate * update, each student by its own rate."""
        for p, update, rate in zip(self._parameters, updates, self._scaled(), strict=True):
            p.sub_(rate * update)
