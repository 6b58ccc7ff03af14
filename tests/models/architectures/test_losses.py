import numpy as np
import pytest
from sklearn.metrics import log_loss

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.architectures.losses import map_loss, soft_dice, weighted_bce  # noqa: E402


def packed(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.concatenate([values, weights], axis=-1).astype(np.float32)


def test_weighted_bce_by_hand() -> None:
    # Logit 0 costs ln 2; an unknown label costs nothing; a soft target costs its mixture.
    logits = np.array([[0.0, 5.0, 0.0]], np.float32)
    loss = weighted_bce(packed(np.array([[1, 0, 0.3]]), np.array([[1, 0, 0.5]])), logits)
    assert float(loss[0]) == pytest.approx((np.log(2) + 0 + 0.5 * np.log(2)) / 3, abs=1e-6)


def test_weighted_bce_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    logits, truths = rng.normal(0, 2, (50, 1)).astype(np.float32), rng.random((50, 1)) < 0.5
    ours = float(np.mean(keras.ops.convert_to_numpy(weighted_bce(packed(truths, np.ones((50, 1))), logits))))
    assert ours == pytest.approx(log_loss(truths[:, 0], 1 / (1 + np.exp(-logits[:, 0].astype(float)))), rel=1e-5)


def test_weighted_bce_does_not_overflow() -> None:
    loss = weighted_bce(packed(np.array([[1.0]]), np.array([[1.0]])), np.array([[-1000.0]], np.float32))
    assert float(loss[0]) == pytest.approx(1000.0)


def test_soft_dice_by_hand() -> None:
    values, found = np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[1.0, 0.0, 1.0, 0.0]])
    assert float(soft_dice(values, found, (1,))[0]) == pytest.approx(0.5, abs=1e-5)
    assert float(soft_dice(values * 0, found * 0, (1,))[0]) == pytest.approx(1.0)


def test_map_loss_by_hand() -> None:
    values = np.zeros((1, 2, 2, 1))
    values[0, 0, 0, 0] = 1
    found = np.full((1, 2, 2, 1), 0.5, np.float32)
    dice = 2 * 0.5 / (1 + 2)
    expected = np.log(2) + 0.2 * (1 - dice)
    assert float(map_loss(packed(values, np.ones_like(values)), found)[0]) == pytest.approx(expected, abs=1e-4)


def test_map_loss_of_an_unknown_map_is_nothing() -> None:
    values, found = np.ones((1, 2, 2, 1)), np.full((1, 2, 2, 1), 0.01, np.float32)
    assert float(map_loss(packed(values, np.zeros_like(values)), found)[0]) == pytest.approx(0.0, abs=1e-6)


def test_map_loss_of_an_empty_truth_has_no_dice() -> None:
    values, found = np.zeros((1, 2, 2, 1)), np.full((1, 2, 2, 1), 0.5, np.float32)
    assert float(map_loss(packed(values, np.ones_like(values)), found)[0]) == pytest.approx(np.log(2), abs=1e-4)
