"""Experts: teachers that are trained here, with a checkpoint per epoch.

A trajectory is a pure function of its id. Anything missing (a checkpoint, the scores of an epoch) is made by
resuming from the nearest stored checkpoint before it, so a kill loses little and a longer `keep` costs only
the missing epochs.

    store: checkpoint/TRAJECTORY-EPOCH  weights, optimizer, accuracies by epoch so far
           scores/TRAJECTORY-EPOCH      scores of the train part after that epoch (raydc.teachers.scores)
           progress/TRAJECTORY-EPOCH    states of a training under way (raydc.store.saved)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from raydc.store.saved import OnProgress, Saved
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


def checkpoint_name(trajectory: str, epoch: int) -> str:
    """Name of the checkpoint, and of the scores, after `epoch` complete epochs."""
    return f"{trajectory}-{epoch:05d}"


def missing(job: TrajectoryJob, store: Store) -> tuple[list[int], list[int]]:
    """(epochs whose checkpoint, epochs whose scores) are requested and not in the store."""

    def absent(kind: str, epochs: Collection[int]) -> list[int]:
        return [e for e in epochs if not store.is_intact(kind, checkpoint_name(job.id, e))]

    return absent("checkpoint", job.epochs), absent("scores", range(1, job.scored + 1))


def train_trajectory(
    dataset: Dataset,
    job: TrajectoryJob,
    store: Store,
    device: torch.device,
    saved: Saved,
    on_progress: OnProgress | None = None,
    group: Group = ALONE,
) -> None:
    """Make the missing checkpoints and scores of `job`; returns at once if there are none.

    `saved` holds its intermediate states; `on_progress` is called with (epochs done, epochs in total).
    `group`: the processes that train it together, each of which calls this function; the first one saves.
    """
    checkpoints, scores = group.agreed(missing(job, store))
    if checkpoints or scores:
        _Training(dataset, job, store, device, saved, on_progress, group).run(checkpoints, scores)


class _Training:
    """One run of a trajectory from a stored state to the last missing epoch."""

    def __init__(
        self,
        dataset: Dataset,
        job: TrajectoryJob,
        store: Store,
        device: torch.device,
        saved: Saved,
        on_progress: OnProgress | None,
        group: Group,
    ) -> None:
        self.dataset = dataset
        self.job = job
        self.store = store
        self.device = device
        self.saved = saved
        self.on_progress = on_progress
        self.group = group
        self.recipe = job.teacher.recipe
        self.inputs = part_inputs(dataset, dataset.train, device)
        self.labels = torch.from_numpy(dataset.train.labels).to(device)
        self.slot = NetworkSlot(
            job.teacher.arch, dataset.channels, dataset.classes, dataset.resolution, device
        )
        self.per_epoch = self.recipe.steps_per_epoch(len(self.inputs))
        # Decided by the work of one epoch, so that it does not depend on the number of epochs.
        one_epoch = replace(self.recipe, steps=self.per_epoch, epochs=None)
        engine = self.slot.engine(one_epoch, len(self.inputs)) if group.size == 1 else EAGER
        engine = self.slot.warm(engine, one_epoch, len(self.inputs))
        self.forward = self.slot.forward(engine)
        self.tests: dict[str, Inputs] = {}
        self.history: list[dict[str, Any]] = []

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
                f"processes that train {self.job.id} together read different states from the store "
                f"{without_password(self.store.uri)}; use a store that all of them share"
            )
        forward = self.forward if self.group.size == 1 else self.group.joined(network)

        def on_epoch(epoch: int, network: nn.Module, optimizer: Optimizer) -> None:
            if not self.group.leads:
                return
            if epoch > start:
                self._measure(epoch, network)
            if epoch in checkpoints:
                self._keep(epoch, network, optimizer)
            elif self.saved.due:
                tensors = {f"weights.{n}": v for n, v in network.state_dict().items()}
                tensors |= {f"optimizer.{n}": v for n, v in _optimizer_state(optimizer).items()}
                self.saved.save(epoch, tensors, history=self.history)
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

    def _restore(self, network: nn.Module, optimizer: Optimizer, first: int) -> int:
        """Load the newest checkpoint or saved state at or before epoch `first`; returns its epoch."""
        state = self.saved.newest(at_most=first)
        names = (n.rpartition("-") for n in self.store.names("checkpoint") if n.startswith(f"{self.job.id}-"))
        for epoch in sorted((int(number) for _, _, number in names), reverse=True):
            if epoch > first:
                continue
            if state is not None and epoch <= state.step:
                break
            artifact = self.store.find("checkpoint", checkpoint_name(self.job.id, epoch))
            if artifact is not None:
                self._load(network, optimizer, _weights_of(artifact), artifact.meta)
                return epoch
        if state is None:
            return 0
        self._load(network, optimizer, state.tensors, state.meta)
        return state.step

    def _load(
        self, network: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
    ) -> None:
        network.load_state_dict(_below("weights", tensors))
        _load_optimizer(optimizer, _below("optimizer", tensors))
        self.history = list(meta["history"])

    def _measure(self, epoch: int, network: nn.Module) -> None:
        entry: dict[str, Any] = {"epoch": epoch}
        if self.dataset.val is not None:
            entry["val_acc"] = self._accuracy(network, "val", self.dataset.val)
        self.history.append(entry)

    def _accuracy(self, network: nn.Module, split: str, part: Part) -> float:
        inputs = self.tests.setdefault(split, part_inputs(self.dataset, part, self.device))
        labels = torch.from_numpy(part.labels).to(self.device)
        return measure(network, inputs, labels, self.dataset.classes, forward=self.forward).accuracy

    def _keep(self, epoch: int, network: nn.Module, optimizer: Optimizer) -> None:
        """Store the checkpoint of an epoch."""
        test_acc = self._accuracy(network, "test", self.dataset.test)
        with self.store.draft("checkpoint") as draft:
            weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
            save_file(weights, draft.path("weights.safetensors"))
            save_file(_optimizer_state(optimizer), draft.path("optimizer.safetensors"))
            draft.commit(
                checkpoint_name(self.job.id, epoch),
                arch=self.job.teacher.arch,
                epoch=epoch,
                index=self.job.index,
                test_acc=test_acc,
                val_acc=self.history[-1].get("val_acc") if self.history else None,
                history=self.history,
            )
        self.saved.postpone()

    def _score(self, epoch: int, network: nn.Module) -> None:
        was_training = network.training
        logits = Teacher(network, self.device).logits(self.inputs)
        network.requires_grad_(True).train(was_training)
        with self.store.draft("scores") as draft:
            np.save(draft.path("record.npy"), record(logits, self.labels.cpu()))
            draft.commit(checkpoint_name(self.job.id, epoch), epoch=epoch)


def _optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state of each parameter: CPU tensors by `NUMBER.NAME`."""
    return {
        f"{number}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }


def _load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _weights_of(checkpoint: Artifact) -> dict[str, Tensor]:
    """The weights and the optimizer's state of a checkpoint, named as in a saved state."""
    return {
        f"{part}.{name}": value
        for part in ("weights", "optimizer")
        for name, value in read_weights(checkpoint.path(f"{part}.safetensors")).items()
    }


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in tensors.items()
        if name.startswith(f"{prefix}.")
    }
