"""Scores of training images, recorded on clean images after each epoch of a scorer's training."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

RECORDED = ("el2n", "margin", "loss", "correct")
"""Rows of a record: ||softmax(z) - onehot||_2, z_y - max of the other z, cross-entropy, correct or not."""


def record(logits: Tensor, labels: Tensor) -> NDArray[np.float32]:
    """The record of one epoch: logits [N, C], labels [N] -> [4, N] float32, in the order of RECORDED."""
    one_hot = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    el2n = (logits.softmax(1) - one_hot).norm(dim=1)
    own = logits.gather(1, labels[:, None]).squeeze(1)
    other = logits.masked_fill(one_hot.bool(), -torch.inf).amax(1)
    loss = F.cross_entropy(logits, labels, reduction="none")
    correct = (logits.argmax(1) == labels).to(logits.dtype)
    return torch.stack([el2n, own - other, loss, correct]).float().cpu().numpy()


# Scores below: records [networks, epochs, 4, N] of the epochs 1 to E -> hardness [N]; larger is harder.


def el2n(records: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean error norm over the epochs and networks (arXiv 2107.07075)."""
    scores: NDArray[np.float32] = records[:, :, RECORDED.index("el2n")].mean((0, 1))
    return scores


def forgetting(records: NDArray[np.float32]) -> NDArray[np.float32]:
    """Number of times that an image changes from correct to wrong between two epochs, mean over networks.

    An image that is never classified correctly counts as E, which is more than any other can have
    (arXiv 1812.05159, where it counts as infinite).
    """
    correct = records[:, :, RECORDED.index("correct")] > 0.5
    forgotten = (correct[:, :-1] & ~correct[:, 1:]).sum(1).astype(np.float32)
    forgotten[~correct.any(1)] = correct.shape[1]
    return np.asarray(forgotten.mean(0), np.float32)


def aum(records: NDArray[np.float32]) -> NDArray[np.float32]:
    """Minus the mean over epochs and networks of the logit margin z_y - max of the others
    (arXiv 2001.10528)."""
    return np.asarray(-records[:, :, RECORDED.index("margin")].mean((0, 1)), np.float32)


def loss(records: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cross-entropy after the last of the epochs, mean over networks (arXiv 2406.10485)."""
    return np.asarray(records[:, -1, RECORDED.index("loss")].mean(0), np.float32)


CAD_EPOCHS, CAD_WINDOWS = 6, 2
"""J and W of CAD-Prune (arXiv 2604.18811)."""


def cad(records: NDArray[np.float32]) -> NDArray[np.float32]:
    """Minus CAD: the spread of softmax(z)_y over J epochs, mean of the last W windows and of networks.

    With K epochs, counted from 0, the windows begin at K - J - W to K - J - 1. It is largest for images
    that are still being learnt when the training, as long as the student's, ends; those are kept, so they
    count as easy.
    """
    probability = np.exp(-records[:, :, RECORDED.index("loss")].astype(np.float64))
    epochs = probability.shape[1]
    starts = range(epochs - CAD_EPOCHS - CAD_WINDOWS, epochs - CAD_EPOCHS)
    spreads = [probability[:, k : k + CAD_EPOCHS].std(1, ddof=1) for k in starts]
    return np.asarray(-np.mean(spreads, axis=(0, 1)), np.float32)
