"""Kinds of labels: from a compressed set and its logits to targets and their stored size."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from raydc.labels import codecs, transforms
from raydc.training.losses import Targets


@dataclass(frozen=True)
class LabelInputs:
    """What labels are made of."""

    labels: Tensor
    """[N] int64, class of each image."""
    classes: int
    """Number of classes."""
    logits: Tensor | None = None
    """[K, N, C] float32, logits of the K networks that label, where a teacher does."""


@dataclass(frozen=True)
class LabelOutputs:
    """Targets of a compressed set and what they take to store."""

    targets: Targets
    labels_bytes: int


def hard(inputs: LabelInputs) -> LabelOutputs:
    """The class of each image; 1 byte up to 256 classes, 2 beyond."""
    size = len(inputs.labels) * codecs.hard_bytes(inputs.classes)
    return LabelOutputs(Targets.hard(inputs.labels, inputs.classes), size)


def soft(
    inputs: LabelInputs,
    *,
    temperature: float,
    codec: str = "fp16",
    drop_class: int | None = None,
    swap_rank: int | None = None,
    top_k: int | None = None,
    renormalise: bool = False,
) -> LabelOutputs:
    """One fixed vector an image: softmax of the mean logits over T, then the transforms."""
    assert inputs.logits is not None, "soft labels need logits"
    logits = codecs.round_trip(transforms.ensemble(inputs.logits), codec)
    probabilities = transforms.soften(logits, temperature)
    if drop_class is not None:
        probabilities = transforms.drop_class(probabilities, inputs.labels, drop_class)
    if swap_rank is not None:
        probabilities = transforms.swap_rank(probabilities, swap_rank)
    if top_k is not None:
        probabilities = transforms.top_k(probabilities, top_k)
    if renormalise:
        probabilities = transforms.renormalise(probabilities)
    one_hot = Targets.hard(inputs.labels, inputs.classes).classes
    size = len(logits) * codecs.record_bytes(codec, inputs.classes, top_k)
    return LabelOutputs(Targets(probabilities, one_hot, logits, temperature), size)
