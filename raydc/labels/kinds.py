"""Label kinds, one function each: from the inputs of an evaluation to targets and their cost.

The entries of `raydc.spec.label_kinds` name these functions, their keyword arguments and what they need.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from raydc.labels import codecs, transforms
from raydc.labels.fkd import METADATA_BYTES
from raydc.labels.inputs import LabelCost, LabelInputs, LabelOutputs
from raydc.labels.softening import Softening
from raydc.labels.view_targets import TeacherViewTargets, ViewTargets
from raydc.training.losses import Targets
from raydc.training.targets import StaticTargets


def hard(inputs: LabelInputs) -> LabelOutputs:
    """The class of each image; 1 byte up to 256 classes, 2 beyond."""
    one_hot = _one_hot(inputs)
    size = len(one_hot) * codecs.hard_bytes(inputs.classes)
    return LabelOutputs(StaticTargets(Targets(one_hot, one_hot)), size)


def smooth(inputs: LabelInputs, *, smoothing: float) -> LabelOutputs:
    """(1 - s) onehot + s / C; stored as a class number, because s and C are known."""
    one_hot = _one_hot(inputs)
    probabilities = one_hot * (1 - smoothing) + smoothing / inputs.classes
    size = len(one_hot) * codecs.hard_bytes(inputs.classes)
    return LabelOutputs(StaticTargets(Targets(probabilities, one_hot)), size)


def stored(inputs: LabelInputs) -> LabelOutputs:
    """Probabilities of the set or of a file, stored as fp16; rows need not sum to one."""
    return _fp16(inputs, inputs.soft_labels(), LabelCost())


def learned(inputs: LabelInputs) -> LabelOutputs:
    """Labels learned through the student's training (raydc.labels.learned), stored as fp16."""
    return _fp16(inputs, *inputs.learned())


def soft(inputs: LabelInputs, **keys: Any) -> LabelOutputs:
    """One fixed vector per image: softmax of the mean logits over T, then transforms; keys: `Softening`."""
    softening = Softening(**keys)
    logits, cost = inputs.logits()
    codecs.check(softening.codec, codecs.size_of(transforms.ensemble(logits)))
    probabilities, stored_logits = softening(logits, inputs.labels)
    targets = Targets(probabilities, _one_hot(inputs), stored_logits, softening.temperature)
    size = len(inputs.labels) * softening.record_bytes(inputs.classes)
    return LabelOutputs(StaticTargets(targets), size, cost)


def per_view(inputs: LabelInputs, **keys: Any) -> LabelOutputs:
    """A vector for every view of every image (FKD, RDED, arXiv 2502.06434); keys: `Softening`.

    A view's geometry follows from its seed, so it needs no storage.
    """
    softening = Softening(**keys)
    views, cost = inputs.view_logits()
    codecs.check(softening.codec, views.size)
    size = views.rows * softening.record_bytes(inputs.classes)
    return LabelOutputs(ViewTargets(views, inputs.labels, _one_hot(inputs), softening), size, cost)


def fkd(inputs: LabelInputs, **keys: Any) -> LabelOutputs:
    """Third-party logits stored with their views in FKD's format; keys: `Softening`."""
    softening = Softening(**keys)
    replayed, rows = inputs.labelled_views()
    source = TeacherViewTargets(replayed, inputs.labels, _one_hot(inputs), softening)
    size = rows * (softening.record_bytes(inputs.classes) + METADATA_BYTES)
    return LabelOutputs(source, size, replayed=replayed)


def _one_hot(inputs: LabelInputs) -> Tensor:
    """Classes of the images, [N, C] float32."""
    return Targets.hard(inputs.labels, inputs.classes).classes


def _fp16(inputs: LabelInputs, probabilities: Tensor, cost: LabelCost) -> LabelOutputs:
    """Targets from probabilities [N, C], rounded to fp16."""
    targets = Targets(probabilities.half().float(), _one_hot(inputs))
    size = len(inputs.labels) * codecs.record_bytes("fp16", inputs.classes)
    return LabelOutputs(StaticTargets(targets), size, cost)
