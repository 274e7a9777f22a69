"""Scores of training images, recorded on clean images after each epoch of a scorer's training."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

RECORDED = ("el2n", "margin", "loss", "correct")
"""Rows of a record: ||softmax(z) - onehot||_2, z_y - max of the other z, cross-entropy, right or not."""


def record(logits: Tensor, labels: Tensor) -> NDArray[np.float32]:
    """What is kept of one epoch: logits [N, C], labels [N] -> [4, N] float32, in RECORDED's order."""
    one_hot = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    el2n = (logits.softmax(1) - one_hot).norm(dim=1)
    own = logits.gather(1, labels[:, None]).squeeze(1)
    other = logits.masked_fill(one_hot.bool(), -torch.inf).amax(1)
    loss = F.cross_entropy(logits, labels, reduction="none")
    correct = (logits.argmax(1) == labels).to(logits.dtype)
    return torch.stack([el2n, own - other, loss, correct]).float().cpu().numpy()


def el2n(records: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean error norm: records [networks, epochs, 4, N] -> [N]."""
    scores: NDArray[np.float32] = records[:, :, RECORDED.index("el2n")].mean((0, 1))
    return scores
