"""Figures of calls: by hand, and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from models.training.evaluation.classification import (
    classify,
    confusion,
    exclusive_confusion,
    operating,
    precision_recall,
    reading_confusion,
)

SCORES = np.array([0.1, 0.4, 0.35, 0.8])
TRUTHS = np.array([False, False, True, True])


def test_operating_point_by_hand() -> None:
    point = operating(SCORES, TRUTHS, 0.4)
    assert (point.true_positives, point.false_negatives, point.false_positives, point.true_negatives) == (1, 1, 1, 1)
    assert (point.sensitivity.value, point.specificity.value, point.precision.value) == (0.5, 0.5, 0.5)
    assert (point.accuracy, point.balanced_accuracy) == (0.5, 0.5)


def test_the_mean_of_both_does_not_reward_the_larger_class() -> None:
    truths = np.array([True] + [False] * 9)
    point = operating(np.zeros(10), truths, 0.5)
    assert point.accuracy == 0.9
    assert point.balanced_accuracy == 0.5


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(2, 80))
    truths = rng.random(size) < 0.4
    truths[:2] = [True, False]
    return np.round(rng.random(size), draw(st.integers(1, 5))), truths, float(rng.random())


@settings(deadline=None, max_examples=60)
@given(cases())
def test_against_scikit_learn(case: tuple[np.ndarray, np.ndarray, float]) -> None:
    scores, truths, cut = case
    point, called = operating(scores, truths, cut), scores >= cut
    assert [
        [point.true_negatives, point.false_positives],
        [point.false_negatives, point.true_positives],
    ] == reference.confusion_matrix(truths, called, labels=[False, True]).tolist()
    assert point.accuracy == pytest.approx(reference.accuracy_score(truths, called))
    assert point.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(truths, called))
    if called.any():
        assert point.precision.value == pytest.approx(reference.precision_score(truths, called))
    precision, recall, _ = reference.precision_recall_curve(truths, scores)
    # scikit-learn goes from the lowest score up, and ends with a point of no recall that no score has.
    wanted = list(zip(recall[:-1][::-1].tolist(), precision[:-1][::-1].tolist(), strict=True))
    assert np.allclose(precision_recall(scores, truths), wanted)


def test_youdens_cut_off_is_at_least_as_good_as_the_chosen_one() -> None:
    found = classify("x", SCORES, TRUTHS, list("abcd"), 0.4, rounds=20)
    assert found is not None
    assert found.best.balanced_accuracy == 0.75
    assert found.chosen.balanced_accuracy == 0.5
    assert found.figures.auc.value == 0.75
    assert found.as_dict()["chosen"]["balanced_accuracy"] == 0.5


def test_one_class_has_no_figures() -> None:
    assert classify("x", SCORES, np.ones(4, bool), list("abcd"), 0.4) is None
    assert classify("x", SCORES[:0], TRUTHS[:0], [], 0.4) is None
    assert precision_recall(SCORES, np.zeros(4, bool)) == []
    assert math.isnan(confusion([], [], ["a"], "").accuracy)


def test_confusion_by_hand_and_by_scikit_learn() -> None:
    truths, called = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
    found = confusion(truths, called, ["a", "b", "c"], "told")
    assert found.counts == ((1, 1, 0), (0, 1, 0), (1, 0, 2))
    assert [list(row) for row in found.counts] == reference.confusion_matrix(truths, called).tolist()
    assert found.accuracy == pytest.approx(4 / 6)


def test_classes_that_exclude_each_other() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.2, 0.2, 0.6]])
    truths = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1]], bool)
    found = exclusive_confusion(["a", "b", "c"], scores, truths, np.ones((3, 3), bool), [0.5] * 3)
    assert found is not None
    assert found.counts == ((1, 1, 0), (0, 0, 0), (0, 0, 1))


def test_an_image_with_nothing_is_a_class_of_its_own() -> None:
    scores = np.array([[0.7, 0.2], [0.4, 0.3], [0.1, 0.6]])
    truths = np.array([[1, 0], [0, 0], [0, 0]], bool)
    found = exclusive_confusion(["a", "b"], scores, truths, np.ones((3, 2), bool), [0.5, 0.5])
    assert found is not None
    assert found.classes == ("a", "b", "none of these")
    assert found.counts == ((1, 0, 0), (0, 0, 0), (0, 1, 1))


def test_findings_that_go_together_have_no_such_matrix() -> None:
    both = np.ones((2, 2), bool)
    assert exclusive_confusion(["a", "b"], np.ones((2, 2)), both, both, [0.5, 0.5]) is None
    assert exclusive_confusion(["a"], np.ones((2, 1)), both[:, :1], both[:, :1], [0.5]) is None
    assert exclusive_confusion(["a", "b"], np.ones((2, 2)), both, ~both, [0.5, 0.5]) is None


def test_the_readers_three_classes_by_hand() -> None:
    opacity, abnormal = np.array([0.9, 0.1, 0.1, 0.5]), np.array([0.1, 0.9, 0.1, 0.9])
    found = reading_confusion(opacity, abnormal, [2, 1, 0, 1], (0.5, 0.6))
    assert found.counts == ((1, 0, 0), (0, 1, 1), (0, 0, 1))
