"""Losses against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

from keras import ops  # noqa: E402

from models.detectors.losses import delta_loss, focal_loss, objectness_loss, smooth_l1  # noqa: E402


def numpy(tensor: object) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def test_smooth_l1() -> None:
    found = numpy(smooth_l1(np.array([0.0, 0.5, -1.0, 3.0], np.float32), 1.0))
    np.testing.assert_allclose(found, [0, 0.125, 0.5, 2.5])
    np.testing.assert_allclose(numpy(smooth_l1(np.array([0.05, 1.0], np.float32), 0.1)), [0.0125, 0.95], rtol=1e-5)


def test_focal_loss() -> None:
    logits = np.array([[[math.log(3)], [-math.log(3)], [5.0]], [[0.0], [0.0], [0.0]]], np.float32)
    truth = np.array([[[1, 1], [0, 1], [1, 0]], [[0, 1], [0, 0], [0, 0]]], np.float32)
    # p = 3/4 for the positive, 1/4 for the negative; the third teaches nothing. One anchor answers for a box.
    first = 0.25 * 0.25**2 * -math.log(0.75) + 0.75 * 0.25**2 * -math.log(0.75)
    # Nothing answers for a box: divided by one.
    second = 0.75 * 0.5**2 * math.log(2)
    np.testing.assert_allclose(numpy(focal_loss(truth, logits)), [first, second], rtol=1e-5)


def test_focal_loss_without_its_focus_and_balance_would_be_cross_entropy() -> None:
    """Against scikit-learn: at p = 1/2 the focus is a factor of 1/4 for all, the balance 1/4 or 3/4."""
    from sklearn.metrics import log_loss

    logits = np.zeros((1, 4, 1), np.float32)
    values = np.array([1, 1, 0, 1], np.float32)
    truth = np.stack([values, np.ones(4, np.float32)], axis=-1)[np.newaxis]
    weights = np.where(values > 0, 0.25, 0.75) / 4
    wanted = log_loss(values, np.full(4, 0.5), sample_weight=weights, normalize=False) / values.sum()
    np.testing.assert_allclose(numpy(focal_loss(truth, logits)), [wanted], rtol=1e-5)


def test_corrections_count_only_where_an_anchor_answers_for_a_box() -> None:
    values = np.array([[[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]] * 2, np.float32)
    weights = np.array([[[1] * 4, [1] * 4, [0] * 4], [[0] * 4] * 3], np.float32)
    deltas = np.array([[[2, 0, 0, 0], [1, 1, 1, 0.5], [9, 9, 9, 9]]] * 2, np.float32)
    found = numpy(delta_loss(np.concatenate([values, weights], axis=-1), deltas, 1.0))
    np.testing.assert_allclose(found, [(1.5 + 0.125) / 2, 0.0])


def test_objectness() -> None:
    truth = np.array([[[1, 0.5], [0, 0.25], [0, 0.25], [1, 0]]], np.float32)
    logits = np.array([[[0.0], [0.0], [math.log(3)], [7.0]]], np.float32)
    assert numpy(objectness_loss(truth, logits))[0] == pytest.approx(0.75 * math.log(2) + 0.25 * math.log(4))
