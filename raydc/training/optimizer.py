"""Optimizers and numeric precision of a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from raydc.spec import catalog
from raydc.spec.evaluation import Recipe


def make_optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    """The recipe's optimizer for a network's parameters."""
    entry = catalog.OPTIMIZERS[recipe.optimizer]
    made: Optimizer = entry.load()(recipe, network, **recipe.arguments(entry.keys))
    return made


def packable(recipe: Recipe) -> bool:
    """Whether the recipe's optimizer has a stacked form for packs."""
    return bool(catalog.OPTIMIZERS[recipe.optimizer].stacked)


def sgd(recipe: Recipe, network: nn.Module, *, momentum: float, nesterov: bool) -> Optimizer:
    """Stochastic gradient descent; `nesterov` has no effect without momentum."""
    return SGD(
        _trainable(network),
        lr=recipe.lr,
        momentum=momentum,
        weight_decay=recipe.weight_decay,
        nesterov=nesterov and momentum > 0,
        fused=True,
    )


def adam(recipe: Recipe, network: nn.Module) -> Optimizer:
    """Adam, with weight decay in the gradient."""
    return Adam(_trainable(network), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def adamw(recipe: Recipe, network: nn.Module) -> Optimizer:
    """AdamW; weight decay applies to matrices and convolution kernels only, as in the papers' code."""
    parameters = _trainable(network)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=recipe.lr, fused=True)


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]


@contextmanager
def tensor_cores(precision: str) -> Iterator[None]:
    """Allow TF32 in matrix products and convolutions if the precision is tf32, disable it otherwise."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bf16 autocast if the precision is bf16, otherwise disabled."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
