"""A pack equals single runs: every road, every optimizer and loss, students with their own everything."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Module

from raydc.augmentation.views import Views
from raydc.networks.zoo import build, initialised
from raydc.spec.evaluation import Recipe
from raydc.training.fit import fit
from raydc.training.forwards import State, kernels_for
from raydc.training.inputs import TensorInputs
from raydc.training.losses import Targets
from raydc.training.packed import Looks, Member, fit_pack, shape_of
from raydc.training.program import Program
from raydc.training.targets import StaticTargets

CPU = torch.device("cpu")
ARCH = "convnet-d2-w4"
RECIPE = Recipe("sgd", 0.05, 5e-4, "quarters", 8, momentum=0.9, steps=12, loss="soft_ce", augment=("dsa",))
COMPILED = ("compiled-grouped", "compiled-unfold")
SHAPE = (3, 5, 8)
"""Channels, classes, resolution."""


def members(
    recipe: Recipe, count: int = 3, arch: str = ARCH, dtype: torch.dtype = torch.float64
) -> list[Member]:
    """Students that differ in everything that may differ; the first two share images and views."""
    found = []
    for number in range(count):
        generator = torch.Generator().manual_seed(max(1, number))
        images = torch.randn(12, 3, 8, 8, generator=generator).to(dtype)
        inputs = found[0].inputs if number == 1 else TensorInputs(images)
        temperature = 1.0 + number
        logits = (torch.randn(12, 5, generator=generator) * 3).to(dtype)
        classes = torch.eye(5, dtype=dtype)[torch.arange(12) % 5]
        targets = Targets(torch.softmax(logits / temperature, 1), classes, logits, temperature)
        network = initialised(arch, *SHAPE, "student", number).to(dtype)
        own = replace(recipe, lr=recipe.lr * (1 + number), weight_decay=recipe.weight_decay * number)
        key = 7 if number < 2 else 7 + number
        found.append(Member(network.state_dict(), inputs, StaticTargets(targets), own, key))
    return found


def alone(member: Member, arch: str = ARCH) -> tuple[Tensor, dict[str, Tensor]]:
    network = build(arch, *SHAPE).to(next(iter(member.state.values())).dtype)
    network.load_state_dict(member.state)
    done = fit(
        network,
        member.inputs,
        member.targets,
        member.recipe,
        key=member.key,
        device=CPU,
        views=Views(member.recipe, len(member.inputs), member.key, CPU, grid=member.grid),
    )
    return done.losses, network.state_dict()


def differences(pack: Sequence[Member], kernel: str, arch: str = ARCH) -> float:
    """Largest relative difference of a loss between the pack and single runs; weights are compared."""
    done = fit_pack(build(arch, *SHAPE), pack, kernel, CPU)
    worst = 0.0
    for number, member in enumerate(pack):
        losses, state = alone(member, arch)
        worst = max(worst, float(((done.losses[number] - losses) / losses).abs().max()))
        for name, value in state.items():
            torch.testing.assert_close(done.states[number][name], value, rtol=1e-3, atol=1e-3)
    return worst


@pytest.mark.parametrize("arch", [ARCH, "convnet-d2-w4-bn"])
@pytest.mark.parametrize("kernel", ["grouped", "unfold", "vmap"])
def test_every_loss_of_200_steps_equals_single_runs_in_float64(kernel: str, arch: str) -> None:
    recipe = replace(RECIPE, steps=200, lr=0.01)
    assert differences(members(recipe, arch=arch), kernel, arch) < 1e-8


@pytest.mark.parametrize("kernel", ["grouped", "unfold", "vmap"])
def test_losses_of_20_steps_equal_single_runs_in_float32(kernel: str) -> None:
    assert differences(members(replace(RECIPE, steps=20), dtype=torch.float32), kernel) < 1e-4


@pytest.mark.parametrize("loss", ["soft_ce", "kl", "kl_t2", "mse_ce"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_and_loss(optimizer: str, loss: str) -> None:
    lr = 0.05 if optimizer == "sgd" else 0.002
    recipe = replace(
        RECIPE, optimizer=optimizer, loss=loss, lr=lr, schedule="cosine", augment=("crop", "flip")
    )
    assert differences(members(recipe), "grouped") < 1e-8


@pytest.mark.parametrize(
    "augment", [(), ("crop", "cutout"), ("rrc", "cutmix"), ("mixup", "cutmix"), ("dsa", "mixup")]
)
def test_every_view(augment: tuple[str, ...]) -> None:
    assert differences(members(replace(RECIPE, augment=augment)), "grouped") < 1e-8


def test_nesterov_and_warm_up() -> None:
    recipe = replace(RECIPE, nesterov=True, warmup_epochs=3, schedule="cosine")
    assert differences(members(recipe), "grouped") < 1e-8
    assert shape_of(recipe) != shape_of(RECIPE)


def test_sets_with_different_grids_shuffle_their_own_tiles() -> None:
    pack = members(replace(RECIPE, augment=("patch_shuffle", "tile_crop")))
    grids = [(1, 1), (2, 2), (3, 2)]
    assert (
        differences(
            [replace(m, grid=g, key=n) for n, (m, g) in enumerate(zip(pack, grids, strict=True))], "grouped"
        )
        < 1e-8
    )


def test_a_small_set_is_one_batch() -> None:
    assert differences(members(replace(RECIPE, batch_size=64, momentum=0.0)), "grouped") < 1e-8


def test_other_networks_take_the_general_road() -> None:
    network = build("resnet18-small", *SHAPE)
    assert kernels_for(network) == ("vmap",)
    pack = members(replace(RECIPE, steps=3, lr=0.01), 2, "resnet18-small")
    assert differences(pack, "vmap", "resnet18-small") < 1e-8


def test_networks_with_dropout_are_not_packed() -> None:
    assert kernels_for(build("torchvision/alexnet", 3, 5, 64)) == ()


@pytest.mark.compiler
@pytest.mark.parametrize("kernel", COMPILED)
def test_compiled_roads(kernel: str) -> None:
    pack = members(replace(RECIPE, steps=3, batch_size=64), dtype=torch.float32)
    assert differences(pack, kernel) < 1e-4


def test_a_student_that_diverges_harms_nobody() -> None:
    pack = members(RECIPE)
    wild = replace(pack[1], recipe=replace(pack[1].recipe, lr=1e200))
    done = fit_pack(build(ARCH, *SHAPE), [pack[0], wild, pack[2]], "grouped", CPU)
    assert not done.losses[1].isfinite().all()
    for number in (0, 2):
        assert torch.allclose(done.losses[number], alone(pack[number])[0], rtol=1e-8)


def test_what_may_differ_in_a_pack() -> None:
    assert shape_of(RECIPE) == shape_of(replace(RECIPE, lr=1.0, weight_decay=0.1, view_seed=4))
    assert shape_of(RECIPE) != shape_of(replace(RECIPE, momentum=0.5))


def test_epochs_are_shown_and_not_timed() -> None:
    seen = []

    def look(epochs: int, states: Mapping[int, State]) -> set[int]:
        seen.append((epochs, sorted(states)))
        time.sleep(0.2)
        return set()

    done = fit_pack(build(ARCH, *SHAPE), members(RECIPE), "grouped", CPU, looks=Looks(lambda e: e != 2, look))
    assert seen == [(e, [0, 1, 2]) for e in (1, 3, 4, 5, 6)]
    assert done.train_seconds < 1.0


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kernel", ["grouped", "unfold", "vmap"])
def test_students_that_end_leave_the_others_as_they_are(
    kernel: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = members(
        replace(RECIPE, optimizer=optimizer, lr=0.02, batch_size=5), 5, "convnet-d2-w4-bn"
    )  # three steps an epoch, the last of two images
    ends = {1: {4}, 2: {0, 3}, 3: {2}}
    stacked = []
    real = Program.__init__

    def counted(self: Program, network: Module, states: Sequence[State], *rest: Any) -> None:
        stacked.append(len(states))
        real(self, network, states, *rest)

    monkeypatch.setattr(Program, "__init__", counted)
    looks = Looks(lambda _: True, lambda epochs, states: ends.get(epochs, set()))
    done = fit_pack(build("convnet-d2-w4-bn", *SHAPE), pack, kernel, CPU, looks=looks)
    assert [len(losses) for losses in done.losses] == [6, 12, 9, 6, 3]
    assert stacked == [5, 2, 1]
    for number, member in enumerate(pack):
        losses, state = alone(member, "convnet-d2-w4-bn")
        torch.testing.assert_close(done.losses[number], losses[: len(done.losses[number])], rtol=1e-8, atol=0)
        if number == 1:
            for name, value in state.items():
                torch.testing.assert_close(done.states[number][name], value, rtol=1e-7, atol=1e-9)


def test_a_pack_ends_when_all_its_students_have_ended() -> None:
    looks = Looks(lambda epochs: epochs == 2, lambda _, states: set(states))
    done = fit_pack(build(ARCH, *SHAPE), members(RECIPE), "grouped", CPU, looks=looks)
    assert [len(losses) for losses in done.losses] == [4, 4, 4]
    assert len(done.states) == 3


@pytest.mark.gpu
@pytest.mark.parametrize(
    "kernel", ["grouped", "unfold", "vmap", *(pytest.param(r, marks=pytest.mark.compiler) for r in COMPILED)]
)
def test_a_captured_pack_equals_single_runs(kernel: str) -> None:
    cuda = torch.device("cuda")
    pack = [
        replace(m, inputs=TensorInputs(m.inputs.take(None).to(cuda)), targets=m.targets.to(cuda))
        for m in members(replace(RECIPE, steps=200, lr=0.01))
    ]
    done = fit_pack(build(ARCH, *SHAPE).to(cuda), pack, kernel, cuda)
    for number, member in enumerate(pack):
        network = build(ARCH, *SHAPE).to(cuda, torch.float64)
        network.load_state_dict(member.state)
        alone = fit(network, member.inputs, member.targets, member.recipe, key=member.key, device=cuda)
        assert torch.allclose(done.losses[number], alone.losses, rtol=1e-8)
