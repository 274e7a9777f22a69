"""The contract of scores: one finite number per image, larger for harder images."""

from __future__ import annotations

import numpy as np

from raydc.spec.catalog import SCORES, Score
from raydc.testing.parts import each

every_score = each("score", SCORES)
NETWORKS, IMAGES = 2, 30


def records(score: Score, difficulty: float = 0.0) -> np.ndarray:
    """Records [networks, epochs, 4, N] of a training in which harder images are learned later."""
    epochs = max(score.least_epochs, score.epochs or 0, 12)
    drawn = np.random.default_rng(0)
    hardness = np.linspace(0, 1, IMAGES) + difficulty
    known = np.clip(np.linspace(0, 2, epochs)[:, None] - hardness, 0.02, 0.98)
    known = np.clip(known + drawn.normal(0, 0.02, (NETWORKS, epochs, IMAGES)), 0.01, 0.99)
    el2n, margin, loss = np.sqrt(2) * (1 - known), 2 * known - 1, -np.log(known)
    return np.stack([el2n, margin, loss, known > 0.5], 2).astype(np.float32)


@every_score
def test_every_image_has_a_finite_score(score: Score) -> None:
    given = records(score)
    before = given.copy()
    found = score.load()(given)
    assert found.shape == (IMAGES,)
    assert np.isfinite(found).all()
    assert np.array_equal(found, score.load()(given))
    assert np.array_equal(given, before)


@every_score
def test_images_are_scored_independently(score: Score) -> None:
    given, order = records(score), np.random.default_rng(1).permutation(IMAGES)
    np.testing.assert_allclose(score.load()(given[..., order]), score.load()(given)[order], rtol=1e-5)


@every_score
def test_its_epochs_are_sufficient(score: Score) -> None:
    assert score.least_epochs >= 1
    assert score.epochs is None or score.epochs >= score.least_epochs
    assert np.isfinite(score.load()(records(score)[:, : score.least_epochs])).all()
