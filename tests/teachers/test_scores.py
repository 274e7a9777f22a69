"""Scores: each against a slow reference written from its published formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydc.data.dataset import Dataset
from raydc.spec import catalog
from raydc.spec.plan import TrajectoryJob
from raydc.spec.study import StudySpec
from raydc.store.local import LocalStore
from raydc.store.saved import Saved
from raydc.teachers.checkpoint import load_checkpoint, score_records
from raydc.teachers.expert import train_trajectory
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


# The published formulas, image by image and epoch by epoch. z: [networks][epochs][classes], the logits that
# an image of the class y gets.

Logits = Sequence[Sequence[Sequence[float]]]


def softmax(z: Sequence[float]) -> list[float]:
    powers = [math.exp(value - max(z)) for value in z]
    return [power / sum(powers) for power in powers]


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def el2n(z: Logits, y: int) -> float:
    """Data diet: || softmax(z) - onehot(y) ||_2, early in training, mean over runs."""
    norms = []
    for network in z:
        for epoch in network[:10]:
            error = [p - (1 if c == y else 0) for c, p in enumerate(softmax(epoch))]
            norms.append(math.sqrt(sum(e * e for e in error)))
    return mean(norms)


def forgetting(z: Logits, y: int) -> float:
    """Times that an image goes from right to wrong; E where it never is right."""
    counts = []
    for network in z:
        right = [max(range(len(epoch)), key=epoch.__getitem__) == y for epoch in network]
        lost = sum(before and not after for before, after in pairwise(right))
        counts.append(lost if any(right) else len(right))
    return mean(counts)


def aum(z: Logits, y: int) -> float:
    """Minus the mean of z_y - max of the others."""
    return -mean(
        epoch[y] - max(value for c, value in enumerate(epoch) if c != y) for network in z for epoch in network
    )


def loss(z: Logits, y: int) -> float:
    """Cross-entropy after the last epoch."""
    return mean(-math.log(softmax(network[-1])[y]) for network in z)


def cad(z: Logits, y: int) -> float:
    """Minus CAD-Prune with J = 6 and W = 2: the mean of U_k for k = K - 8 and K - 7."""
    values = []
    for network in z:
        p = [softmax(epoch)[y] for epoch in network]
        for k in (len(p) - 8, len(p) - 7):
            window = p[k : k + 6]
            values.append(math.sqrt(sum((s - mean(window)) ** 2 for s in window) / 5))
    return -mean(values)


REFERENCES: dict[str, Any] = {"el2n": el2n, "forgetting": forgetting, "aum": aum, "loss": loss, "cad": cad}


def test_every_score_has_a_reference() -> None:
    assert set(REFERENCES) == set(catalog.SCORES.names())


@pytest.mark.parametrize("name", list(REFERENCES))
def test_a_score_is_its_published_formula(name: str, said: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = said
    expected = [REFERENCES[name](logits[:, :, i].tolist(), int(labels[i])) for i in range(IMAGES)]
    np.testing.assert_allclose(hardness(name, said), expected, atol=1e-5)


def test_an_image_that_is_never_right_is_the_hardest(said: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = said
    logits[:, :, 0, labels[0]] = -100
    found = hardness("forgetting", (logits, labels))
    assert found[0] == EPOCHS == found.max()


def test_stored_scores_are_those_of_the_checkpoints(
    tmp_path: Path, digits: Dataset, small: Callable[..., StudySpec]
) -> None:
    """Two tiny scorers train on digits; their checkpoints say what the stored scores were made of."""
    teacher = small("teacher.augment=[crop]", f"teacher.epochs={EPOCHS}").teachers["teacher"]
    store, cpu = LocalStore(tmp_path), torch.device("cpu")
    jobs = [TrajectoryJob(f"t{i}", teacher, i, tuple(range(1, EPOCHS + 1)), EPOCHS) for i in (0, 1)]
    for job in jobs:
        train_trajectory(digits, job, store, cpu, Saved(store, job.id))
    some = list(range(0, len(digits.train), 40))
    pixels = torch.from_numpy(digits.train.take(np.array(some)))
    said = torch.zeros(len(jobs), EPOCHS, len(some), digits.classes)
    for job in jobs:
        for epoch in job.epochs:
            network = load_checkpoint(digits, teacher, job.id, epoch, store, cpu).teacher.network
            with torch.no_grad():
                said[job.index, epoch - 1] = network(digits.inputs(pixels))
    records = score_records([job.id for job in jobs], EPOCHS, store)
    for score in catalog.SCORES:
        found = score.load()(records[:, : score.epochs])
        assert found.shape == (len(digits.train),)
        expected = [
            REFERENCES[score.name](said[:, :, i].tolist(), int(digits.train.labels[row]))
            for i, row in enumerate(some)
        ]
        np.testing.assert_allclose(found[some], expected, atol=1e-5)
        assert len(set(expected)) > 1
