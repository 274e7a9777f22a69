"""The test pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydc.training.inputs import Inputs, batches, pad, test_batch_size
from raydc.training.optimizer import autocast, tensor_cores


@dataclass(frozen=True)
class Score:
    """Accuracy and loss of a network."""

    accuracy: float
    """Fraction in [0, 1]."""
    loss: float
    """Mean cross-entropy with the classes, in nats."""
    accuracy_by_class: tuple[float | None, ...]
    """[C] fractions; None for a class without images."""


def measure(
    network: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    classes: int,
    precision: str = "fp32",
    forward: nn.Module | None = None,
) -> Score:
    """Accuracy and loss of `network` (in eval mode) on N images with labels [N] int64.

    `forward` is called instead of `network` if given (its compiled form).
    """
    device = labels.device
    was_training = network.training
    network.eval()
    forward = network if forward is None else forward
    size = test_batch_size(device)
    with torch.inference_mode(), tensor_cores(precision), autocast(precision, device):
        # Compiled code requires a fixed shape; eager code needs no padding.
        padded = size if forward is not network else 0
        outputs = [forward(pad(batch, padded))[: len(batch)].float() for batch in batches(inputs, size)]
    network.train(was_training)
    logits = torch.cat(outputs)
    right = logits.argmax(1) == labels
    count = torch.bincount(labels, minlength=classes)
    hits = torch.bincount(labels[right], minlength=classes)
    return Score(
        accuracy=right.double().mean().item(),
        loss=F.cross_entropy(logits, labels).item(),
        accuracy_by_class=tuple(
            h / n if n else None for h, n in zip(hits.tolist(), count.tolist(), strict=True)
        ),
    )
