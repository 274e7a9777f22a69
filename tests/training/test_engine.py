"""The engine: compiled code says what eager code says, and which is taken depends on the work alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raydc.networks.zoo import initialised
from raydc.spec.evaluation import Recipe
from raydc.training import engine as engines
from raydc.training.engine import COMPILED, EAGER, Chassis
from raydc.training.fit import fit
from raydc.training.inputs import TensorInputs
from raydc.training.losses import Targets
from raydc.training.metrics import measure
from raydc.training.targets import StaticTargets

CPU = torch.device("cpu")
ARCH = "convnet-d2-w8"


RECIPE = Recipe("sgd", 0.05, 5e-4, "quarters", 8, momentum=0.9, steps=6, loss="ce")


@pytest.fixture
def chassis() -> Chassis:
    return Chassis(ARCH, 3, 4, 16, CPU)


def test_short_trainings_are_eager_and_long_ones_compiled(
    chassis: Chassis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "compiler", lambda: "g++")
    images = 8
    steps = int(engines.LEAST_FLOP / (3 * chassis.flop_per_image * images))
    assert chassis.engine(replace(RECIPE, steps=steps - 1), images) == EAGER
    assert chassis.engine(replace(RECIPE, steps=steps + 1), images) == COMPILED


def test_without_a_compiler_everything_is_eager(chassis: Chassis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    assert chassis.engine(replace(RECIPE, steps=10**9), 8) == EAGER


def test_a_second_student_on_a_chassis_is_as_on_a_new_one(chassis: Chassis) -> None:
    def train(chassis: Chassis, seed: int) -> list[torch.Tensor]:
        chassis.load(initialised(ARCH, 3, 4, 16, "student", seed).state_dict())
        fit(chassis.network, *_task(), RECIPE, key=seed, device=CPU)
        return [p.detach().clone() for p in chassis.network.parameters()]

    train(chassis, 0)
    again = train(chassis, 1)
    fresh = train(Chassis(ARCH, 3, 4, 16, CPU), 1)
    assert all(torch.equal(a, b) for a, b in zip(again, fresh, strict=True))


@pytest.mark.compiler
def test_compiled_code_trains_and_tests_as_eager_code(
    chassis: Chassis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    inputs, targets = _task()
    results = []
    for engine in (EAGER, COMPILED):
        chassis.warm(engine, RECIPE, len(inputs))
        chassis.load(initialised(ARCH, 3, 4, 16, "student", 3).state_dict())
        forward = chassis.forward(engine)
        training = fit(chassis.network, inputs, targets, RECIPE, key=5, device=CPU, forward=forward)
        score = measure(chassis.network, inputs, torch.arange(12) % 4, 4, forward=forward)
        results.append((training.losses, score.loss))
    (eager, eager_loss), (compiled, compiled_loss) = results
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)
    assert compiled_loss == pytest.approx(eager_loss, rel=1e-5)


def _task() -> tuple[TensorInputs, StaticTargets]:
    """Twelve images in batches of 8 and 4, so that there are two shapes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 3, 16, 16, generator=generator)
    return TensorInputs(images), StaticTargets(Targets.hard(torch.arange(12) % 4, 4))
