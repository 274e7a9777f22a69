"""Learning-rate schedules: the fraction of the peak rate in step `step` (from 0) of `total`."""

from __future__ import annotations

import math

from raydc.spec import catalog
from raydc.spec.evaluation import Recipe

WARMUP_START = 0.01
"""Fraction of the peak learning rate at which a warm-up begins."""


def rate_factor(recipe: Recipe, step: int, images: int) -> float:
    """Fraction of the peak learning rate in step `step` (from 0) of a training on `images` images.

    Linear from a hundredth during the warm-up, then the schedule over the remaining steps (VILA-Lab/SRe2L).
    """
    warmup = recipe.warmup_epochs * recipe.steps_per_epoch(images)
    if step < warmup:
        return WARMUP_START + (1 - WARMUP_START) * step / warmup
    entry = catalog.SCHEDULES[recipe.schedule]
    total = recipe.total_steps(images) - warmup
    return float(entry.load()(step - warmup, total, **recipe.arguments(entry.keys)))


def constant(step: int, total: int) -> float:
    """The peak rate throughout."""
    del step, total
    return 1.0


def cosine(step: int, total: int) -> float:
    """A half cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * step / total))


def half_cosine(step: int, total: int) -> float:
    """A quarter cosine from 1 to one half (RDED)."""
    return 0.5 * (1 + math.cos(math.pi * step / (2 * total)))


def quarters(step: int, total: int) -> float:
    """x 0.3 after each quarter (arXiv 2406.10485)."""
    return float(0.3 ** min(3, step // max(1, total // 4)))


def halfway(step: int, total: int) -> float:
    """x 0.1 after half of the steps (MTT, DM)."""
    return 0.1 if step >= total // 2 + 1 else 1.0


def thirds(step: int, total: int) -> float:
    """x 0.1 after each third."""
    return float(0.1 ** min(2, step // max(1, total // 3)))
