"""Teachers: trajectories that resume exactly, scores by their formulas, foreign files read safely."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from raydc.data.dataset import Dataset
from raydc.errors import InputError
from raydc.networks.zoo import build
from raydc.spec.evaluation import TeacherSpec
from raydc.spec.plan import TrajectoryJob
from raydc.spec.study import StudySpec
from raydc.store import saved
from raydc.store.artifact import get
from raydc.store.local import LocalStore
from raydc.store.saved import OnProgress
from raydc.teachers import expert
from raydc.teachers.checkpoint import load_checkpoint, load_given, read_state, store_given
from raydc.teachers.expert import checkpoint_name
from raydc.teachers.scores import RECORDED, el2n, record
from raydc.teachers.teacher import Teacher
from raydc.training.inputs import TensorInputs
from raydc.worker.making import make, unwatched
from raydc.worker.trajectory_work import TrajectoryWork
from raydc.worker.workbench import Workbench

CPU = torch.device("cpu")


@pytest.fixture
def teacher(small: Callable[..., StudySpec]) -> TeacherSpec:
    study = small("teacher.augment=[crop]", "teacher.epochs=4", "teacher.schedule=cosine")
    return study.teachers["teacher"]


def job(teacher: TeacherSpec, *epochs: int, scored: int = 0, index: int = 0) -> TrajectoryJob:
    return TrajectoryJob(f"t{index}", teacher, index, epochs, scored)


def train(digits: Dataset, job: TrajectoryJob, store: LocalStore, progress: OnProgress = unwatched) -> None:
    make(TrajectoryWork(job), Workbench(digits, store, CPU), progress)


def weights(store: LocalStore, epoch: int, name: str = "t0") -> torch.Tensor:
    state = load_file(get(store, "checkpoint", checkpoint_name(name, epoch)).path("weights.safetensors"))
    return torch.cat([value.flatten() for value in state.values()])


def test_a_missing_epoch_is_made_from_the_nearest_before_it(
    tmp_path: Path, digits: Dataset, teacher: TeacherSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, pieces = LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b")
    train(digits, job(teacher, 0, 1, 2, 3, 4), straight)
    train(digits, job(teacher, 2), pieces)
    seen: list[int] = []
    train(digits, job(teacher, 2, 4), pieces, lambda epoch, _: seen.append(epoch))
    assert seen == [2, 3, 4]
    train(digits, job(teacher, 0, 1), pieces)
    for epoch in (0, 1, 2, 4):
        assert torch.equal(weights(straight, epoch), weights(pieces, epoch))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(expert, "fit", refuse)
    train(digits, job(teacher, 0, 1, 2, 4), pieces)


def test_a_training_that_was_killed_goes_on_from_its_last_save(
    tmp_path: Path, digits: Dataset, teacher: TeacherSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved, "SAVE_SECONDS", 0.0)
    straight, killed = LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b")
    train(digits, job(teacher, 4), straight)

    def kill(epoch: int, _: int) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(digits, job(teacher, 4), killed, kill)
    seen: list[int] = []
    train(digits, job(teacher, 4), killed, lambda epoch, _: seen.append(epoch))
    assert seen == [3, 4]
    assert torch.equal(weights(straight, 4), weights(killed, 4))
    assert killed.names("progress") == []


def test_accuracy_by_epoch_is_recorded(tmp_path: Path, digits: Dataset, teacher: TeacherSpec) -> None:
    store = LocalStore(tmp_path)
    train(digits, job(teacher, 2, 4), store)
    meta = get(store, "checkpoint", checkpoint_name("t0", 4)).meta
    assert [entry["epoch"] for entry in meta["history"]] == [1, 2, 3, 4]
    assert meta["val_acc"] == meta["history"][-1]["val_acc"] > 0.5
    assert 0.5 < meta["test_acc"] <= 1


def test_networks_of_a_teacher_differ(tmp_path: Path, digits: Dataset, teacher: TeacherSpec) -> None:
    store = LocalStore(tmp_path)
    for index in (0, 1):
        train(digits, job(teacher, 1, index=index), store)
    assert not torch.equal(weights(store, 1, "t0"), weights(store, 1, "t1"))


def test_recording_scores_does_not_change_the_training(
    tmp_path: Path, digits: Dataset, teacher: TeacherSpec
) -> None:
    plain, scored = LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b")
    train(digits, job(teacher, 3), plain)
    train(digits, job(teacher, 3, scored=2), scored)
    assert torch.equal(weights(plain, 3), weights(scored, 3))
    train(digits, job(teacher, 3, scored=2), plain)
    for epoch in (1, 2):
        one, other = (
            np.load(get(s, "scores", checkpoint_name("t0", epoch)).path("record.npy"))
            for s in (plain, scored)
        )
        np.testing.assert_array_equal(one, other)
    network = load_checkpoint(digits, teacher, "t0", 3, scored, CPU)
    assert network.test_acc is not None


def test_scores_are_their_formulas() -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((7, 4))
    labels = np.arange(7) % 4
    recorded = record(torch.from_numpy(logits), torch.from_numpy(labels))
    for i, (z, y) in enumerate(zip(logits, labels, strict=True)):
        p = np.exp(z) / np.exp(z).sum()
        expected = {
            "el2n": np.linalg.norm(p - np.eye(4)[y]),
            "margin": z[y] - np.delete(z, y).max(),
            "loss": -np.log(p[y]),
            "correct": float(z.argmax() == y),
        }
        for row, name in enumerate(RECORDED):
            assert recorded[row, i] == pytest.approx(expected[name], abs=1e-5)
    records = np.stack([np.stack([recorded, recorded * 3])])
    np.testing.assert_allclose(el2n(records), recorded[0] * 2, rtol=1e-6)


def test_an_image_has_the_same_logits_whatever_else_is_asked_for(digits: Dataset) -> None:
    teacher = Teacher(build("convnet-d2-w16", 1, 10, 8), CPU)
    images = digits.inputs(torch.from_numpy(digits.test.images[:150]))
    together = teacher.logits(TensorInputs(images))
    for start, stop in ((0, 1), (3, 5), (70, 150), (149, 150)):
        assert torch.equal(teacher.logits(TensorInputs(images[start:stop])), together[start:stop])
    assert teacher.features(TensorInputs(images[:3])).shape == (3, 16 * 4)


@pytest.mark.parametrize("form", ["safetensors", "state_dict", "wrapped"])
def test_networks_trained_elsewhere_label(tmp_path: Path, digits: Dataset, form: str) -> None:
    network = build("convnet-d2-w8", 1, 10, 8).eval()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(network.state_dict(), path)
    elif form == "state_dict":
        torch.save(network.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    spec = TeacherSpec("teacher", "convnet-d2-w8", checkpoint=str(path), digest="d")
    store = LocalStore(tmp_path / "store")
    store_given(TrajectoryJob("t", spec, 0), digits, store, CPU)
    loaded = load_checkpoint(digits, spec, "t", None, store, CPU)
    inputs = digits.inputs(torch.from_numpy(digits.test.images[:64]))
    with torch.inference_mode():
        torch.testing.assert_close(loaded.teacher.logits(TensorInputs(inputs)), network(inputs))
    assert loaded.test_acc is not None


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.canary}",)


def test_a_malicious_checkpoint_is_refused_and_not_executed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name in ("evil.pt", "evil.safetensors"):
        with (tmp_path / name).open("wb") as file:
            pickle.dump({"weight": Evil(canary)}, file)
        with pytest.raises(InputError, match="neither safetensors nor a plain state dict"):
            read_state(str(tmp_path / name))
    torch.save({"weight": Evil(canary)}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="neither safetensors nor a plain state dict"):
        read_state(str(tmp_path / "evil.pt"))
    assert not canary.exists()


def test_weights_of_another_network_are_refused(tmp_path: Path, digits: Dataset) -> None:
    path = tmp_path / "w.safetensors"
    save_file(build("convnet-d2-w4", 1, 10, 8).state_dict(), path)
    with pytest.raises(InputError, match="are not those of convnet-d2-w8 for 10 classes"):
        load_given(TeacherSpec("t", "convnet-d2-w8", checkpoint=str(path)), digits)
