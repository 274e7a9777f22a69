"""The contract of networks: correct logits, reproducible weights, and a loss that decreases."""

from __future__ import annotations

import pytest
import torch

from raydc.networks import zoo
from raydc.spec.catalog import NETWORKS, Network
from raydc.testing.parts import under_test
from raydc.testing.training import recipe_of
from raydc.training.fit import fit
from raydc.training.forwards import kernels_for
from raydc.training.inputs import TensorInputs
from raydc.training.losses import Targets
from raydc.training.packed import Member, fit_pack
from raydc.training.targets import StaticTargets

EXAMPLES = {"convnet": "convnet-d2-w8-bn", "timm": "timm/resnet10t", "torchvision": "torchvision/resnet18"}
"""A member of each family of raydc; a family of a plugin is tested by the members that it registers."""
CPU = torch.device("cpu")
SHAPE = (3, 5, 16)
"""Channels, classes and resolution."""


def arch_of(network: Network) -> str | None:
    return EXAMPLES.get(network.name) if network.pattern else network.name


ARCHS = [arch for network in under_test(NETWORKS) if (arch := arch_of(network)) is not None]
every_arch = pytest.mark.parametrize("arch", ARCHS)


@every_arch
def test_it_outputs_logits(arch: str) -> None:
    zoo.check(arch, *SHAPE)
    network = zoo.build(arch, *SHAPE).eval()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(images)
        alone = network(images[:1])
    assert logits.shape == (4, 5)
    assert logits.isfinite().all()
    torch.testing.assert_close(alone, logits[:1], rtol=1e-3, atol=1e-4)


@every_arch
def test_equal_seeds_give_equal_weights(arch: str) -> None:
    one, same, other = (zoo.initialised(arch, *SHAPE, "student", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@every_arch
def test_its_loss_decreases(arch: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8, 3, 16, 16, generator=generator), torch.arange(8) % 5
    done = fit(
        zoo.initialised(arch, *SHAPE, "student", 0),
        TensorInputs(images),
        StaticTargets(Targets.hard(labels, 5)),
        recipe_of((), batch_size=8, steps=12, lr=0.02),
        key=0,
        device=CPU,
    )
    assert done.losses[-1] < done.losses[0]


@every_arch
def test_in_a_pack_it_learns_as_alone(arch: str) -> None:
    if "vmap" not in kernels_for(zoo.build(arch, *SHAPE)):
        return  # it draws random numbers in training, so its students are trained alone
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 16, 16, generator=generator).double()
    recipe, targets = recipe_of((), steps=3, lr=0.01), StaticTargets(Targets.hard(torch.arange(4) % 5, 5))
    states = [zoo.initialised(arch, *SHAPE, "student", seed).double().state_dict() for seed in (0, 1)]
    members = [Member(state, TensorInputs(images), targets, recipe, key=7) for state in states]
    try:
        pack = fit_pack(zoo.build(arch, *SHAPE).double(), members, "vmap", CPU)
    except RuntimeError:
        return  # torch.func does not support one of its layers, so its students are trained alone
    for state, losses in zip(states, pack.losses, strict=True):
        network = zoo.build(arch, *SHAPE).double()
        network.load_state_dict(state)
        alone = fit(network, TensorInputs(images), targets, recipe, key=7, device=CPU)
        torch.testing.assert_close(losses, alone.losses, rtol=1e-6, atol=1e-8)
