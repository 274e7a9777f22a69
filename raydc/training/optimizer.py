"""Optimizers, learning-rate schedules and numeric precision of a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from raydc.spec.evaluation import Recipe

WARMUP_START = 0.01
"""Part of the peak learning rate at which a warm-up begins."""


def rate_factor(recipe: Recipe, step: int, images: int) -> float:
    """Part of the peak learning rate in step `step` (from 0) of a training on `images` images.

    Linear from a hundredth through the warm-up, then the schedule over what remains (VILA-Lab/SRe2L).
    """
    warmup = recipe.warmup_epochs * recipe.steps_per_epoch(images)
    if step < warmup:
        return WARMUP_START + (1 - WARMUP_START) * step / warmup
    return schedule_factor(recipe.schedule, step - warmup, recipe.total_steps(images) - warmup)


def schedule_factor(schedule: str, step: int, total: int) -> float:
    """Part of the peak learning rate in step `step` (from 0) of `total`.

    constant; cosine: to 0; half-cosine: to one half (RDED); quarters: x 0.3 after each quarter
    (arXiv 2406.10485); halfway: x 0.1 after the half (MTT, DM); thirds: x 0.1 after each third.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / total))
    if schedule == "half-cosine":
        return 0.5 * (1 + math.cos(math.pi * step / (2 * total)))
    if schedule == "quarters":
        return float(0.3 ** min(3, step // max(1, total // 4)))
    if schedule == "thirds":
        return float(0.1 ** min(2, step // max(1, total // 3)))
    assert schedule == "halfway", schedule
    return 0.1 if step >= total // 2 + 1 else 1.0


def make_optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    """The recipe's optimizer; AdamW decays matrices and kernels only, as its protocols do."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        return SGD(
            parameters,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            fused=True,
        )
    if recipe.optimizer == "adam":
        return Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    assert recipe.optimizer == "adamw", recipe.optimizer
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=recipe.lr, fused=True)


@contextmanager
def tensor_cores(precision: str) -> Iterator[None]:
    """Allow TF32 in matrix products and convolutions for tf32, forbid it otherwise."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bf16 autocast where the recipe says bf16, else nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
