"""Saved states of work under way: the newest that can be read, seldom, and removed at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raydc.errors import InputError
from raydc.store import saved as module
from raydc.store.local import LocalStore
from raydc.store.saved import VARIABLE, Saved


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def tensors(value: float) -> dict[str, torch.Tensor]:
    both = torch.full((2, 3), value)
    return {"images": both, "first row": both[0]}  # a view of the same memory


def test_the_newest_state_is_read_and_two_are_kept(store: LocalStore) -> None:
    saved = Saved(store, "a")
    assert saved.newest() is None
    for step in (9, 10, 100):
        saved.save(step, tensors(step), losses=[0.5] * step)
    Saved(store, "a-b").save(1000, tensors(0.0))
    assert store.names("progress") == ["a-0000010", "a-0000100", "a-b-0001000"]
    state = Saved(store, "a").newest()
    assert state is not None
    assert state.step == 100
    assert torch.equal(state.tensors["first row"], torch.full((3,), 100.0))
    assert state.meta == {"losses": [0.5] * 100}
    earlier = saved.newest(at_most=99)
    assert earlier is not None
    assert earlier.step == 10
    assert saved.newest(at_most=9) is None
    saved.clear()
    assert store.names("progress") == ["a-b-0001000"]


def test_a_state_that_was_just_saved_stays_beside_a_later_one(store: LocalStore) -> None:
    """Work that begins before a saved state, since something earlier is missing, saves its own states too."""
    saved = Saved(store, "a")
    for step in (49, 50, 3, 4):
        saved.save(step, tensors(step))
    assert store.names("progress") == ["a-0000004", "a-0000050"]


@pytest.mark.parametrize("damage", ["cut", "no tensors"])
def test_a_damaged_state_is_passed_over_for_the_one_before(store: LocalStore, damage: str) -> None:
    saved = Saved(store, "a")
    for step in (1, 2):
        saved.save(step, tensors(step))
    file = store.root / "progress" / "a-0000002" / "state.safetensors"
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-1])
    else:
        # The bytes are those that its manifest says, but no tensors.
        with store.draft("progress") as draft:
            draft.path("state.safetensors").write_bytes(bytes(len(content)))
            draft.commit("a-0000003", seconds=0.0)
    state = Saved(LocalStore(store.root), "a").newest()
    assert state is not None
    assert state.step == (1 if damage == "cut" else 2)


def test_states_of_earlier_versions_are_read(store: LocalStore) -> None:
    with store.draft("progress") as draft:
        save_file({"layer.bias": torch.ones(2)}, draft.path("weights.safetensors"))
        save_file({"0.momentum_buffer": torch.zeros(2)}, draft.path("optimizer.safetensors"))
        draft.commit("t0-00012", history=[{"epoch": 12}])
    state = Saved(store, "t0").newest()
    assert state is not None
    assert state.step == 12
    assert set(state.tensors) == {"weights.layer.bias", "optimizer.0.momentum_buffer"}
    assert state.meta == {"history": [{"epoch": 12}]}


def test_a_state_is_saved_once_in_a_while(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    saved = Saved(store, "a")
    assert not saved.due
    now += 60
    assert saved.due
    saved.save(1, tensors(1))
    assert not saved.due
    now += 59
    saved.postpone()
    now += 2
    assert not saved.due
    monkeypatch.setenv(VARIABLE, "0")
    assert Saved(store, "a").due


def test_the_time_that_work_took_before_a_kill_counts(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    first = Saved(store, "a")
    now += 70
    first.save(1, tensors(1))
    now += 500
    again = Saved(store, "a")
    again.newest()
    now += 5
    assert again.seconds == 75
    manifest = json.loads((store.root / "progress" / "a-0000001" / "manifest.json").read_text())
    assert manifest["meta"] == {"seconds": 70}


@pytest.mark.parametrize("given", ["soon", "-1", "inf", "nan"])
def test_an_impossible_interval_is_refused(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(InputError, match=f"RAYDC_SAVE_SECONDS is '{given}', but must be a number of seconds"):
        Saved(store, "a")
