"""An evaluation with everything that its student needs: images, labels, views, initial weights."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raydc.augmentation.views import Views
from raydc.labels.inputs import LabelInputs, LabelOutputs
from raydc.labels.replayed import ReplayedViews
from raydc.networks.zoo import initialised
from raydc.spec import catalog
from raydc.spec.code import check_code, code_of
from raydc.spec.evaluation import Recipe
from raydc.spec.plan import Planned
from raydc.spec.search import RUNGS, WHOLE
from raydc.spec.seeding import seed_of
from raydc.training.inputs import TensorInputs
from raydc.worker.label_inputs import BenchInputs
from raydc.worker.workbench import Workbench


@dataclass(frozen=True)
class Prepared:
    """An evaluation with everything that its student needs, on the device."""

    planned: Planned
    inputs: TensorInputs
    """The compressed set as network inputs."""
    classes: Tensor
    """[N] int64, class of each image."""
    labels: LabelOutputs
    grid: tuple[int, int]
    """Rows and columns of tiles in an image."""
    images_bytes: int
    images_seconds: float
    setup_seconds: float
    """Time that the preparation took, without waiting for labels."""

    @property
    def recipe(self) -> Recipe:
        return self.planned.evaluation.recipe

    @property
    def pool(self) -> int:
        """Number of distinct views."""
        return self.recipe.distinct_steps(len(self.inputs), self.planned.evaluation.keep_views)

    def views(self, device: torch.device) -> Views:
        """The views of the training."""
        if (replayed := self.labels.replayed) is not None:
            return ReplayedViews(replayed, self.recipe, self.view_key, device, self.pool)
        return Views(self.recipe, len(self.inputs), self.view_key, device, self.pool, self.grid)

    @property
    def view_key(self) -> int:
        """Seed of the views."""
        return seed_of("student views", self.planned.evaluation.view_seed)

    @property
    def tests(self) -> int:
        """Number of test passes of the student, without those of a pruner."""
        if not self.planned.tested:
            return 0
        images, every = len(self.inputs), self.recipe.test_every
        epochs = self.recipe.total_steps(images) // self.recipe.steps_per_epoch(images)
        return 1 + (0 if every is None else epochs // every)

    @property
    def examined(self) -> bool:
        """Whether the student may be tested or pruned before its last step."""
        return self.planned.prunable or bool(self.planned.tested and self.recipe.test_every)

    def examined_at(self, epochs: int) -> bool:
        """Whether the student is tested or may be pruned after `epochs` epochs."""
        return self.tested_at(epochs) or self.pruned_at(epochs)

    def tested_at(self, epochs: int) -> bool:
        """Whether an extra test is due after `epochs` epochs."""
        every = self.recipe.test_every
        return self.planned.tested and every is not None and epochs % every == 0

    def pruned_at(self, epochs: int) -> bool:
        """Whether the pruner is called after `epochs` epochs, the first of a rung but not the last of all."""
        if not self.planned.prunable or self.rung(epochs) == self.rung(epochs - 1):
            return False
        images = len(self.inputs)
        return epochs * self.recipe.steps_per_epoch(images) < self.recipe.total_steps(images)

    def rung(self, epochs: int) -> int:
        """The highest rung reached after `epochs` epochs; 0 if none."""
        images = len(self.inputs)
        done, total = epochs * self.recipe.steps_per_epoch(images), self.recipe.total_steps(images)
        return max((rung for rung in RUNGS if WHOLE * done >= rung * total), default=0)


def prepare(planned: Planned, bench: Workbench) -> Prepared:
    """Read what `planned` needs (compressed set, logits) from the bench's store.

    Raises `ArtifactError` if something is missing or damaged, `EvaluationError` if it does not fit or its
    plugins were edited.
    """
    check_code(planned.evaluation.code, code_of(planned.evaluation.point))
    began = time.perf_counter()
    compressed, made = bench.compressed_set(planned.compressed_set)
    inputs = TensorInputs(bench.set_inputs(planned.compressed_set))
    labels = _labels(planned, bench)
    return Prepared(
        planned=planned,
        inputs=inputs,
        classes=torch.from_numpy(compressed.labels).to(bench.device),
        labels=labels,
        grid=compressed.grid,
        images_bytes=compressed.images_bytes,
        images_seconds=made.meta["seconds"],
        setup_seconds=time.perf_counter() - began - labels.cost.wait_seconds,
    )


def new_student(planned: Planned, bench: Workbench) -> dict[str, Tensor]:
    """Initial weights and buffers of the student."""
    data, evaluation = bench.dataset, planned.evaluation
    network = initialised(
        evaluation.arch, data.channels, data.classes, data.resolution, "student", evaluation.seed
    )
    return network.state_dict()


def _labels(planned: Planned, bench: Workbench) -> LabelOutputs:
    """Labels of `planned`, with targets on the bench's device."""
    point = planned.evaluation.point
    kind = catalog.LABELS[str(point["labels.kind"])]
    inputs: LabelInputs = BenchInputs(planned, bench)
    labels: LabelOutputs = kind.load()(inputs, **kind.arguments(point))
    return replace(labels, source=labels.source.to(bench.device))
