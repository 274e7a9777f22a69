"""Statistics of labels: entropy, confidence, calibration, mass by rank, similarity of classes, divergence.

The analyses of arXiv 2406.10485 as functions of probabilities [N, C] and classes [N].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BINS = 15
"""Bins of confidence of the calibration error (Guo et al. 2017)."""


@dataclass(frozen=True)
class LabelFacts:
    """Statistics of the labels of one compressed set."""

    entropy: float
    """Mean of -sum p log p, in nats, from 0 to log C."""
    confidence: float
    """Mean of the largest probability."""
    agreement: float
    """Fraction of labels whose largest probability is at the true class."""
    calibration_error: float
    """|agreement - confidence|, weighted over bins of confidence (expected calibration error)."""
    by_rank: Array
    """[C], mean probability at each rank, the largest first."""


def softmax(logits: NDArray[np.floating]) -> Array:
    """Probabilities of logits [N, C]."""
    shifted = np.asarray(logits, np.float64)
    powers = np.exp(shifted - shifted.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def entropy(probabilities: Array) -> Array:
    """-sum p log p of each row [N], in nats; 0 log 0 is 0."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return np.asarray(-(probabilities * logs).sum(1))


def label_facts(probabilities: Array, classes: NDArray[np.int64]) -> LabelFacts:
    """Statistics of labels [N, C] whose rows sum to one."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == classes
    return LabelFacts(
        entropy=float(entropy(probabilities).mean()),
        confidence=float(confidence.mean()),
        agreement=float(right.mean()),
        calibration_error=_calibration_error(confidence, right),
        by_rank=np.sort(probabilities, axis=1)[:, ::-1].mean(0),
    )


def _calibration_error(confidence: Array, right: NDArray[np.bool_]) -> float:
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    error = 0.0
    for number in np.unique(bins):
        inside = bins == number
        error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(error)


def similarity(probabilities: Array, classes: NDArray[np.int64]) -> Array:
    """[C, C], mean probability of the column's class for images of the row's class; NaN without images."""
    count = probabilities.shape[1]
    rows = [
        probabilities[classes == c].mean(0) if (classes == c).any() else np.full(count, np.nan)
        for c in range(count)
    ]
    return np.stack(rows)


def without_own_class(table: Array) -> Array:
    """A table of `similarity` [C, C] with NaN on the diagonal and the rest of each row scaled to sum to 1.

    A late epoch leaves little probability to the other classes; this shows how it is distributed.
    """
    others = np.array(table, np.float64)
    np.fill_diagonal(others, np.nan)
    mass = np.nansum(others, axis=1, keepdims=True)
    return np.divide(others, mass, out=np.full_like(others, np.nan), where=mass > 0)


def divergence(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Mean Jensen-Shannon divergence of the rows of two label matrices [N, C], in nats, from 0 to log 2.

    Rows are first scaled to sum to one, because learned labels need not; a row of zeros becomes uniform.
    """
    p, q = _scaled(one), _scaled(other)
    return float((entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2).mean())


def _scaled(labels: NDArray[np.floating]) -> Array:
    mass = np.sum(labels, axis=1, keepdims=True, dtype=np.float64)
    uniform = np.full(labels.shape, 1 / labels.shape[1])
    return np.divide(labels, mass, out=uniform, where=mass > 0)
