"""The squared-hinge machine: liblinear's plane is the minimum of the published formula, written down again."""

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.svm.losses import DegenerateData, crossed_platt, solve, squared_hinge  # noqa: E402


def _clouds(seed: int, count: int = 80, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truths = np.arange(count) % 3 == 0
    return rng.normal(size=(count, 4)) + apart * truths[:, None], truths


def _objective(plane: np.ndarray, features: np.ndarray, truths: np.ndarray, costs: np.ndarray) -> float:
    """The published formula, written down again."""
    slack = np.maximum(0.0, 1.0 - np.where(truths, 1.0, -1.0) * (features @ plane[:-1] + plane[-1]))
    return float(0.5 * plane @ plane + np.sum(costs * slack**2))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("cost", [0.05, 1.0])
@pytest.mark.parametrize("noise", [0, 120])  # fewer features than examples, and more
def test_the_minimum_is_that_of_the_published_formula(cost: float, balanced: bool, noise: int) -> None:
    features, truths = _clouds(3)
    features = np.hstack([features, np.random.default_rng(0).normal(size=(len(features), noise))])
    share = truths.mean() if balanced else 0.5
    costs = cost * np.where(truths, 0.5 / share, 0.5 / (1.0 - share))
    plane = solve(features, truths, cost, balanced=balanced)
    reference = minimize(_objective, np.zeros(len(plane)), (features, truths, costs), options={"gtol": 1e-7})
    np.testing.assert_allclose(
        features @ plane[:-1] + plane[-1], features @ reference.x[:-1] + reference.x[-1], atol=1e-4
    )
    least = _objective(plane, features, truths, costs)
    rng = np.random.default_rng(0)
    assert all(
        _objective(plane + 0.01 * rng.normal(size=plane.shape), features, truths, costs) > least for _ in range(50)
    )


def test_one_kind_of_example_is_an_error() -> None:
    with pytest.raises(DegenerateData, match="7 examples, all of one kind"):
        solve(np.zeros((7, 2)), np.ones(7, bool), 1.0)


def test_calibration_does_not_believe_the_training_margins() -> None:
    rng = np.random.default_rng(1)
    features, truths = rng.normal(size=(60, 80)), np.arange(60) % 2 == 0  # nothing to learn, all can be separated
    plane = solve(features, truths, 10.0)
    margins = features @ plane[:-1] + plane[-1]
    scaling = crossed_platt(features, truths, 10.0)
    found = scaling(margins)
    assert float(np.mean((margins > 0) == truths)) == 1.0
    assert float(np.max(np.abs(found - 0.5))) < 0.35


def test_squared_hinge_by_hand() -> None:
    truth = np.array([[1.0, 0.0, 1.0, 0.5], [0.0, 1.0, 1.0, 0.0]], np.float32)  # two values, then two weights
    margins = np.array([[0.25, -0.5], [0.5, 9.0]], np.float32)
    # row 1: 1·(1 - 0.25)² and 0.5·(1 - 0.5)²; row 2: 1·(1 + 0.5)² and an unknown label
    expected = [(0.75**2 + 0.5 * 0.5**2) / 2, 1.5**2 / 2]
    np.testing.assert_allclose(np.asarray(squared_hinge(truth, margins)), expected, rtol=1e-6)
