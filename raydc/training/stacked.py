"""Optimizers of packs: the formulas of torch.optim for S students at once, each with its own rates.

raydc.training.optimizer: parameters [...], one learning rate; here: parameters [S, ...], S learning rates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from raydc.spec import catalog
from raydc.spec.evaluation import Recipe
from raydc.spec.registry import code_at

ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8


def stacked_optimizer(recipes: Sequence[Recipe], parameters: Sequence[Tensor]) -> StackedOptimizer:
    """The optimizer of a pack whose students have these recipes, which differ in their rates only."""
    made: StackedOptimizer = code_at(catalog.OPTIMIZERS[recipes[0].optimizer].stacked)(recipes, parameters)
    return made


class StackedOptimizer(ABC):
    """An optimizer of stacked parameters, each student with its own rates.

    The formulas are those of torch.optim (without amsgrad and dampening). All state that changes between
    steps is in tensors, so that a step can be captured in a CUDA graph.
    """

    moments = 0
    """Number of moments that the optimizer keeps for each parameter."""
    decays_vectors = True
    """Whether weight decay also applies to biases and scales, not only to matrices and kernels."""

    def __init__(self, recipes: Sequence[Recipe], parameters: Sequence[Tensor]) -> None:
        """parameters: [S, ...] each; recipes: those of the S students, which differ in their rates only."""
        self._recipe = recipes[0]
        self._parameters = list(parameters)
        first = parameters[0]
        rates = torch.tensor([r.lr for r in recipes], dtype=first.dtype, device=first.device)
        decays = torch.tensor([r.weight_decay for r in recipes], dtype=first.dtype, device=first.device)
        self._rates = [rates.view(-1, *(1,) * (p.ndim - 1)) for p in parameters]
        self._decays = [
            decays.view(-1, *(1,) * (p.ndim - 1)) * (self.decays_vectors or p.ndim > 2) for p in parameters
        ]
        self._decaying = any(r.weight_decay for r in recipes)
        self._factor = torch.ones((), dtype=first.dtype, device=first.device)
        self._steps = torch.zeros((), dtype=first.dtype, device=first.device)
        self._moments = [[torch.zeros_like(p) for p in parameters] for _ in range(self.moments)]

    def state(self) -> list[Tensor]:
        """All tensors that a step changes, except the parameters."""
        return [self._steps, *(t for moments in self._moments for t in moments)]

    def set_factor(self, factor: float) -> None:
        """Set the fraction of the peak learning rates in the next step."""
        self._factor.fill_(factor)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Update the parameters in place; gradients have the shapes of the parameters."""
        self._steps += 1
        self._update(list(gradients))

    @abstractmethod
    def _update(self, gradients: list[Tensor]) -> None:
        """Update the parameters; `_steps` already includes this step."""

    def _scaled(self) -> list[Tensor]:
        return [rate * self._factor for rate in self._rates]

    def _decayed(self, gradients: list[Tensor]) -> list[Tensor]:
        if not self._decaying:
            return gradients
        return [g + p * decay for g, p, decay in zip(gradients, self._parameters, self._decays, strict=True)]

    def _subtract(self, updates: Sequence[Tensor]) -> None:
        """p -= rate * update, with each student's rate."""
        for p, update, rate in zip(self._parameters, updates, self._scaled(), strict=True):
            p.sub_(rate * update)


class StackedSGD(StackedOptimizer):
    """SGD with momentum, optionally Nesterov momentum."""

    def __init__(self, recipes: Sequence[Recipe], parameters: Sequence[Tensor]) -> None:
        self.moments = 1 if recipes[0].momentum else 0
        super().__init__(recipes, parameters)

    def _update(self, gradients: list[Tensor]) -> None:
        updates = self._decayed(gradients)
        if self._moments:
            torch._foreach_mul_(self._moments[0], self._recipe.momentum)
            torch._foreach_add_(self._moments[0], updates)
            if self._recipe.nesterov:
                nesterov = torch._foreach_add(updates, self._moments[0], alpha=self._recipe.momentum)
                updates = list(nesterov)
            else:
                updates = self._moments[0]
        self._subtract(updates)


class StackedAdam(StackedOptimizer):
    """Adam, with weight decay in the gradient."""

    moments = 2

    def __init__(self, recipes: Sequence[Recipe], parameters: Sequence[Tensor]) -> None:
        super().__init__(recipes, parameters)
        self._betas = [torch.full_like(self._steps, beta) for beta in ADAM_BETAS]

    def _update(self, gradients: list[Tensor]) -> None:
        self._move(self._decayed(gradients))

    def _move(self, gradients: list[Tensor]) -> None:
        first, second = self._moments
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


class StackedAdamW(StackedAdam):
    """AdamW; weight decay applies to matrices and kernels only (raydc.training.optimizer)."""

    decays_vectors = False

    def _update(self, gradients: list[Tensor]) -> None:
        if self._decaying:
            for p, rate, decay in zip(self._parameters, self._scaled(), self._decays, strict=True):
                p.mul_(1 - rate * decay)
        self._move(gradients)
