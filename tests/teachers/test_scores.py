"""Scores: each against a slow reference written from its published formula."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from raydc.spec import catalog
from raydc.teachers.scores import record

EPOCHS, IMAGES, CLASSES = 12, 9, 4


@pytest.fixture
def said() -> tuple[np.ndarray, np.ndarray]:
    """(logits [networks, epochs, N, C], labels [N]) of two short trainings."""
    generator = np.random.default_rng(3)
    return generator.standard_normal((2, EPOCHS, IMAGES, CLASSES)) * 3, np.arange(IMAGES) % CLASSES


def hardness(name: str, said: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    logits, labels = said
    records = np.stack(
        [
            np.stack([record(torch.from_numpy(z).float(), torch.from_numpy(labels)) for z in network])
            for network in logits
        ]
    )
    score = catalog.SCORES[name]
    return score.load()(records[:, : score.epochs])


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z - z.max()) / np.exp(z - z.max()).sum()


def el2n(z: np.ndarray, y: int) -> float:
    """z: [networks, epochs, C]."""
    norms = [np.linalg.norm(softmax(row) - np.eye(CLASSES)[y]) for net in z for row in net[:10]]
    return float(np.mean(norms))


def forgetting(z: np.ndarray, y: int) -> float:
    counts = []
    for net in z:
        right = [int(np.argmax(row)) == y for row in net]
        lost = sum(a and not b for a, b in pairwise(right))
        counts.append(lost if any(right) else len(right))
    return float(np.mean(counts))


def aum(z: np.ndarray, y: int) -> float:
    margins = [row[y] - max(row[c] for c in range(CLASSES) if c != y) for net in z for row in net]
    return -float(np.mean(margins))


def loss(z: np.ndarray, y: int) -> float:
    return float(np.mean([-math.log(softmax(net[-1])[y]) for net in z]))


def cad(z: np.ndarray, y: int) -> float:
    values = []
    for net in z:
        p = [softmax(row)[y] for row in net]
        windows = [np.std(p[k : k + 6], ddof=1) for k in (EPOCHS - 8, EPOCHS - 7)]
        values.append(np.mean(windows))
    return -float(np.mean(values))


REFERENCES: dict[str, Any] = {"el2n": el2n, "forgetting": forgetting, "aum": aum, "loss": loss, "cad": cad}


def test_every_score_has_a_reference() -> None:
    assert set(REFERENCES) == set(catalog.SCORES.names())


@pytest.mark.parametrize("name", list(REFERENCES))
def test_a_score_is_its_published_formula(name: str, said: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = said
    expected = [REFERENCES[name](logits[:, :, i], int(labels[i])) for i in range(IMAGES)]
    np.testing.assert_allclose(hardness(name, said), expected, atol=1e-5)


def test_an_image_that_is_never_right_is_the_hardest(said: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = said
    logits[:, :, 0, labels[0]] = -100
    found = hardness("forgetting", (logits, labels))
    assert found[0] == EPOCHS == found.max()
