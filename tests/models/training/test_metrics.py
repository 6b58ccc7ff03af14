"""Each figure against a case worked by hand and, where there is one, against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from models.training import metrics

SCORES = np.array([0.1, 0.4, 0.35, 0.8])
TRUTHS = np.array([False, False, True, True])


def test_auc_by_hand() -> None:
    # Of the four pairs only (0.35 positive, 0.4 negative) is out of order.
    assert metrics.auc(SCORES, TRUTHS) == 0.75


def test_auc_counts_ties_half() -> None:
    assert metrics.auc(np.zeros(4), TRUTHS) == 0.5


def test_auc_of_one_class_is_nan() -> None:
    assert math.isnan(metrics.auc(SCORES, np.ones(4, bool)))


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    size = draw(st.integers(2, 60))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    truths = rng.random(size) < 0.4
    truths[:2] = [True, False]
    return np.round(rng.random(size), draw(st.integers(1, 6))), truths


@settings(deadline=None, max_examples=60)
@given(scored())
def test_against_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truths = case
    assert metrics.auc(scores, truths) == pytest.approx(reference.roc_auc_score(truths, scores))
    assert metrics.average_precision(scores, truths) == pytest.approx(reference.average_precision_score(truths, scores))
    false, true, _ = metrics.roc_points(scores, truths)
    known_false, known_true, _ = reference.roc_curve(truths, scores, drop_intermediate=False)
    np.testing.assert_allclose(false, known_false, atol=1e-12)
    np.testing.assert_allclose(true, known_true, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(scored())
def test_youden_cut_off_is_the_best_there_is(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truths = case
    sensitivity, specificity = metrics.sensitivity_specificity(scores, truths, metrics.youden_threshold(scores, truths))
    false, true, _ = reference.roc_curve(truths, scores, drop_intermediate=False)
    assert sensitivity + specificity - 1 == pytest.approx((true - false)[1:].max(), abs=1e-9)


def test_sensitivity_counts_the_threshold_itself_as_positive() -> None:
    assert metrics.sensitivity_specificity(SCORES, TRUTHS, 0.4) == (0.5, 0.5)
    assert metrics.sensitivity_specificity(SCORES, TRUTHS, 0.35) == (1.0, 0.5)


def test_calibration_error_by_hand() -> None:
    # Two bins: 0.1 and 0.1 said, half of them true (gap 0.4); 0.9 said, true (gap 0.1).
    found, seen = np.array([0.1, 0.1, 0.9]), np.array([True, False, True])
    assert metrics.calibration_error(found, seen) == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.1)


def test_a_probability_of_one_has_a_bin() -> None:
    assert metrics.calibration_error(np.array([1.0]), np.array([True])) == 0.0


def test_wilson_interval_by_hand() -> None:
    # 8 of 10, z = 1.96: the textbook's (0.490, 0.943).
    share = metrics.proportion(8, 10)
    assert (share.value, round(share.low, 3), round(share.high, 3)) == (0.8, 0.49, 0.943)


def test_wilson_interval_stays_inside() -> None:
    assert metrics.proportion(0, 5).low == 0.0
    assert metrics.proportion(5, 5).high == 1.0


def test_bootstrap_resamples_patients_not_images() -> None:
    rng = np.random.default_rng(3)
    truths = rng.random(40) < 0.5
    scores = truths * 0.3 + rng.random(40)
    many = metrics.by_patients(metrics.auc, scores, truths, [str(i) for i in range(40)], rounds=200)
    # Every image ten times over says nothing new: with patients resampled the interval does not shrink.
    repeated = metrics.by_patients(
        metrics.auc, np.repeat(scores, 10), np.repeat(truths, 10), [str(i // 10) for i in range(400)], rounds=200
    )
    assert many.low < many.value < many.high
    assert repeated.high - repeated.low == pytest.approx(many.high - many.low, rel=0.35)


def test_bootstrap_of_one_class_is_nan_not_endless() -> None:
    interval = metrics.by_patients(metrics.auc, SCORES, np.ones(4, bool), list("abcd"))
    assert math.isnan(interval.value)
