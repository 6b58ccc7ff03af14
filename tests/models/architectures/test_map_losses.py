"""The losses of maps and of classes that exclude each other: by hand, and against Keras's and scikit-learn's own."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from models.architectures.losses import added, map_bce, map_dice, map_focal, weighted_softmax  # noqa: E402

SURE = 40.0


def packed(values: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    return np.concatenate([values, np.broadcast_to(weights, values.shape)], axis=-1).astype(np.float32)


def column(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


def some_maps(labels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    truth = (rng.random((6, 8, 8, labels)) < 0.3).astype(np.float32)
    return truth, rng.normal(0, 2, truth.shape).astype(np.float32)


def numbers(loss: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(loss), np.float64)


def test_dice_by_hand() -> None:
    # Said 1, 1, 0, 0, true 1, 0, 0, 0: overlap 1 of 2 and 1; (2 + 1) / (3 + 1) with smoothing 1.
    truth, logits = column([1, 0, 0, 0]), column([SURE, SURE, -SURE, -SURE])
    assert numbers(map_dice(1.0)(packed(truth), logits)) == pytest.approx([1 - 3 / 4], abs=1e-6)
    assert numbers(map_dice(2.0)(packed(truth), logits)) == pytest.approx([1 - 4 / 5], abs=1e-6)


def test_dice_of_an_empty_mask_falls_as_less_is_said() -> None:
    empty = column([0, 0, 0, 0])
    nothing = numbers(map_dice(1.0)(packed(empty), column([-SURE] * 4)))
    little = numbers(map_dice(1.0)(packed(empty), column([SURE] + [-SURE] * 3)))
    all_of_it = numbers(map_dice(1.0)(packed(empty), column([SURE] * 4)))
    assert nothing == pytest.approx([0.0], abs=1e-6)
    assert little == pytest.approx([1 / 2], abs=1e-6)
    assert all_of_it == pytest.approx([4 / 5], abs=1e-6)


def test_dice_without_smoothing_is_scikit_learns_f1() -> None:
    truth, logits = some_maps()
    found = np.where(logits > 0, SURE, -SURE)
    ours = numbers(map_dice(1e-6)(packed(truth), found))
    expected = [1 - f1_score(t.ravel(), s.ravel() > 0) for t, s in zip(truth, found, strict=True)]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_soft_dice_is_keras_own() -> None:
    truth, logits = some_maps()
    theirs = keras.losses.Dice(axis=(1, 2, 3), reduction="none")(truth, keras.ops.sigmoid(logits))
    np.testing.assert_allclose(numbers(map_dice(1e-6)(packed(truth), logits)), numbers(theirs), atol=1e-5)


def test_focal_by_hand() -> None:
    # Logit 0: half a chance. 0.25 x 0.5^2 x ln 2 where it is, 0.75 x 0.5^2 x ln 2 where it is not.
    loss = numbers(map_focal(2.0, 0.25)(packed(column([1, 0])), column([0, 0])))
    assert loss == pytest.approx([np.mean([0.25, 0.75]) * 0.25 * np.log(2)], abs=1e-6)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.0, 0.6)])
def test_focal_is_keras_own(gamma: float, alpha: float) -> None:
    truth, logits = some_maps()
    theirs = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=True, alpha=alpha, gamma=gamma, from_logits=True, reduction="none"
    )(truth, logits)
    ours = numbers(map_focal(gamma, alpha)(packed(truth), logits))
    np.testing.assert_allclose(ours, numbers(theirs).mean(axis=(1, 2)), rtol=1e-4)


def test_focal_with_gamma_0_is_half_the_cross_entropy() -> None:
    truth, logits = some_maps(2)
    half = numbers(map_bce(packed(truth), logits)) / 2
    np.testing.assert_allclose(numbers(map_focal(0.0, 0.5)(packed(truth), logits)), half, rtol=1e-5)


def test_bce_of_a_map_is_scikit_learns() -> None:
    truth, logits = some_maps()
    ours = numbers(map_bce(packed(truth), logits))
    expected = [
        log_loss(t.ravel(), 1 / (1 + np.exp(-s.ravel().astype(float)))) for t, s in zip(truth, logits, strict=True)
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [map_bce, map_dice(), map_focal()])
def test_what_is_not_known_costs_nothing_and_teaches_nothing(loss: Any) -> None:
    truth, logits = some_maps(2)
    known = np.ones_like(truth)
    known[..., 1] = 0
    found = numbers(loss(packed(truth, known), logits))
    other = logits.copy()
    other[..., 1] = -3 * other[..., 1] + 1
    np.testing.assert_allclose(numbers(loss(packed(truth, known), other)), found, rtol=1e-6)
    alone = numbers(loss(packed(truth[..., :1]), logits[..., :1]))
    np.testing.assert_allclose(found, alone / 2, rtol=1e-5)


def test_a_sum_of_losses() -> None:
    truth, logits = some_maps()
    both = numbers(added(map_dice(), map_focal(), 3.0)(packed(truth), logits))
    single = numbers(map_dice()(packed(truth), logits)) + 3 * numbers(map_focal()(packed(truth), logits))
    np.testing.assert_allclose(both, single, rtol=1e-6)


@pytest.mark.parametrize("loss", [map_bce, map_dice(), map_focal()])
def test_no_loss_overflows(loss: Any) -> None:
    found = numbers(loss(packed(column([1, 0])), column([-1000, 1000])))
    assert np.isfinite(found).all()
    assert found > 0


def test_softmax_by_hand() -> None:
    # Three equal logits cost ln 3; the true class's weight counts, a class that is not known costs nothing.
    logits = np.zeros((3, 3), np.float32)
    values = np.eye(3, dtype=np.float32)
    weights = np.array([[1, 1, 1], [5, 2, 5], [1, 1, 0]], np.float32)
    assert numbers(weighted_softmax(packed(values, weights), logits)) == pytest.approx(
        [np.log(3), 2 * np.log(3), 0.0], abs=1e-6
    )


def test_softmax_is_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    logits, chosen = rng.normal(0, 2, (40, 4)).astype(np.float32), rng.integers(0, 4, 40)
    ours = numbers(weighted_softmax(packed(np.eye(4)[chosen]), logits)).mean()
    exponents = np.exp(logits.astype(float))
    assert ours == pytest.approx(log_loss(chosen, exponents / exponents.sum(axis=1, keepdims=True)), rel=1e-5)
