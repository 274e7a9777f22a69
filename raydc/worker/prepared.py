"""An evaluation with everything that its student needs: images, labels, views, initial weights."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raydc.augmentation.views import Views
from raydc.labels.kinds import LabelInputs, LabelOutputs
from raydc.labels.replayed import Replayed, ReplayedViews
from raydc.labels.soft_label_file import read_soft_labels
from raydc.networks.zoo import initialised
from raydc.spec import catalog
from raydc.spec.evaluation import Recipe
from raydc.spec.plan import Planned
from raydc.spec.search import RUNGS, WHOLE
from raydc.spec.seeding import seed_of
from raydc.training.inputs import TensorInputs
from raydc.worker.workbench import Workbench

WHOSE = ("teacher", "teacher_epoch", "ensemble", "path", "order_seed", "keep_views")
"""Keys of `labels` that say whose labels are met, and which; the others say how."""


@dataclass(frozen=True)
class Prepared:
    """An evaluation with everything that its student needs, on the device."""

    planned: Planned
    inputs: TensorInputs
    """The compressed set as network inputs."""
    classes: Tensor
    """[N] int64, class of each image."""
    labels: LabelOutputs
    replayed: Replayed | None
    """Views of others, where the labels are theirs."""
    teacher_test_acc: float | None
    grid: tuple[int, int]
    """Rows and columns of tiles in an image."""
    images_bytes: int
    images_seconds: float
    labels_seconds: float
    wait_seconds: float
    setup_seconds: float
    """What this took, without waiting for labels."""

    @property
    def recipe(self) -> Recipe:
        return self.planned.evaluation.recipe

    @property
    def pool(self) -> int:
        """Views that differ."""
        return self.recipe.distinct_steps(len(self.inputs), self.planned.evaluation.keep_views)

    def views(self, device: torch.device) -> Views:
        """The views of the training."""
        if self.replayed is not None:
            return ReplayedViews(self.replayed, self.recipe, self.view_key, device, self.pool)
        return Views(self.recipe, len(self.inputs), self.view_key, device, self.pool, self.grid)

    @property
    def view_key(self) -> int:
        """Seed of the views."""
        return seed_of("student views", self.planned.evaluation.view_seed)

    @property
    def tests(self) -> int:
        """Test passes of the student, beside those of a scheduler."""
        if not self.planned.tested:
            return 0
        images, every = len(self.inputs), self.recipe.test_every
        epochs = self.recipe.total_steps(images) // self.recipe.steps_per_epoch(images)
        return 1 + (0 if every is None else epochs // every)

    @property
    def examined(self) -> bool:
        """Whether anybody may look at the student before its end."""
        return self.planned.prunable or bool(self.planned.tested and self.recipe.test_every)

    def examined_at(self, epochs: int) -> bool:
        """Whether anybody looks after so many epochs."""
        return self.looked_at(epochs) or self.pruned_at(epochs)

    def looked_at(self, epochs: int) -> bool:
        """Whether an extra test is due after so many epochs."""
        every = self.recipe.test_every
        return self.planned.tested and every is not None and epochs % every == 0

    def pruned_at(self, epochs: int) -> bool:
        """Whether the scheduler looks after so many epochs: the first that reach a rung, but the last."""
        if not self.planned.prunable or self.rung(epochs) == self.rung(epochs - 1):
            return False
        images = len(self.inputs)
        return epochs * self.recipe.steps_per_epoch(images) < self.recipe.total_steps(images)

    def rung(self, epochs: int) -> int:
        """The highest rung that so many epochs reach; 0 for none."""
        images = len(self.inputs)
        done, total = epochs * self.recipe.steps_per_epoch(images), self.recipe.total_steps(images)
        return max((rung for rung in RUNGS if WHOLE * done >= rung * total), default=0)


def prepare(planned: Planned, bench: Workbench) -> Prepared:
    """Take what `planned` waits for (compressed set, logits) from the bench's store.

    Raises `ArtifactError` if something is missing or damaged, `EvaluationError` if it does not fit.
    """
    began = time.perf_counter()
    compressed, made = bench.compressed_set(planned.compressed_set)
    inputs = TensorInputs(bench.set_inputs(planned.compressed_set))
    labels, waited, labels_seconds, teacher_test_acc = _labels(planned, bench)
    labels = replace(labels, source=labels.source.to(bench.device))
    return Prepared(
        planned=planned,
        inputs=inputs,
        classes=torch.from_numpy(compressed.labels).to(bench.device),
        labels=labels,
        replayed=bench.replayed(planned.evaluation, len(inputs)),
        teacher_test_acc=teacher_test_acc,
        grid=compressed.grid,
        images_bytes=compressed.images_bytes,
        images_seconds=made.meta["seconds"],
        labels_seconds=labels_seconds,
        wait_seconds=waited,
        setup_seconds=time.perf_counter() - began - waited,
    )


def new_student(planned: Planned, bench: Workbench) -> dict[str, Tensor]:
    """Initial weights and buffers of the student."""
    data, evaluation = bench.dataset, planned.evaluation
    network = initialised(
        evaluation.arch, data.channels, data.classes, data.resolution, "student", evaluation.seed
    )
    return network.state_dict()


def _labels(planned: Planned, bench: Workbench) -> tuple[LabelOutputs, float, float, float | None]:
    """(targets, seconds waited for them, seconds they took to make, the teachers' test accuracy)."""
    evaluation = planned.evaluation
    compressed, _ = bench.compressed_set(planned.compressed_set)
    kind = catalog.LABELS[str(evaluation.point["labels.kind"])]
    given = evaluation.block("labels")
    names = {key.name.removeprefix("labels.") for key in kind.keys if not kind.learnt}
    keys = {n: v for n, v in given.items() if n in names and n not in WHOSE}
    brought = None if compressed.soft_labels is None else torch.from_numpy(compressed.soft_labels)
    inputs = LabelInputs(torch.from_numpy(compressed.labels), bench.dataset.classes, brought=brought)
    waited = made = 0.0
    accuracy = None
    if planned.learned is not None:
        labels, artifact = bench.learned(planned.learned, len(inputs.labels))
        return kind.load()(replace(inputs, brought=labels)), 0.0, float(artifact.noted("seconds")), None
    if "path" in given:
        bench.unchanged_labels(evaluation)
    if kind.brought and "path" in given:
        labels = read_soft_labels(str(given["path"]), len(compressed), inputs.classes)
        inputs = replace(inputs, brought=labels)
    if (replayed := bench.replayed(evaluation, len(compressed))) is not None:
        steps = evaluation.recipe.distinct_steps(len(compressed), evaluation.keep_views)
        inputs = replace(inputs, replayed=replayed, replayed_rows=replayed.rows(steps))
    if planned.passes:
        start = time.perf_counter()
        if kind.views:
            steps = evaluation.recipe.distinct_steps(len(inputs.labels), evaluation.keep_views)
            views, artifacts = bench.view_logits(planned.passes, len(inputs.labels), steps)
            inputs = replace(inputs, views=views)
        else:
            logits, artifacts = bench.logits(planned.passes)
            inputs = replace(inputs, logits=logits)
        waited = time.perf_counter() - start
        made = sum(float(artifact.noted("seconds")) for artifact in artifacts)
        known = [a for artifact in artifacts if (a := artifact.noted("teacher_test_acc")) is not None]
        accuracy = sum(known) / len(known) if known else None
    return kind.load()(inputs, **keys), waited, made, accuracy
