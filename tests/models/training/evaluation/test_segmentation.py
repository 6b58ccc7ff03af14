"""Figures of masks: by hand, against scikit-learn, and with both conventions for empty masks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from sklearn import metrics as reference

from models.training.evaluation.segmentation import Marked, areas_above, dice, iou, mean_by_patients, segment


def marked(true: list[float], predicted: list[float], both: list[float]) -> Marked:
    """One cut at 0.5; the node delivers the same mask."""
    column = np.array(predicted)[:, np.newaxis]
    hits = np.where(np.array(true) > 0, np.array(both) > 0, np.nan).astype(float)
    served = np.array(predicted, float)
    return Marked(
        (0.5,), np.array(true, float), column, np.array(both, float)[:, np.newaxis], served, np.array(both), hits
    )


def test_by_hand() -> None:
    # Four images: half found, nothing found, two empty truths of which one is marked.
    found = segment("x", marked([10, 10, 0, 0], [10, 0, 0, 6], [5, 0, 0, 0]), list("abcd"), 0.5, rounds=50)
    assert (found.images, found.positives, found.positive_patients) == (4, 2, 2)
    assert found.served.dice.value == pytest.approx((0.5 + 0) / 2)
    assert found.served.iou.value == pytest.approx((5 / 15 + 0) / 2)
    assert found.served.dice_all.value == pytest.approx((0.5 + 0 + 1 + 0) / 4)
    assert found.served.pooled_dice == pytest.approx(2 * 5 / (16 + 20))
    assert found.nothing == 0.5
    assert found.marked_negatives.value == 0.5
    assert found.pointing.value == 0.5
    assert found.best_cut == 0.5


def test_marking_nothing_scores_the_share_of_negatives() -> None:
    found = segment("x", marked([4, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]), list("abcd"), 0.5, rounds=20)
    assert found.served.dice_all.value == found.nothing == 0.75
    assert found.served.dice.value == 0.0


def test_without_positives_only_false_marks_are_told() -> None:
    found = segment("x", marked([0, 0], [3, 0], [0, 0]), list("ab"), 0.5, rounds=20)
    assert math.isnan(found.served.dice.value)
    assert math.isnan(found.best_cut)
    assert found.marked_negatives.value == 0.5


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05, 0.4, 1.0]))
def test_overlaps_against_scikit_learn(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    truth, mask = rng.random((9, 7)) < share, rng.random((9, 7)) < 0.5
    areas = [np.array([float(part.sum())]) for part in (mask, truth, mask & truth)]
    flat = truth.ravel(), mask.ravel()
    # Dice is the F1 score of pixels, intersection over union their Jaccard index.
    assert dice(*areas)[0] == pytest.approx(reference.f1_score(*flat, zero_division=1.0))
    assert iou(*areas)[0] == pytest.approx(reference.jaccard_score(*flat, zero_division=1.0))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_intersection_over_union_against_coco(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, mask = (np.asfortranarray(rng.random((9, 7)) < 0.4) for _ in range(2))
    truth[0, 0] = True
    areas = [np.array([float(part.sum())]) for part in (mask, truth, mask & truth)]
    packed = [coco.encode(part.astype(np.uint8)) for part in (mask, truth)]
    assert iou(*areas)[0] == pytest.approx(coco.iou(packed[:1], packed[1:], [0])[0, 0])


def test_two_empty_masks_agree() -> None:
    nothing = np.zeros(1)
    assert dice(nothing, nothing, nothing) == iou(nothing, nothing, nothing) == 1.0


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 99).map(lambda cut: cut / 100), min_size=1, max_size=9, unique=True),
)
def test_areas_above_cuts_are_those_of_the_masks(seed: int, cuts: list[float]) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.random((8, 6)), 2).astype(np.float32)
    values[0, : min(6, len(cuts))] = cuts[:6]  # the cut itself counts
    truth = rng.random((8, 6)) < 0.3
    rising = sorted(cuts)
    found, both = areas_above(values, truth, rising)
    for place, cut in enumerate(rising):
        mask = values >= np.float32(cut)
        assert (found[place], both[place]) == (mask.sum(), (mask & truth).sum())


def test_the_interval_is_over_patients() -> None:
    # Ten images of one patient say no more than one.
    one = mean_by_patients(np.array([0.2] * 10 + [0.8]), ["a"] * 10 + ["b"], rounds=200)
    assert one.low == pytest.approx(0.2)
    assert one.high == pytest.approx(0.8)
    assert math.isnan(mean_by_patients(np.zeros(0), []).value)
