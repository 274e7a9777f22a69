"""Learned labels: their gradient, their end, and that an interruption changes nothing."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raydc.errors import EvaluationError

# `learn` shows neither the loss whose gradient it takes, nor a step along a gradient of one's choice.
from raydc.labels.learned import BpttSettings, InnerProblem, Progress, _move, _real_loss, learn
from raydc.networks.zoo import initialised
from raydc.spec.evaluation import Recipe
from raydc.training.inputs import TensorInputs

RECIPE = Recipe.of(
    {
        "train.optimizer": "sgd",
        "train.lr": 0.1,
        "train.weight_decay": 0.0,
        "train.momentum": 0.0,
        "train.schedule": "constant",
        "train.epochs": 1,
        "train.batch_size": 64,
        "train.loss": "soft_ce",
        "train.precision": "fp32",
        "train.augment": (),
    }
)
COURSE = BpttSettings(unroll_steps=4, inner_steps=10, inner_lr=0.02, outer_steps=6, lr=0.05, real_batch=24)


def problem(dtype: torch.dtype = torch.float32) -> InnerProblem:
    torch.manual_seed(0)
    real = torch.randn(30, 1, 4, 4, dtype=dtype)
    classes = (real.mean((1, 2, 3)) > 0).long() + (real[:, 0, 0, 0] > 0.5).long()

    def fresh(step: int) -> nn.Module:
        return initialised("convnet-d1-w4", 1, 3, 4, "lesson", step).to(dtype)

    return InnerProblem(real[:6] + 0.1, TensorInputs(real), classes, RECIPE, fresh, "test")


def start(dtype: torch.dtype = torch.float32) -> Progress:
    return Progress.begin(F.one_hot(torch.arange(6) % 3, 3).to(dtype))


def test_the_gradient_is_that_of_finite_differences() -> None:
    given = problem(torch.float64)
    labels = (start(torch.float64).labels * 0.8 + 0.05).requires_grad_(True)
    # A window as long as the training: nothing is cut off, so differences see what the gradient says.
    settings = replace(COURSE, unroll_steps=3, inner_steps=3)
    assert torch.autograd.gradcheck(lambda y: _real_loss(given, settings, 0, y), labels, eps=1e-6, atol=1e-5)


def test_learning_lowers_the_loss_on_real_images_and_keeps_labels_positive() -> None:
    *_, done = learn(problem(), replace(COURSE, outer_steps=60), start())
    assert sum(done.losses[-10:]) < sum(done.losses[:10])
    assert (done.labels >= 0).all()
    assert not torch.equal(done.labels, start().labels)


def test_an_interrupted_learning_ends_as_a_whole_one() -> None:
    *_, whole = learn(problem(), COURSE, start())
    half = start()
    for _ in learn(problem(), COURSE, half):
        if half.step == 3:
            break
    *_, resumed = learn(problem(), COURSE, deepcopy(half))
    assert torch.equal(whole.labels, resumed.labels)
    assert whole.losses == resumed.losses


def test_what_is_done_is_not_done_again() -> None:
    *_, done = learn(problem(), COURSE, start())
    assert list(learn(problem(), COURSE, done)) == []


def test_a_learning_that_diverges_says_where() -> None:
    given = problem()
    broken = replace(given, images=given.images * torch.inf)
    with pytest.raises(EvaluationError, match="diverged at outer step 0"):
        list(learn(broken, COURSE, start()))


@pytest.mark.parametrize("arch", ["convnet-d1-w4-bn", "resnet18-small"])
def test_batch_norm_can_be_differentiated_twice(arch: str) -> None:
    def fresh(step: int) -> nn.Module:
        return initialised(arch, 1, 3, 4, "lesson", step)

    settings = replace(COURSE, unroll_steps=2, inner_steps=2, outer_steps=1)
    (done,) = learn(replace(problem(), fresh=fresh), settings, start())
    assert torch.isfinite(done.labels).all()


def test_a_gradient_that_vanishes_once_does_not_end_learning() -> None:
    progress = start()
    _move(progress, torch.zeros(6, 3), 0.1)
    progress.losses.append(1.0)
    _move(progress, torch.ones(6, 3), 0.1)
    assert (progress.labels != start().labels).any()


def test_dropout_is_drawn_from_the_lesson_alone() -> None:
    def fresh(step: int) -> nn.Module:
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
        nn.init.constant_(network[2].weight, 0.1)
        nn.init.zeros_(network[2].bias)
        return network

    def learnt(noise: int) -> torch.Tensor:
        given = replace(problem(), fresh=fresh)
        torch.manual_seed(noise)
        *_, done = learn(given, COURSE, start())
        return done.labels

    assert torch.equal(learnt(1), learnt(2))
