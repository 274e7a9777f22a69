"""The engine: compiled code says what eager code says, and which is taken depends on the work alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from raydc.networks.zoo import initialised
from raydc.spec.evaluation import Recipe
from raydc.spec.plan import Plan
from raydc.spec.study import StudySpec
from raydc.training import engine as engines
from raydc.training.engine import COMPILED, EAGER, NetworkSlot
from raydc.training.fit import fit
from raydc.training.inputs import TensorInputs
from raydc.training.losses import Targets
from raydc.training.metrics import measure
from raydc.training.targets import StaticTargets
from raydc.worker.evaluate import attempt
from raydc.worker.workbench import Workbench

CPU = torch.device("cpu")
ARCH = "convnet-d2-w8"


RECIPE = Recipe("sgd", 0.05, 5e-4, "quarters", 8, momentum=0.9, steps=6, loss="ce")


@pytest.fixture
def slot() -> NetworkSlot:
    return NetworkSlot(ARCH, 3, 4, 16, CPU)


def test_short_trainings_are_eager_and_long_ones_compiled(
    slot: NetworkSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "compiler", lambda: "g++")
    images = 8
    steps = int(engines.LEAST_FLOP / (3 * slot.flop_per_image * images))
    assert slot.engine(replace(RECIPE, steps=steps - 1), images) == EAGER
    assert slot.engine(replace(RECIPE, steps=steps + 1), images) == COMPILED


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the engine has warned of; it has warned of nothing yet."""
    engines._say_once.cache_clear()
    caplog.set_level(logging.WARNING, engines.logger.name)
    return lambda: [r.getMessage() for r in caplog.records if r.name == engines.logger.name]


def test_without_a_compiler_everything_is_eager_and_it_is_said_once(
    slot: NetworkSlot, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    assert slot.engine(replace(RECIPE, steps=1), 8) == EAGER
    assert warnings() == []  # it would have been eager with one
    assert [slot.engine(replace(RECIPE, steps=n), 8) for n in (10**8, 10**9)] == [EAGER, EAGER]
    assert warnings() == [
        "TORCHDYNAMO_DISABLE is 1: students run eagerly, which is slower for long trainings"
    ]


class _Refusing(nn.Module):
    """A network as compiled where batches of 4 cannot be compiled."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> Tensor:
        if len(batch) == 4:
            raise RuntimeError("C++ compile error\n\nCommand: ...")
        said: Tensor = self.network(batch)
        return said


def test_what_cannot_be_compiled_runs_eagerly_and_the_rest_is_compiled(
    slot: NetworkSlot, warnings: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    slot._compiled = _Refusing(slot.network)
    # Whichever evaluation comes first: the same ones are eager.
    assert slot.warm(COMPILED, RECIPE, 12) == EAGER  # batches of 8 and 4
    assert slot.warm(COMPILED, RECIPE, 16) == COMPILED
    assert slot.warm(COMPILED, RECIPE, 12) == EAGER
    assert slot.warm(EAGER, RECIPE, 16) == EAGER
    assert warnings() == [
        "torch.compile failed (RuntimeError: C++ compile error): "
        "students run eagerly, which is slower for long trainings"
    ]
    assert all(p.grad is None for p in slot.network.parameters())


def test_a_networks_own_errors_are_not_taken_for_the_compilers(
    slot: NetworkSlot, warnings: Callable[[], list[str]]
) -> None:
    def fail(*_: object) -> Tensor:
        raise ValueError("Expected more than 1 value per channel")

    slot.network.forward = fail  # type: ignore[method-assign]
    slot._compiled = _Refusing(slot.network)
    with pytest.raises(ValueError, match="more than 1 value"):
        slot.warm(COMPILED, RECIPE, 16)
    assert warnings() == []


@pytest.mark.command  # the compiler
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CXX", "false", "false does not work"),
        ("TORCHINDUCTOR_CACHE_DIR", "/dev/null/x", "torch.compile failed"),
    ],
)
def test_a_student_that_cannot_be_compiled_has_the_result_of_an_eager_one(
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
    name: str,
    value: str,
    said: str,
) -> None:
    (one,) = ready(small()).evaluations
    eager = attempt(one, bench, study="small")
    monkeypatch.setattr(engines, "LEAST_FLOP", 0)
    monkeypatch.setenv(name, value)
    if name != "CXX":
        monkeypatch.setattr(engines, "compiler", lambda: "g++")
    rows = [attempt(one, bench, study="small") for _ in range(2)]
    for row in rows:
        assert (row["status"], row["engine"], row["error"]) == ("finished", EAGER, None)
        assert row["test_loss"] == eager["test_loss"]
    (warning,) = warnings()
    assert said in warning


def test_a_second_student_on_a_chassis_is_as_on_a_new_one(slot: NetworkSlot) -> None:
    def train(slot: NetworkSlot, seed: int) -> list[torch.Tensor]:
        slot.load(initialised(ARCH, 3, 4, 16, "student", seed).state_dict())
        fit(slot.network, *_task(), RECIPE, key=seed, device=CPU)
        return [p.detach().clone() for p in slot.network.parameters()]

    train(slot, 0)
    again = train(slot, 1)
    fresh = train(NetworkSlot(ARCH, 3, 4, 16, CPU), 1)
    assert all(torch.equal(a, b) for a, b in zip(again, fresh, strict=True))


@pytest.mark.compiler
def test_compiled_code_trains_and_tests_as_eager_code(
    slot: NetworkSlot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    inputs, targets = _task()
    results = []
    for engine in (EAGER, COMPILED):
        assert slot.warm(engine, RECIPE, len(inputs)) == engine
        slot.load(initialised(ARCH, 3, 4, 16, "student", 3).state_dict())
        forward = slot.forward(engine)
        training = fit(slot.network, inputs, targets, RECIPE, key=5, device=CPU, forward=forward)
        score = measure(slot.network, inputs, torch.arange(12) % 4, 4, forward=forward)
        results.append((training.losses, score.loss))
    (eager, eager_loss), (compiled, compiled_loss) = results
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)
    assert compiled_loss == pytest.approx(eager_loss, rel=1e-5)


def _task() -> tuple[TensorInputs, StaticTargets]:
    """Twelve images in batches of 8 and 4, so that there are two shapes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 3, 16, 16, generator=generator)
    return TensorInputs(images), StaticTargets(Targets.hard(torch.arange(12) % 4, 4))
