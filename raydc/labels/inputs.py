"""The inputs and outputs of a label kind.

    kind.load()(inputs: LabelInputs, **kind.arguments(point)) -> LabelOutputs

Each method of `LabelInputs` corresponds to one of `raydc.spec.entries.NEEDS`. A kind may only call the
methods that its entry declares, because only these are planned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from raydc.labels.replayed import Replayed
from raydc.labels.views import ViewLogits
from raydc.training.targets import TargetSource


@dataclass(frozen=True)
class LabelCost:
    """Cost of labels, apart from their bytes."""

    seconds: float = 0.0
    """Seconds that it took to make them, in this run or an earlier one; shared labels count in full."""
    wait_seconds: float = 0.0
    """Seconds that this evaluation waited for them."""
    teacher_test_acc: float | None = None
    """Mean test accuracy of the labelling networks, in [0, 1]; None if it is not known."""


class LabelInputs(Protocol):
    """Inputs from which the labels of one evaluation are made. Tensors are on the CPU.

    A method raises `EvaluationError` or `ArtifactError` if its input is missing or damaged, and `InputError`
    if a file does not match the set.
    """

    @property
    def labels(self) -> Tensor:
        """[N] int64, class of each image of the compressed set."""

    @property
    def classes(self) -> int:
        """C, number of classes of the dataset."""

    def logits(self) -> tuple[Tensor, LabelCost]:
        """Logits [K, N, C] float32 of the K labelling networks for the set's images; waits for them."""

    def view_logits(self) -> tuple[ViewLogits, LabelCost]:
        """Logits of the K labelling networks for every view that the student uses; waits for them."""

    def soft_labels(self) -> Tensor:
        """Probabilities [N, C] float32 of the file `labels.path`, or of the set; rows need not sum to 1."""

    def labelled_views(self) -> tuple[Replayed, int]:
        """The views in the folder `labels.path`, and the number of (view, image) pairs that the student
        uses."""

    def learned(self) -> tuple[Tensor, LabelCost]:
        """Labels [N, C] float32 that were learned for the set, at least 0."""


@dataclass(frozen=True)
class LabelOutputs:
    """Targets of a compressed set, and their cost."""

    source: TargetSource
    labels_bytes: int
    """Storage size of the labels, in bytes."""
    cost: LabelCost = LabelCost()
    replayed: Replayed | None = None
    """Views that replace those of the recipe, if the labels are of stored views."""
