"""The workbench: holds what evaluations need and the tools that work is made with.

One workbench serves one dataset on one device. Results of work (raydc.worker.work) are written to the store
and read from there; small objects stay in memory between evaluations. It uses neither Ray nor MLflow: a
cluster runs many workbenches on one store.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from raydc.data.dataset import Dataset
from raydc.data.image_set import CompressedSet
from raydc.errors import ArtifactError
from raydc.labels.logits_file import read_logits, read_together
from raydc.labels.replayed import Replayed, check_unchanged
from raydc.labels.views import ViewLogits, segments
from raydc.spec.evaluation import Evaluation, TeacherSpec
from raydc.spec.plan import LabelPass
from raydc.store.artifact import Artifact, Store, get
from raydc.teachers.checkpoint import Loaded, load_checkpoint
from raydc.training.inputs import Inputs, part_inputs
from raydc.worker.compressor import Compressor
from raydc.worker.engines import StudentEngines
from raydc.worker.lru_cache import LruCache
from raydc.worker.relabeller import Relabeller, labelled
from raydc.worker.sets import Sets


class Labeller(Protocol):
    """Makes label passes that are not in the store yet."""

    def ensure(self, label_pass: LabelPass) -> None:
        """Wait until the logits of `label_pass` are in the store."""


class Pruner(Protocol):
    """Decides whether students are stopped early."""

    def should_continue(self, trial: int, rung: int, val_acc: float) -> bool:
        """Whether a student of the point `trial` with `val_acc` at a rung (spec.search.RUNGS) continues."""


class NopPruner:
    """A pruner that never stops a student."""

    def should_continue(self, trial: int, rung: int, val_acc: float) -> bool:
        del trial, rung, val_acc
        return True


class Workbench:
    """What evaluations on one dataset need; everything is loaded at most once."""

    def __init__(
        self,
        dataset: Dataset,
        store: Store,
        device: torch.device,
        labeller: Labeller | None = None,
    ) -> None:
        self.dataset = dataset
        self.store = store
        self.device = device
        self.labeller: Labeller = labeller if labeller is not None else self
        self.pruner: Pruner = NopPruner()
        self.sets = Sets(dataset, store, device)
        self.compressor = Compressor(dataset, store, device, self._checkpoint)
        self.relabeller = Relabeller(dataset, store, device, self.sets, self.teacher)
        self.engines = StudentEngines(dataset, device, lambda: self.test)
        self._teachers = LruCache(8)
        self._logits = LruCache(16, lambda held: held.nbytes)
        self._view_logits = LruCache(8)
        self._replayed = LruCache(4)
        self._unchanged = LruCache(64)

    # --- teachers -----------------------------------------------------------------------------

    def teacher(self, label_pass: LabelPass) -> Loaded:
        """The network of a label pass, resident on the device."""
        return self._checkpoint(label_pass.trajectory, label_pass.epoch, label_pass.teacher)

    def _checkpoint(self, trajectory: str, epoch: int | None, teacher: TeacherSpec) -> Loaded:
        return self._teachers.get(
            (trajectory, epoch),
            lambda: load_checkpoint(self.dataset, teacher, trajectory, epoch, self.store, self.device),
        )

    # --- compressed sets ----------------------------------------------------------------------

    def compressed_set(self, name: str) -> tuple[CompressedSet, Artifact]:
        """A compressed set from the store, with what was measured while it was made."""
        return self.sets.get(name)

    def set_inputs(self, name: str) -> Tensor:
        """A compressed set as network inputs [N, C, H, W] float32 on the device."""
        return self.sets.inputs(name)

    # --- labels -------------------------------------------------------------------------------

    def ensure(self, label_pass: LabelPass) -> None:
        """Label the set with the checkpoint, unless the logits are already in the store."""
        if not labelled(label_pass, self.store):
            for prediction in self.relabeller.label([label_pass]):
                self.relabeller.store(prediction)

    def logits(self, passes: tuple[LabelPass, ...]) -> tuple[Tensor, list[Artifact]]:
        """Logits [K, N, C] float32 of K label passes over one set, and their artifacts."""
        artifacts = []
        for label_pass in passes:
            self._await(label_pass)
            artifacts.append(get(self.store, "logits", label_pass.id))
        rows, classes = self.sets.count(passes[0].compressed_set), self.dataset.classes
        return self._logits.get(
            tuple(p.id for p in passes),
            lambda: torch.from_numpy(read_together((a.folder for a in artifacts), rows, classes)),
        ), artifacts

    def view_logits(
        self, passes: tuple[LabelPass, ...], images: int, steps: int
    ) -> tuple[ViewLogits, list[Artifact]]:
        """Logits of the first `steps` views of one set by K passes, and their artifacts."""
        tables = []
        for label_pass in passes:
            self._await(label_pass)
            artifacts, stop = segments(label_pass, self.store, steps)
            if stop < steps:
                raise ArtifactError(f"the labels {label_pass.id} end at step {stop} of {steps}")
            tables.append(artifacts)
        assert passes[0].views is not None
        batch_size = passes[0].views.recipe.batch_size
        # Students with the same table share it and its copy on a GPU.
        held = self._view_logits.get(
            (tuple(p.id for p in passes), steps),
            lambda: ViewLogits(tables, images, batch_size, steps, self.dataset.classes),
        )
        return held, [a for table in tables for a in table]

    def unchanged_labels(self, evaluation: Evaluation) -> None:
        """Raise `ArtifactError` if the labels at `labels.path` have changed since the plan was made."""
        path, expected = str(evaluation.point["labels.path"]), evaluation.files("labels")["path"]

        def check() -> bool:
            check_unchanged(path, expected)
            return True

        self._unchanged.get((path, expected), check)

    def replayed(self, evaluation: Evaluation, images: int) -> Replayed:
        """The views in the folder `labels.path` of `evaluation`; `InputError` if they do not match."""
        path, seed = str(evaluation.point["labels.path"]), int(evaluation.point["labels.order_seed"])
        found = self._replayed.get(
            (path, images, seed),
            lambda: Replayed(path, images, self.dataset.classes, self.dataset.resolution, seed),
        )
        found.check(evaluation.recipe, evaluation.keep_views)
        return found

    def learned(self, name: str, images: int | None = None) -> tuple[Tensor, Artifact]:
        """Learned labels [N, C] float32, and their artifact; `images`: N, if it is known."""
        artifact = get(self.store, "learned", name)
        labels = read_logits(artifact.folder, images, self.dataset.classes)
        return torch.from_numpy(np.array(labels)), artifact

    def _await(self, label_pass: LabelPass) -> None:
        if not labelled(label_pass, self.store):
            self.labeller.ensure(label_pass)

    # --- splits -------------------------------------------------------------------------------

    @cached_property
    def train(self) -> tuple[Inputs, Tensor]:
        """The train part as (inputs, labels) on the device."""
        labels = torch.from_numpy(self.dataset.train.labels).to(self.device)
        return part_inputs(self.dataset, self.dataset.train, self.device), labels

    @cached_property
    def test(self) -> tuple[Inputs, Tensor]:
        """The test split as (inputs, labels) on the device."""
        labels = torch.from_numpy(self.dataset.test.labels).to(self.device)
        return part_inputs(self.dataset, self.dataset.test, self.device), labels

    @cached_property
    def val(self) -> tuple[Inputs, Tensor] | None:
        """The validation part as (inputs, labels) on the device, if there is one."""
        if self.dataset.val is None:
            return None
        labels = torch.from_numpy(self.dataset.val.labels).to(self.device)
        return part_inputs(self.dataset, self.dataset.val, self.device), labels
