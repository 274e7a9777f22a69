"""Analyses of labels: each formula against a case that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from raydc.analysis.labels import divergence, entropy, label_facts, similarity, softmax, without_own_class

CLASSES = np.array([0, 1, 2, 2])
LABELS = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5], [0.8, 0.1, 0.1]])


def test_entropy_of_known_rows() -> None:
    expected = [np.log(2), 0.0, 1.5 * np.log(2), -(0.8 * np.log(0.8) + 0.2 * np.log(0.1))]
    np.testing.assert_allclose(entropy(LABELS), expected)
    assert entropy(np.full((1, 7), 1 / 7))[0] == pytest.approx(np.log(7))


def test_facts_of_known_rows() -> None:
    facts = label_facts(LABELS, CLASSES)
    assert facts.confidence == pytest.approx((0.5 + 1 + 0.5 + 0.8) / 4)
    assert facts.agreement == 0.75
    # Bins: two right at 0.5, one right at 1, one wrong at 0.8.
    assert facts.calibration_error == pytest.approx(0.5 * 0.5 + 0.25 * 0 + 0.25 * 0.8)
    np.testing.assert_allclose(facts.by_rank, [2.8 / 4, (0.5 + 0.25 + 0.1) / 4, (0.25 + 0.1) / 4])


def test_a_calibrated_teacher_has_no_calibration_error() -> None:
    generator = np.random.default_rng(0)
    p = softmax(generator.standard_normal((100_000, 4)) * 2)
    classes = (p.cumsum(1) > generator.random((len(p), 1))).argmax(1)
    assert label_facts(p, classes).calibration_error < 0.01
    assert label_facts(softmax(np.log(p) * 3), classes).calibration_error > 0.1


def test_similarity_is_the_mean_label_of_a_class() -> None:
    table = similarity(LABELS, CLASSES)
    np.testing.assert_allclose(table[2], LABELS[2:].mean(0))
    assert np.isnan(similarity(LABELS[:2], CLASSES[:2])[2]).all()


def test_what_a_late_teacher_leaves_to_others_is_scaled_to_one() -> None:
    table = np.array([[1 - 3e-9, 1e-9, 2e-9], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    others = without_own_class(table)
    assert np.isnan(np.diag(others)).all()
    np.testing.assert_allclose(others[0, 1:], [1 / 3, 2 / 3])
    np.testing.assert_allclose(others[1, [0, 2]], [2 / 3, 1 / 3])
    assert np.isnan(others[2]).all()  # nothing is left to share
    assert table[0, 0] == 1 - 3e-9


def test_divergence_is_symmetric_bounded_and_blind_to_scale() -> None:
    generator = np.random.default_rng(0)
    p, q = (softmax(generator.standard_normal((50, 5)) * 3) for _ in range(2))
    assert divergence(p, p) == pytest.approx(0, abs=1e-12)
    assert divergence(p, q) == pytest.approx(divergence(q, p))
    assert divergence(p * 7, q) == pytest.approx(divergence(p, q))
    one, other = np.eye(2)[[0]], np.eye(2)[[1]]
    assert divergence(one, other) == pytest.approx(np.log(2))
