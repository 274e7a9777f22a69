"""The contract of losses: finite, differentiable, and equal in packs and for single students."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from raydc.spec.catalog import LOSSES, Loss
from raydc.testing.parts import each
from raydc.testing.training import CLASSES, IMAGES, logits_and_targets, recipe_of
from raydc.training.losses import loss_function, stack_targets, stacked_loss_function

every_loss = each("loss", LOSSES)


@every_loss
def test_it_is_a_finite_scalar_with_a_gradient(loss: Loss) -> None:
    student, targets = logits_and_targets()
    student.requires_grad_()
    value = loss_function(recipe_of(loss.keys, loss=loss.name))(student, targets)
    assert value.shape == ()
    assert value.isfinite()
    (gradient,) = torch.autograd.grad(value, student)
    assert gradient.shape == (IMAGES, CLASSES)
    assert gradient.isfinite().all()
    assert gradient.any()


@every_loss
def test_a_gradient_step_decreases_it(loss: Loss) -> None:
    student, targets = logits_and_targets()
    student.requires_grad_()
    function = loss_function(recipe_of(loss.keys, loss=loss.name))
    before = function(student, targets)
    (gradient,) = torch.autograd.grad(before, student)
    after = function(student - 1e-3 * gradient / gradient.norm(), targets)
    assert after < before


@every_loss
def test_it_reads_what_it_declares_and_nothing_else(loss: Loss) -> None:
    student, targets = logits_and_targets()
    function = loss_function(recipe_of(loss.keys, loss=loss.name))
    plain = function(student, targets)
    if "logits" not in loss.needs:
        assert torch.equal(function(student, replace(targets, logits=None)), plain)
    if "classes" not in loss.needs:
        assert torch.equal(function(student, replace(targets, classes=targets.classes.flip(1))), plain)


@every_loss
def test_targets_are_not_modified(loss: Loss) -> None:
    student, targets = logits_and_targets()
    before = [part.clone() for part in (student, targets.probabilities, targets.classes)]
    loss_function(recipe_of(loss.keys, loss=loss.name))(student, targets)
    for one, other in zip(before, (student, targets.probabilities, targets.classes), strict=True):
        assert torch.equal(one, other)


@every_loss
def test_the_stacked_loss_equals_that_of_each_student(loss: Loss) -> None:
    recipe = recipe_of(loss.keys, loss=loss.name)
    alone = [logits_and_targets(temperature, seed) for seed, temperature in enumerate((1.0, 2.0, 4.0))]
    single = torch.stack([loss_function(recipe)(student, targets) for student, targets in alone])
    students = torch.stack([student for student, _ in alone]).requires_grad_()
    losses = stacked_loss_function(recipe)(students, stack_targets([t for _, t in alone], loss.name))
    torch.testing.assert_close(losses, single, rtol=1e-9, atol=1e-12)
    # A student's loss depends on its own logits only.
    (gradient,) = torch.autograd.grad(losses[1], students)
    assert gradient[1].any()
    assert not gradient[[0, 2]].any()


@every_loss
def test_a_loss_for_hard_labels_is_refused_for_soft_ones(loss: Loss) -> None:
    assert isinstance(loss.soft, bool)
    if loss.needs and "logits" in loss.needs:
        with pytest.raises(ValueError, match="needs a teacher's logits"):
            loss.check("smooth", False, ["soft"])
