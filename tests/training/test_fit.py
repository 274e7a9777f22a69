"""Training: formulas of losses and schedules, determinism, resuming, and what is timed."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raydc.errors import EvaluationError
from raydc.networks.zoo import initialised
from raydc.spec.evaluation import Recipe
from raydc.training.fit import fit
from raydc.training.inputs import TensorInputs
from raydc.training.losses import Targets, loss_function
from raydc.training.metrics import measure
from raydc.training.optimizer import make_optimizer, tensor_cores
from raydc.training.schedules import rate_factor
from raydc.training.targets import StaticTargets

CPU = torch.device("cpu")
RECIPE = Recipe("sgd", 0.05, 5e-4, "quarters", 8, momentum=0.9, steps=12, loss="ce", augment=("crop", "flip"))


def problem(seed: int = 0) -> tuple[nn.Module, TensorInputs, StaticTargets]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(20, 1, 8, 8, generator=generator)
    labels = torch.arange(20) % 4
    network = initialised("convnet-d2-w8", 1, 4, 8, "student", seed)
    return network, TensorInputs(images), StaticTargets(Targets.hard(labels, 4))


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def train(recipe: Recipe, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    network, inputs, targets = problem()
    done = fit(network, inputs, targets, recipe, key=5, device=CPU, **options)
    return weights(network), done.losses


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_same_training_twice_is_equal_bit_for_bit(optimizer: str) -> None:
    recipe = replace(RECIPE, optimizer=optimizer)
    (first, losses), (second, again) = train(recipe), train(recipe)
    assert torch.equal(first, second)
    assert torch.equal(losses, again)


def test_dropout_is_drawn_from_the_views_key_and_the_epoch_alone() -> None:
    recipe = replace(RECIPE, augment=(), batch_size=10)

    def trained(noise: int, *spans: tuple[int, int]) -> torch.Tensor:
        _, inputs, targets = problem()
        torch.manual_seed(noise)
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4))
        nn.init.constant_(network[2].weight, 0.1)
        nn.init.zeros_(network[2].bias)
        optimizer = make_optimizer(recipe, network)
        for first, last in spans:
            torch.rand(noise)
            options = {"first_step": first, "last_step": last, "optimizer": optimizer}
            fit(network, inputs, targets, recipe, key=5, device=CPU, **options)
        return weights(network)

    whole = trained(1, (0, 12))
    assert torch.equal(whole, trained(2, (0, 12)))
    assert torch.equal(whole, trained(3, (0, 4), (4, 12)))


def test_it_equals_a_plain_reference_loop() -> None:
    recipe = replace(RECIPE, augment=(), batch_size=20)
    network, inputs, targets = problem()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(inputs.images), targets.targets.classes.argmax(1))
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    found, said = train(recipe)
    torch.testing.assert_close(found, weights(network))
    torch.testing.assert_close(said, torch.tensor(losses))


def test_a_training_in_two_parts_equals_one_in_one() -> None:
    whole, losses = train(RECIPE)
    network, inputs, targets = problem()
    optimizer = make_optimizer(RECIPE, network)
    options = {"key": 5, "device": CPU, "optimizer": optimizer}
    first = fit(network, inputs, targets, RECIPE, last_step=6, **options)
    second = fit(network, inputs, targets, RECIPE, first_step=6, **options)
    assert torch.equal(weights(network), whole)
    assert torch.equal(torch.cat([first.losses, second.losses]), losses)


def test_no_steps_leave_the_network_as_it_was() -> None:
    network, inputs, targets = problem()
    before = weights(network)
    done = fit(network, inputs, targets, replace(RECIPE, steps=0), key=5, device=CPU)
    assert torch.equal(weights(network), before)
    assert (done.steps, done.train_seconds) == (0, 0.0)


def test_a_loss_that_is_not_finite_names_its_step() -> None:
    network, inputs, _ = problem()
    bad = torch.full((20, 4), torch.nan)
    with pytest.raises(EvaluationError, match="the loss is nan at step 0"):
        fit(network, inputs, StaticTargets(Targets(bad, bad)), RECIPE, key=5, device=CPU)
    with pytest.raises(EvaluationError, match=r"the loss is (nan|inf) at step [1-9]\d*; lower train\.lr"):
        train(replace(RECIPE, lr=1e30, steps=40))


def test_epochs_are_called_and_pauses_are_not_timed() -> None:
    seen = []

    def pause(epoch: int, *_: object) -> None:
        seen.append(epoch)
        time.sleep(0.2)

    network, inputs, targets = problem()
    done = fit(network, inputs, targets, replace(RECIPE, steps=9), key=5, device=CPU, on_epoch=pause)
    assert seen == [1, 2, 3]
    assert done.train_seconds < 0.2


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.5 * (1 + math.cos(3 * math.pi / 4))]),
        (
            "half-cosine",
            [
                1,
                0.5 * (1 + math.cos(math.pi / 8)),
                0.5 * (1 + math.cos(math.pi / 4)),
                0.5 * (1 + math.cos(3 * math.pi / 8)),
            ],
        ),
        ("quarters", [1, 0.3, 0.09, 0.027]),
        ("halfway", [1, 1, 1, 0.1]),
        ("thirds", [1, 1, 0.1, 0.01]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    places = [0, 3, 6, 9] if schedule != "halfway" else [0, 3, 6, 7]
    recipe = replace(RECIPE, steps=12, epochs=None, schedule=schedule)
    assert [rate_factor(recipe, step, 20) for step in places] == pytest.approx(expected)


def test_a_warm_up_is_that_of_torch() -> None:
    recipe = replace(RECIPE, steps=None, epochs=6, warmup_epochs=2, schedule="cosine")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rises = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=6)
    falls = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rises, falls], milestones=[6])
    for step in range(18):  # 20 images in batches of 8 are 3 steps an epoch
        assert rate_factor(recipe, step, 20) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both.step()


def test_adamw_decays_matrices_only() -> None:
    network, _, _ = problem()
    groups = make_optimizer(replace(RECIPE, optimizer="adamw"), network).param_groups
    assert {p.ndim > 1 for p in groups[0]["params"]} == {True}
    assert [group["weight_decay"] for group in groups] == [5e-4, 0.0]


def logits_and_targets() -> tuple[torch.Tensor, Targets]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 5, generator=generator).double()
    one_hot = F.one_hot(torch.arange(6) % 5, 5).double()
    return student, Targets(torch.softmax(teacher / 3, 1), one_hot, teacher, 3.0)


def loss_of(name: str, student: torch.Tensor, targets: Targets) -> torch.Tensor:
    return loss_function(replace(RECIPE, loss=name))(student, targets)


def test_losses_are_their_formulas() -> None:
    z, t = logits_and_targets()
    p = t.probabilities
    soft_ce = -(p * torch.log_softmax(z, 1)).sum(1).mean()
    kl = (p * (p.log() - torch.log_softmax(z / 3, 1))).sum(1).mean()
    mse = ((z - t.logits) ** 2).mean() + 0.1 * -(t.classes * torch.log_softmax(z, 1)).sum(1).mean()
    assert loss_of("soft_ce", z, t).item() == pytest.approx(soft_ce.item())
    assert loss_of("kl", z, t).item() == pytest.approx(kl.item())
    assert loss_of("kl_t2", z, t).item() == pytest.approx(9 * kl.item())
    assert loss_of("mse_ce", z, t).item() == pytest.approx(mse.item())


def test_labels_that_lost_mass_scale_the_loss() -> None:
    z, t = logits_and_targets()
    half = replace(t, probabilities=t.probabilities / 2)
    assert loss_of("soft_ce", z, half).item() == pytest.approx(loss_of("soft_ce", z, t).item() / 2)


def test_measure_counts_by_class() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.one_hot(x.flatten(1)[:, 0].long(), 4).float() * 10

    inputs = TensorInputs(torch.tensor([0.0, 1, 1, 2]).view(4, 1, 1, 1))
    score = measure(Fixed(), inputs, torch.tensor([0, 1, 2, 2]), 4)
    assert score.accuracy == 0.75
    assert score.accuracy_by_class == (1.0, 1.0, 0.5, None)


def test_tf32_is_off_unless_asked_for() -> None:
    with tensor_cores("tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
        with tensor_cores("fp32"):
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32


def test_bf16_trains_and_is_not_fp32() -> None:
    full, _ = train(RECIPE)
    brain, losses = train(replace(RECIPE, precision="bf16"))
    assert losses.isfinite().all()
    assert not torch.equal(full, brain)
