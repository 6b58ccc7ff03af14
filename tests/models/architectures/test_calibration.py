import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models.architectures.calibration import Platt, fit_platt, sigmoid
from models.training.metrics import calibration_error


def overconfident(size: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    honest = rng.normal(-1, 1.5, size)
    truths = rng.random(size) < sigmoid(honest)
    return 3 * honest + 2, truths


def test_scaling_undoes_overconfidence() -> None:
    logits, truths = overconfident()
    scaling = fit_platt(logits, truths)
    assert calibration_error(scaling(logits), truths) < 0.02 < calibration_error(sigmoid(logits), truths)
    assert scaling.slope == pytest.approx(1 / 3, rel=0.1)


def test_agrees_with_logistic_regression() -> None:
    logits, truths = overconfident()
    known = LogisticRegression(C=1e6).fit(logits[:, None], truths)
    scaling = fit_platt(logits, truths)
    assert scaling.slope == pytest.approx(float(known.coef_[0, 0]), rel=0.02)
    assert scaling.offset == pytest.approx(float(known.intercept_[0]), rel=0.02, abs=0.02)


def test_without_both_classes_nothing_is_changed() -> None:
    assert fit_platt(np.array([0.1, 2.0]), np.array([True, True])) == Platt()


def test_separable_scores_do_not_run_away() -> None:
    scaling = fit_platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert 0.2 <= scaling.slope <= 5.0


def test_sigmoid_does_not_overflow() -> None:
    np.testing.assert_allclose(sigmoid(np.array([-1000.0, 0.0, 1000.0])), [0, 0.5, 1])
