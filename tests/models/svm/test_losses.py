"""The squared-hinge machine: the formula by hand, its gradient, and liblinear as an independent judge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.svm.losses import (  # noqa: E402
    DegenerateData,
    augmented,
    crossed_platt,
    objective,
    solve,
    squared_hinge,
)


def _clouds(seed: int, count: int = 80, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truths = np.arange(count) % 3 == 0
    return rng.normal(size=(count, 4)) + apart * truths[:, None], truths


def test_objective_is_the_published_formula_by_hand() -> None:
    points = np.array([[1.0, 2.0, 1.0], [0.0, -1.0, 1.0], [3.0, 0.0, 1.0]])
    weights = np.array([0.5, -0.25, 0.1])
    # margins t·wx: 1·(0.5 - 0.5 + 0.1) = 0.1; -1·(0.25 + 0.1) = -0.35; 1·(1.5 + 0.1) = 1.6, which costs nothing
    expected = 0.5 * (0.25 + 0.0625 + 0.01) + 2.0 * (0.9**2 + 1.35**2)
    value, _ = objective(weights, points, np.array([1.0, -1.0, 1.0]), np.full(3, 2.0))
    assert value == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 10))
def test_gradient_is_the_slope_of_the_value(seed: int, cost: float) -> None:
    rng = np.random.default_rng(seed)
    points, signs, weights = rng.normal(size=(12, 3)), rng.choice([-1.0, 1.0], 12), rng.normal(size=3)
    _, gradient = objective(weights, points, signs, np.full(12, cost))
    for axis in np.eye(3):
        above, _ = objective(weights + 1e-6 * axis, points, signs, np.full(12, cost))
        below, _ = objective(weights - 1e-6 * axis, points, signs, np.full(12, cost))
        assert (above - below) / 2e-6 == pytest.approx(float(gradient @ axis), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("cost", [0.05, 1.0])
def test_the_minimum_is_liblinears(cost: float, balanced: bool) -> None:
    from sklearn.svm import LinearSVC

    features, truths = _clouds(3)
    plane = solve(features, truths, cost, balanced=balanced)
    judge = LinearSVC(
        loss="squared_hinge", C=cost, tol=1e-10, max_iter=200_000, class_weight="balanced" if balanced else None
    ).fit(features, truths)
    np.testing.assert_allclose(plane, [*judge.coef_[0], judge.intercept_[0]], atol=1e-4)


def test_the_minimum_cannot_be_improved_by_a_step_in_any_direction() -> None:
    features, truths = _clouds(5)
    plane = solve(features, truths, 0.3)
    points, signs = augmented(features), np.where(truths, 1.0, -1.0)
    least, gradient = objective(plane, points, signs, np.full(len(points), 0.3))
    assert float(np.abs(gradient).max()) < 1e-4
    rng = np.random.default_rng(0)
    for _ in range(50):
        value, _ = objective(plane + 0.01 * rng.normal(size=plane.shape), points, signs, np.full(len(points), 0.3))
        assert value > least


def test_one_kind_of_example_is_an_error() -> None:
    with pytest.raises(DegenerateData, match="7 examples, all of one kind"):
        solve(np.zeros((7, 2)), np.ones(7, bool), 1.0)


def test_calibration_does_not_believe_the_training_margins() -> None:
    rng = np.random.default_rng(1)
    features, truths = rng.normal(size=(60, 80)), np.arange(60) % 2 == 0  # nothing to learn, all can be separated
    plane = solve(features, truths, 10.0)
    margins = augmented(features) @ plane
    scaling = crossed_platt(features, truths, 10.0)
    said = scaling(margins)
    assert float(np.mean((margins > 0) == truths)) == 1.0
    assert float(np.max(np.abs(said - 0.5))) < 0.35


def test_squared_hinge_by_hand() -> None:
    truth = np.array([[1.0, 0.0, 1.0, 0.5], [0.0, 1.0, 1.0, 0.0]], np.float32)  # two values, then two weights
    margins = np.array([[0.25, -0.5], [0.5, 9.0]], np.float32)
    # row 1: 1·(1 - 0.25)² and 0.5·(1 - 0.5)²; row 2: 1·(1 + 0.5)² and an unknown label
    expected = [(0.75**2 + 0.5 * 0.5**2) / 2, 1.5**2 / 2]
    np.testing.assert_allclose(np.asarray(squared_hinge(truth, margins)), expected, rtol=1e-6)
