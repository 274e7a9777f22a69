"""The steps of a method that trains: an interruption anywhere changes no bit, another state is not used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydc.methods.pool import Pool
from raydc.methods.steps import SavedSteps, pack, unpack
from raydc.store import saved as module
from raydc.store.local import LocalStore
from raydc.store.saved import Saved

TOTAL = 12


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)


@pytest.fixture
def pool(tmp_path: Path) -> Callable[..., Pool]:
    def make(folder: str, heard: list[tuple[int, int]] | None = None) -> Pool:
        def on_progress(done: int, total: int) -> None:
            if heard is not None:
                heard.append((done, total))

        return Pool(
            labels=np.arange(4),
            classes=(0, 1, 2, 3),
            ipc=1,
            generator=np.random.Generator(np.random.Philox(7)),
            loop=SavedSteps(Saved(LocalStore(tmp_path / folder), "set"), on_progress),
        )

    return make


def train(pool: Pool, optimizer: str, killed_at: int | None = None) -> tuple[torch.Tensor, list[int]]:
    """Train four pixels; returns them with the steps that were taken."""
    pixels = torch.from_numpy(pool.generator.standard_normal(4, np.float32)).requires_grad_()
    draws = torch.Generator().manual_seed(3)
    chosen = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "lbfgs": torch.optim.LBFGS}[optimizer]
    moves = chosen([pixels], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(moves, TOTAL)
    taken = []
    for step in pool.steps(TOTAL, pixels=pixels, draws=draws, moves=moves, schedule=schedule):
        if step == killed_at:
            raise Killed
        taken.append(step)
        target = torch.from_numpy(pool.generator.random(4, np.float32)) + torch.rand(4, generator=draws)

        def loss(target: torch.Tensor = target) -> torch.Tensor:
            moves.zero_grad()
            value = (pixels - target).square().sum()
            value.backward()
            return value

        moves.step(loss)
        schedule.step()
    return pixels.detach(), taken


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lbfgs"])
@pytest.mark.parametrize("killed_at", [0, 1, 7, TOTAL - 1])
def test_a_killed_training_ends_as_an_unbroken_one(
    pool: Callable[..., Pool], optimizer: str, killed_at: int
) -> None:
    whole, _ = train(pool("whole"), optimizer)
    with pytest.raises(Killed):
        train(pool("killed"), optimizer, killed_at)
    heard: list[tuple[int, int]] = []
    resumed, taken = train(pool("killed", heard), optimizer)
    assert taken == list(range(killed_at, TOTAL))
    assert heard == [(done, TOTAL) for done in range(killed_at, TOTAL + 1)]
    assert torch.equal(whole, resumed)


def test_a_state_of_another_shape_is_not_used(pool: Callable[..., Pool]) -> None:
    for _ in zip(pool("a").steps(9, pixels=torch.zeros(3)), range(4), strict=False):
        pass
    pixels = torch.ones(4)
    assert next(iter(pool("a").steps(9, pixels=pixels))) == 0
    assert torch.equal(pixels, torch.ones(4))
    assert next(iter(pool("a").steps(9, images=torch.zeros(3)))) == 0
    assert next(iter(pool("a").steps(9, pixels=torch.zeros(3)))) == 4


def test_without_a_store_all_steps_are_taken() -> None:
    pool = Pool(np.arange(4), (0,), 1, np.random.default_rng(0))
    assert list(pool.steps(3, pixels=torch.zeros(1))) == [0, 1, 2]


def test_nested_states_are_packed_and_unpacked() -> None:
    state: Any = {
        "state": {0: {"step": torch.tensor(3.0), "exp": torch.arange(3)}, 1: {}},
        "groups": [{"lr": 0.1, "betas": (0.9, 0.99), "foreach": None, "name": "a.b", "on": True}],
    }
    tensors, packed = pack(state)
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    again = unpack(tensors, packed)
    assert again["groups"] == state["groups"]
    assert list(again["state"]) == [0, 1]
    assert torch.equal(again["state"][0]["exp"], torch.arange(3))
    with pytest.raises(
        TypeError, match=r"the state 'a\.b' is function, but must be a tensor or a plain value"
    ):
        pack({"a": {"b": lambda: None}})
