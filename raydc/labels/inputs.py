"""What a kind of labels is given, and what it returns.

    kind.load()(inputs: LabelInputs, **kind.arguments(point)) -> LabelOutputs

Each method of `LabelInputs` stands for one of `raydc.spec.entries.NEEDS`. A kind may call those that its
entry declares; only these are planned for.
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
    """What labels cost beside their bytes."""

    seconds: float = 0.0
    """What it took to make them, at whatever time; labels that are shared count in full."""
    wait_seconds: float = 0.0
    """How long this evaluation waited for them."""
    teacher_test_acc: float | None = None
    """Mean test accuracy of the networks that label, in [0, 1], where it is known."""


class LabelInputs(Protocol):
    """What labels of one evaluation are made of. Tensors are on the CPU.

    A method raises `EvaluationError` or `ArtifactError` if what it stands for is not there or damaged, and
    `InputError` if a file does not fit the set.
    """

    @property
    def labels(self) -> Tensor:
        """[N] int64, class of each image of the compressed set."""

    @property
    def classes(self) -> int:
        """C, number of classes of the dataset."""

    def logits(self) -> tuple[Tensor, LabelCost]:
        """Logits [K, N, C] float32 of the set's images by the K networks that label; waits for them."""

    def view_logits(self) -> tuple[ViewLogits, LabelCost]:
        """Logits of every view that the student meets, by the K networks that label; waits for them."""

    def soft_labels(self) -> Tensor:
        """Probabilities [N, C] float32 of the file `labels.path`, or of the set; rows need not sum to 1."""

    def labelled_views(self) -> tuple[Replayed, int]:
        """The views in the folder `labels.path`, and how many (view, image) pairs the student meets."""

    def learned(self) -> tuple[Tensor, LabelCost]:
        """Labels [N, C] float32 that were learned for the set, at least 0."""


@dataclass(frozen=True)
class LabelOutputs:
    """Targets of a compressed set, and what they cost."""

    source: TargetSource
    labels_bytes: int
    """What the labels take to store, in bytes."""
    cost: LabelCost = LabelCost()
    replayed: Replayed | None = None
    """Views that replace those of the recipe, where labels are of such."""
