"""Entropy and NLL of a classifier's predictions for a set of images, whole and in crops.

H = -sum p log p and NLL = -log p(class), means over images and draws, in nats (arXiv 2502.06434, Figure 3).
A crop of ratio r is a square window of r of the image's area at a uniform place, scaled to the whole
size by bilinear interpolation; its place is a pure function of (key, draw, image), so all ratios and all
sets of one key use the same windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raydc.augmentation.operations import resized, rrc_window
from raydc.augmentation.philox import uniforms
from raydc.augmentation.streams import STREAMS
from raydc.teachers.teacher import Teacher
from raydc.training.inputs import TensorInputs

IMAGES_TOGETHER = 1024
"""Number of images that are cropped and forwarded together."""


@dataclass(frozen=True)
class CropPrediction:
    """Entropy and NLL of a classifier's predictions for one set at one crop ratio."""

    ratio: float
    """Part of the image's area; 1 is the whole image, not augmented."""
    entropy: float
    """Mean entropy of the predictions, in nats, from 0 to log C."""
    nll: float
    """Mean negative log-likelihood of the images' classes, in nats."""


def crop_predictions(
    teacher: Teacher, images: Tensor, classes: Tensor, ratios: Sequence[float], draws: int, key: int
) -> list[CropPrediction]:
    """Entropy and NLL at each of `ratios`, in (0, 1], over `draws` crops of every image.

    images: [N, C, H, W] float32, inputs of the classifier on its device; classes: [N] int64; key: below
    2**63. Whole images are forwarded once, because all their crops are equal.
    """
    found = []
    for ratio in ratios:
        entropy = nll = 0.0
        looks = 1 if ratio == 1 else draws
        for draw in range(looks):
            for start in range(0, len(images), IMAGES_TOGETHER):
                part = slice(start, start + IMAGES_TOGETHER)
                seen = images[part]
                if ratio < 1:
                    seen = cropped(seen, ratio, places(key, draw, len(images), images.device)[part])
                logits = teacher.logits(TensorInputs(seen))
                h, loss = entropy_and_nll(logits, classes[part].to(logits.device))
                entropy += h.sum().item()
                nll += loss.sum().item()
        found.append(CropPrediction(ratio, entropy / (looks * len(images)), nll / (looks * len(images))))
    return found


def entropy_and_nll(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """(entropy [N], NLL of the classes [N]) float64, in nats, of finite logits [N, C] and classes [N]."""
    logs = logits.double().log_softmax(1)
    return -(logs.exp() * logs).sum(1), -logs.gather(1, classes[:, None])[:, 0]


def places(key: int, draw: int, images: int, device: torch.device) -> Tensor:
    """Uniform numbers [images, 4] of one draw, from the counters of the views' random resized crops."""
    epoch, batch = torch.tensor([[draw], [0]], device=device)
    return uniforms(key, STREAMS["rrc"], epoch, batch, images)[0]


def cropped(images: Tensor, ratio: float, u: Tensor) -> Tensor:
    """Square windows of `ratio` of the area, scaled to the whole size; images [N, C, H, W], u [N, 4]."""
    square = torch.full_like(u[:, 0], 0.5)
    return resized(images, *rrc_window(torch.stack([u[:, 0], square, u[:, 2], u[:, 3]], 1), (ratio, ratio)))
