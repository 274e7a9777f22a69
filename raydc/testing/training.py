"""A recipe and data for the contracts of the parts of a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from raydc.spec.evaluation import Recipe
from raydc.spec.keys import Key
from raydc.training.losses import Targets

IMAGES, CLASSES, CHANNELS, RESOLUTION = 12, 5, 3, 8


def recipe_of(keys: Iterable[Key], **values: Any) -> Recipe:
    """A recipe of 40 steps, with the keys that a part declares at their defaults."""
    point = {
        "train.optimizer": "sgd",
        "train.lr": 0.01,
        "train.weight_decay": 5e-4,
        "train.momentum": 0.9,
        "train.nesterov": False,
        "train.schedule": "constant",
        "train.batch_size": 4,
        "train.steps": 40,
        "train.loss": "ce",
    }
    given = {f"train.{name}": value for name, value in values.items()}
    return Recipe.of({**point, **{key.name: key.default for key in keys}, **given})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images() -> Tensor:
    """[IMAGES, CHANNELS, RESOLUTION, RESOLUTION] float32, standardised."""
    return torch.randn(IMAGES, CHANNELS, RESOLUTION, RESOLUTION, generator=generator())


def logits_and_targets(temperature: float = 2.0, seed: int = 0) -> tuple[Tensor, Targets]:
    """Logits of a student [IMAGES, CLASSES] float64 and soft targets of a teacher."""
    student, teacher = torch.randn(2, IMAGES, CLASSES, generator=generator(seed)).double() * 2
    one_hot = F.one_hot(torch.arange(IMAGES) % CLASSES, CLASSES).double()
    return student, Targets(torch.softmax(teacher / temperature, 1), one_hot, teacher, temperature)
