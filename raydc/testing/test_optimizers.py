"""The contract of optimizers: they decrease a loss, resume from their state, and are equal in packs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from raydc.spec.catalog import OPTIMIZERS, Optimizer
from raydc.spec.evaluation import Recipe
from raydc.testing.parts import each
from raydc.testing.training import generator, recipe_of
from raydc.training.optimizer import make_optimizer, packable
from raydc.training.stacked import stacked_optimizer

every_optimizer = each("optimizer", OPTIMIZERS)


class Problem(nn.Module):
    """A least-squares problem with a matrix and a vector of weights."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, generator=generator(seed), dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(4, generator=generator(seed + 9), dtype=torch.float64))

    def loss(self) -> Tensor:
        inputs = torch.randn(8, 3, generator=generator(100), dtype=torch.float64)
        return (inputs @ self.weight.T + self.bias).square().mean()


def recipe_for(optimizer: Optimizer, lr: float = 0.01) -> Recipe:
    return recipe_of(optimizer.keys, optimizer=optimizer.name, lr=lr)


def train(problem: Problem, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = problem.loss()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@every_optimizer
def test_it_decreases_a_loss(optimizer: Optimizer) -> None:
    problem = Problem(0)
    losses = train(problem, make_optimizer(recipe_for(optimizer), problem), 100)
    assert losses[-1] < losses[0]


@every_optimizer
def test_the_rate_of_its_groups_is_the_rate(optimizer: Optimizer) -> None:
    """Schedules set the rate of all groups before each step."""
    problem = Problem(0)
    made = make_optimizer(recipe_for(optimizer), problem)
    assert {group["lr"] for group in made.param_groups} == {0.01}
    for group in made.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in problem.parameters()]
    train(problem, made, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, problem.parameters(), strict=True))


@every_optimizer
def test_it_resumes_from_its_state(optimizer: Optimizer) -> None:
    whole, first = Problem(0), Problem(0)
    train(whole, make_optimizer(recipe_for(optimizer), whole), 10)
    made = make_optimizer(recipe_for(optimizer), first)
    train(first, made, 5)
    second = copy.deepcopy(first)
    resumed = make_optimizer(recipe_for(optimizer), second)
    resumed.load_state_dict(made.state_dict())
    train(second, resumed, 5)
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@every_optimizer
def test_the_stacked_optimizer_equals_that_of_each_student(optimizer: Optimizer) -> None:
    if not optimizer.stacked:
        assert not packable(recipe_for(optimizer))  # its students are not packed
        return
    rates = (0.01, 0.003)
    problems = [Problem(seed) for seed in range(len(rates))]
    stacked = [
        torch.stack([getattr(p, name).detach() for p in problems]).requires_grad_()
        for name in ("weight", "bias")
    ]
    pack = stacked_optimizer([recipe_for(optimizer, lr) for lr in rates], stacked)
    inputs = torch.randn(8, 3, generator=generator(100), dtype=torch.float64)
    for _ in range(5):
        outputs = torch.einsum("bi,soi->sbo", inputs, stacked[0]) + stacked[1][:, None]
        pack.step(torch.autograd.grad(outputs.square().mean((1, 2)).sum(), stacked))
    for problem, lr in zip(problems, rates, strict=True):
        train(problem, make_optimizer(recipe_for(optimizer, lr), problem), 5)
    for number, problem in enumerate(problems):
        torch.testing.assert_close(stacked[0][number], problem.weight, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(stacked[1][number], problem.bias, rtol=1e-9, atol=1e-12)
