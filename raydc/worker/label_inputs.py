"""The inputs of an evaluation's label kind, taken from a workbench."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from raydc.errors import EvaluationError
from raydc.labels.inputs import LabelCost
from raydc.labels.replayed import Replayed
from raydc.labels.soft_label_file import read_soft_labels
from raydc.labels.views import ViewLogits
from raydc.spec.plan import Planned
from raydc.store.artifact import Artifact
from raydc.worker.workbench import Workbench

T = TypeVar("T")


class BenchInputs:
    """`raydc.labels.inputs.LabelInputs` for `planned`; raises `EvaluationError` for an undeclared need."""

    def __init__(self, planned: Planned, bench: Workbench) -> None:
        self._planned = planned
        self._bench = bench
        self._set, _ = bench.compressed_set(planned.compressed_set)
        self.labels = torch.from_numpy(self._set.labels)
        self.classes = bench.dataset.classes

    def logits(self) -> tuple[Tensor, LabelCost]:
        self._declared("logits")
        return _awaited(lambda: self._bench.logits(self._planned.passes))

    def view_logits(self) -> tuple[ViewLogits, LabelCost]:
        self._declared("view_logits")
        images, steps = len(self._set), self._distinct_steps
        return _awaited(lambda: self._bench.view_logits(self._planned.passes, images, steps))

    def soft_labels(self) -> Tensor:
        self._declared("soft_labels")
        evaluation = self._planned.evaluation
        if (path := evaluation.point.get("labels.path")) is not None:
            self._bench.unchanged_labels(evaluation)
            return read_soft_labels(str(path), len(self._set), self.classes)
        if self._set.soft_labels is None:
            raise EvaluationError("the compressed set has no soft labels; choose another labels.kind")
        return torch.from_numpy(self._set.soft_labels)

    def labelled_views(self) -> tuple[Replayed, int]:
        self._declared("labelled_views")
        evaluation = self._planned.evaluation
        self._bench.unchanged_labels(evaluation)
        replayed = self._bench.replayed(evaluation, len(self._set))
        return replayed, replayed.rows(self._distinct_steps)

    def learned(self) -> tuple[Tensor, LabelCost]:
        self._declared("learned")
        assert self._planned.learned is not None
        labels, artifact = self._bench.learned(self._planned.learned, len(self._set))
        return labels, LabelCost(seconds=float(artifact.noted("seconds")))

    @property
    def _distinct_steps(self) -> int:
        evaluation = self._planned.evaluation
        return evaluation.recipe.distinct_steps(len(self._set), evaluation.keep_views)

    def _declared(self, need: str) -> None:
        """Raise `EvaluationError` for a need that the kind does not declare, as it was not planned for."""
        evaluation = self._planned.evaluation
        if need not in evaluation.label_needs:
            raise EvaluationError(
                f"the label kind {evaluation.point['labels.kind']!r} asks for {need}, but its entry does not "
                f"declare it; add Need({need!r}) to its needs"
            )


def _awaited(take: Callable[[], tuple[T, Sequence[Artifact]]]) -> tuple[T, LabelCost]:
    """The content of label passes, and its cost, after waiting for them."""
    start = time.perf_counter()
    labels, artifacts = take()
    waited = time.perf_counter() - start
    known = [a for artifact in artifacts if (a := artifact.noted("teacher_test_acc")) is not None]
    return labels, LabelCost(
        seconds=sum(float(artifact.noted("seconds")) for artifact in artifacts),
        wait_seconds=waited,
        teacher_test_acc=sum(known) / len(known) if known else None,
    )
