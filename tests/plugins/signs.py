"""An optimizer: moves every weight by the sign of its gradient."""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer as TorchOptimizer

from raydc.spec.catalog import OPTIMIZERS, Optimizer
from raydc.spec.evaluation import Recipe


class SignSGD(TorchOptimizer):
    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                weight.sub_(group["lr"] * weight.grad.sign())


def sign_sgd(recipe: Recipe, network: nn.Module) -> SignSGD:
    return SignSGD(network.parameters(), recipe.lr)


OPTIMIZERS.add(Optimizer("sign-sgd", sign_sgd, "moves by the signs of the gradients"))
