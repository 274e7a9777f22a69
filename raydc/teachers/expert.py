"""Experts: teachers that are trained here, with a checkpoint an epoch.

A trajectory is a pure function of its id. Whatever is missing (a checkpoint, the scores of an epoch)
is made by training on from the nearest kept checkpoint before it, so a kill loses little and a
longer `keep` costs only the missing epochs.

    store: checkpoint/TRAJECTORY-EPOCH  weights, optimizer, accuracies by epoch so far
           scores/TRAJECTORY-EPOCH      what that epoch says of the train part (raydc.teachers.scores)
           progress/TRAJECTORY-EPOCH    the last state of a training under way, removed at its end
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from raydc.data.array_file import read_weights
from raydc.data.dataset import Dataset, Part
from raydc.errors import ArtifactError, without_password
from raydc.networks.zoo import initialised
from raydc.spec.plan import TrajectoryJob
from raydc.spec.seeding import seed_of
from raydc.store.artifact import Artifact, Store
from raydc.teachers.scores import record
from raydc.teachers.teacher import Teacher
from raydc.training.engine import EAGER, NetworkSlot
from raydc.training.fit import fit
from raydc.training.group import ALONE, Group, synchronised
from raydc.training.inputs import Inputs, part_inputs
from raydc.training.losses import Targets
from raydc.training.metrics import measure
from raydc.training.optimizer import make_optimizer
from raydc.training.targets import StaticTargets

PROGRESS_SECONDS = 60.0
"""Least time between two saves that only guard against a kill."""

OnProgress = Callable[[int, int], None]
"""Called with (epochs done, epochs in all)."""


def checkpoint_name(trajectory: str, epoch: int) -> str:
    """Name of the checkpoint, and of the scores, after `epoch` complete epochs."""
    return f"{trajectory}-{epoch:05d}"


def missing(job: TrajectoryJob, store: Store) -> tuple[list[int], list[int]]:
    """Epochs whose checkpoint, and epochs whose scores, are asked for and not in the store."""

    def absent(kind: str, epochs: Collection[int]) -> list[int]:
        return [e for e in epochs if not store.is_intact(kind, checkpoint_name(job.id, e))]

    return absent("checkpoint", job.epochs), absent("scores", range(1, job.scored + 1))


def train_trajectory(
    dataset: Dataset,
    job: TrajectoryJob,
    store: Store,
    device: torch.device,
    on_progress: OnProgress | None = None,
    group: Group = ALONE,
) -> None:
    """Make what is missing of `job`; returns at once when nothing is.

    `group`: the processes that train it together, each of which calls this; the first one saves.
    """
    checkpoints, scores = group.agreed(missing(job, store))
    if checkpoints or scores:
        _Apprenticeship(dataset, job, store, device, on_progress, group).run(checkpoints, scores)


class _Apprenticeship:
    """One run of a trajectory from a kept state to the last epoch that is missing."""

    def __init__(
        self,
        dataset: Dataset,
        job: TrajectoryJob,
        store: Store,
        device: torch.device,
        on_progress: OnProgress | None,
        group: Group,
    ) -> None:
        self.dataset = dataset
        self.job = job
        self.store = store
        self.device = device
        self.on_progress = on_progress
        self.group = group
        self.recipe = job.teacher.recipe
        self.inputs = part_inputs(dataset, dataset.train, device)
        self.labels = torch.from_numpy(dataset.train.labels).to(device)
        self.slot = NetworkSlot(
            job.teacher.arch, dataset.channels, dataset.classes, dataset.resolution, device
        )
        self.per_epoch = self.recipe.steps_per_epoch(len(self.inputs))
        # By the work of one epoch, so that it does not matter how many are asked for.
        one_epoch = replace(self.recipe, steps=self.per_epoch, epochs=None)
        engine = self.slot.engine(one_epoch, len(self.inputs)) if group.size == 1 else EAGER
        engine = self.slot.warm(engine, one_epoch, len(self.inputs))
        self.forward = self.slot.forward(engine)
        self.tests: dict[str, Inputs] = {}
        self.history: list[dict[str, Any]] = []
        self.saved_at = time.monotonic()

    def run(self, checkpoints: list[int], scores: list[int]) -> None:
        first, last = min(checkpoints + scores), max(checkpoints + scores)
        self.slot.load(
            initialised(
                self.job.teacher.arch,
                self.dataset.channels,
                self.dataset.classes,
                self.dataset.resolution,
                "teacher",
                self.job.index,
            ).state_dict()
        )
        network = self.slot.network if self.group.size == 1 else synchronised(self.slot.network)
        optimizer = make_optimizer(self.recipe, network)
        start = self._restore(network, optimizer, first)
        if self.group.agreed(start) != start:
            raise ArtifactError(
                f"processes that train {self.job.id} together find different states in the store "
                f"{without_password(self.store.uri)}; it must be one that all of them share"
            )
        forward = self.forward if self.group.size == 1 else self.group.joined(network)

        def on_epoch(epoch: int, network: nn.Module, optimizer: Optimizer) -> None:
            if not self.group.leads:
                return
            if epoch > start:
                self._measure(epoch, network)
            if epoch in checkpoints:
                self._save("checkpoint", epoch, network, optimizer)
            elif time.monotonic() - self.saved_at > PROGRESS_SECONDS:
                self._save("progress", epoch, network, optimizer)
            if epoch in scores:
                self._score(epoch, network)
            if self.on_progress is not None:
                self.on_progress(epoch, last)

        on_epoch(start, network, optimizer)
        if last > start:
            fit(
                network,
                self.inputs,
                StaticTargets(Targets.hard(self.labels, self.dataset.classes)),
                self.recipe,
                key=seed_of("teacher views", self.job.index),
                device=self.device,
                first_step=start * self.per_epoch,
                last_step=last * self.per_epoch,
                optimizer=optimizer,
                on_epoch=on_epoch,
                forward=forward,
                group=self.group,
            )
        for name in self.store.names("progress"):
            if self.group.leads and name.startswith(self.job.id):
                self.store.remove("progress", name)

    def _restore(self, network: nn.Module, optimizer: Optimizer, first: int) -> int:
        """Load the newest kept state at or before epoch `first`; returns its epoch."""
        kept = [
            (int(name.rpartition("-")[2]), kind)
            for kind in ("progress", "checkpoint")
            for name in self.store.names(kind)
            if name.startswith(f"{self.job.id}-")
        ]
        for epoch, kind in sorted(kept, reverse=True):
            if epoch > first:
                continue
            artifact = self.store.find(kind, checkpoint_name(self.job.id, epoch))
            if artifact is not None:
                network.load_state_dict(read_weights(artifact.path("weights.safetensors")))
                _load_optimizer(optimizer, artifact)
                self.history = list(artifact.meta["history"])
                return epoch
        return 0

    def _measure(self, epoch: int, network: nn.Module) -> None:
        entry: dict[str, Any] = {"epoch": epoch}
        if self.dataset.val is not None:
            entry["val_acc"] = self._accuracy(network, "val", self.dataset.val)
        self.history.append(entry)

    def _accuracy(self, network: nn.Module, split: str, part: Part) -> float:
        inputs = self.tests.setdefault(split, part_inputs(self.dataset, part, self.device))
        labels = torch.from_numpy(part.labels).to(self.device)
        return measure(network, inputs, labels, self.dataset.classes, forward=self.forward).accuracy

    def _save(self, kind: str, epoch: int, network: nn.Module, optimizer: Optimizer) -> None:
        name = checkpoint_name(self.job.id, epoch)
        test_acc = self._accuracy(network, "test", self.dataset.test) if kind == "checkpoint" else None
        with self.store.draft(kind) as draft:
            weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
            save_file(weights, draft.path("weights.safetensors"))
            _save_optimizer(optimizer, draft.path("optimizer.safetensors"))
            draft.commit(
                name,
                arch=self.job.teacher.arch,
                epoch=epoch,
                index=self.job.index,
                test_acc=test_acc,
                val_acc=self.history[-1].get("val_acc") if self.history else None,
                history=self.history,
            )
        if kind == "progress":
            for older in self.store.names(kind):
                if older.startswith(f"{self.job.id}-") and older != name:
                    self.store.remove(kind, older)
        self.saved_at = time.monotonic()

    def _score(self, epoch: int, network: nn.Module) -> None:
        was_training = network.training
        logits = Teacher(network, self.device).logits(self.inputs)
        network.requires_grad_(True).train(was_training)
        with self.store.draft("scores") as draft:
            np.save(draft.path("record.npy"), record(logits, self.labels.cpu()))
            draft.commit(checkpoint_name(self.job.id, epoch), epoch=epoch)


def _save_optimizer(optimizer: Optimizer, path: Any) -> None:
    state = optimizer.state_dict()["state"]
    save_file(
        {
            f"{number}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
            for number, values in state.items()
            for name, value in values.items()
            if value is not None
        },
        path,
    )


def _load_optimizer(optimizer: Optimizer, artifact: Artifact) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in read_weights(artifact.path("optimizer.safetensors")).items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
