"""Entropy and NLL of predictions against formulas written out, on whole images and in crops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from raydc.teachers.crop_predictions import CropPrediction, crop_predictions, cropped, entropy_and_nll, places
from raydc.teachers.teacher import Teacher

IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])


class Corner(nn.Module):
    """Logits are the mean, the first pixel and zero: what a crop shows matters."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return torch.stack([flat.mean(1), flat[:, 0], torch.zeros(len(flat))], 1)


def look(ratios: list[float], draws: int = 3, key: int = 7) -> list[CropPrediction]:
    return crop_predictions(Teacher(Corner(), torch.device("cpu")), IMAGES, CLASSES, ratios, draws, key)


def test_entropy_and_nll_are_their_formulas() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0], [50.0, -50.0, 0.0]])
    entropy, nll = entropy_and_nll(logits, torch.tensor([1, 2, 1]))
    for row, h, loss, label in zip(logits.tolist(), entropy.tolist(), nll.tolist(), (1, 2, 1), strict=True):
        total = sum(math.exp(z) for z in row)
        p = [math.exp(z) / total for z in row]
        assert h == pytest.approx(-sum(x * math.log(x) for x in p), abs=1e-12)
        assert loss == pytest.approx(-math.log(p[label]), abs=1e-12)
    assert entropy[1].item() == pytest.approx(math.log(3))


def test_whole_images_are_seen_as_they_are() -> None:
    (whole,) = look([1.0])
    entropy, nll = entropy_and_nll(Corner()(IMAGES), CLASSES)
    assert (whole.entropy, whole.nll) == (
        pytest.approx(entropy.mean().item(), abs=1e-7),
        pytest.approx(nll.mean().item(), abs=1e-7),
    )
    # A window of the whole image does not scale it.
    torch.testing.assert_close(cropped(IMAGES, 1.0, places(7, 0, 6, torch.device("cpu"))), IMAGES)


def test_a_crop_is_a_square_window_of_its_part_of_the_area() -> None:
    columns = torch.arange(8.0).expand(1, 1, 8, 8)
    for ratio in (0.25, 0.5):
        u = torch.tensor([[0.9, 0.1, 0.0, 0.5]])  # at the left, half way down
        seen = cropped(columns, ratio, u)
        step = (seen[0, 0, 0, 5] - seen[0, 0, 0, 4]).item()
        assert step == pytest.approx(math.sqrt(ratio), abs=1e-5)
        assert cropped(columns.transpose(2, 3), ratio, u).amax() < 8 * (0.5 + math.sqrt(ratio) / 2)


def test_crops_are_a_function_of_their_key() -> None:
    assert look([0.2, 0.6]) == look([0.2, 0.6])
    assert look([0.2]) != look([0.2], key=8)
    # One ratio's windows do not depend on which others are looked at.
    assert look([0.2, 0.6])[1] == look([0.6])[0]


def test_draws_are_averaged() -> None:
    device = torch.device("cpu")
    (said,) = look([0.3], draws=2)
    by_hand = [
        entropy_and_nll(Corner()(cropped(IMAGES, 0.3, places(7, draw, 6, device))), CLASSES)
        for draw in range(2)
    ]
    assert said.entropy == pytest.approx(torch.stack([h for h, _ in by_hand]).mean().item(), abs=1e-7)
    assert said.nll == pytest.approx(torch.stack([loss for _, loss in by_hand]).mean().item(), abs=1e-7)
