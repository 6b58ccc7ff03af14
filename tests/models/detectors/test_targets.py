"""Which anchor answers for which box, what is known of an image, and what the truths say: by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.architectures.base import Batch
from models.detectors.boxes import AnchorPlan, decode, overlaps
from models.detectors.targets import boxes_of, complete, match
from models.localise import region_boxes
from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.detectors.targets import one_stage, region_proposals, second_stage  # noqa: E402

NOTHING = [0, 0, 0, 0, -1]
ANCHORS = AnchorPlan(32, (8,), (1.0, 2.0), (1.0,)).boxes()


def batch(boxes: Sequence[Sequence[Sequence[float]]] | None, labels: Sequence[Sequence[float]], **more: Any) -> Batch:
    found = np.array(labels, np.float32)
    known = more.pop("known", None)
    return Batch(
        pixels=np.zeros((len(labels), 32, 32, 1), np.float32),
        labels=found,
        known=np.ones_like(found) if known is None else known,
        boxes=None if boxes is None else np.array(boxes, np.float32),
        **more,
    )


def test_anchors_are_matched_by_two_thresholds_and_the_best_one_in_any_case() -> None:
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4.5], [20, 0, 30, 10], [40, 0, 60, 20]], np.float32)
    boxes = np.array([[0, 0, 10, 10], [40, 0, 44, 4]], np.float32)
    assert match(anchors, boxes, 0.5, 0.4).box.tolist() == [0, 0, -2, -1, 1]
    assert match(anchors, boxes[:0], 0.5, 0.4).box.tolist() == [-1] * 5
    far = np.array([[90, 90, 99, 99]], np.float32)
    assert match(anchors, far, 0.5, 0.4).box.tolist() == [-1] * 5


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_matches_keep_their_thresholds_and_lose_no_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 20, (3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(3, 12, (3, 2))], axis=1).astype(np.float32)
    found = match(ANCHORS, boxes, 0.5, 0.4)
    table = overlaps(ANCHORS, boxes)
    best = table.argmax(axis=0)
    if len(set(best.tolist())) == len(boxes):
        assert set(found.box[found.positive].tolist()) == {0, 1, 2}
    forced = (table >= table.max(axis=0) - 1e-6).any(axis=1)
    assert (table.max(axis=1)[found.negative] < 0.4).all()
    assert (table.max(axis=1)[found.positive & ~forced] >= 0.5).all()


def test_a_finding_without_its_box_teaches_nothing() -> None:
    found = batch(
        [[[1, 1, 9, 9, 0], NOTHING], [NOTHING, NOTHING], [NOTHING, NOTHING], [NOTHING, NOTHING]],
        [[1, 0], [1, 0], [0, 0], [0, 0]],
        known=np.array([[1, 1], [1, 1], [1, 0], [2.5, 0.5]], np.float32),
    )
    np.testing.assert_array_equal(complete(found, boxes_of(found)), [[1, 1], [0, 1], [1, 0], [1, 0.5]])
    found = batch([[NOTHING]], [[1, 0]], mask_known=np.array([[0, 1]], np.float32))
    np.testing.assert_array_equal(complete(found, boxes_of(found)), [[0, 1]])


def test_a_mask_without_boxes_gives_the_boxes_of_its_regions_largest_first() -> None:
    masks = np.zeros((2, 32, 32, 2), np.float32)
    masks[0, 2:6, 3:5, 1] = 1
    masks[0, 10:20, 12:30, 1] = 1
    masks[1, 1:5, 1:5, 0] = 1
    drawn = batch([[NOTHING], [[2, 2, 6, 6, 0]]], [[0, 1], [1, 0]], masks=masks)
    found = boxes_of(drawn)
    assert found.shape == (2, 1 + 4 * 2, 5)
    rows = found[0][found[0, :, 4] >= 0]
    np.testing.assert_array_equal(rows, [[12, 10, 30, 20, 1], [3, 2, 5, 6, 1]])
    np.testing.assert_array_equal(found[1][found[1, :, 4] >= 0], [[2, 2, 6, 6, 0]])
    with pytest.raises(ValueError, match="boxes or masks"):
        boxes_of(batch(None, [[1, 0]]))


def test_regions_of_a_mask_touch_at_corners() -> None:
    mask = np.eye(4, dtype=np.bool_)
    np.testing.assert_array_equal(region_boxes(mask), [[0, 0, 4, 4]])
    assert region_boxes(np.zeros((3, 3), np.bool_)).shape == (0, 4)


def test_truths_of_one_stage() -> None:
    found = batch([[[8, 8, 16, 16, 1], NOTHING], [NOTHING, NOTHING]], [[0, 1], [1, 0]])
    truth = one_stage(found, ANCHORS)
    classes, deltas = truth["class_logits"], truth["box_deltas"]
    own = int(np.flatnonzero((ANCHORS == [8, 8, 16, 16]).all(axis=1))[0])
    np.testing.assert_array_equal(classes[0, own], [0, 1, 1, 1])
    assert classes[0, :, 1].sum() == deltas[0, :, 4].sum() == 1
    np.testing.assert_allclose(deltas[0, own], [0, 0, 0, 0, 1, 1, 1, 1], atol=1e-6)
    half = int(np.flatnonzero((ANCHORS == [4, 4, 20, 20]).all(axis=1))[0])  # overlaps by 64 / 256
    np.testing.assert_array_equal(classes[0, half], [0, 0, 1, 1])
    # The second image has label 0 somewhere, nobody says where: only label 1 is taught as absent.
    np.testing.assert_array_equal(np.unique(classes[1], axis=0), [[0, 0, 0, 1]])
    assert not deltas[1].any()


def test_truths_of_region_proposals_weigh_both_kinds_alike() -> None:
    found = batch([[[8, 8, 16, 16, 1], [16, 16, 31, 31, 0]], [NOTHING, NOTHING]], [[1, 1], [0, 0]])
    truth = region_proposals(found, ANCHORS)
    values, weights = truth["rpn_logits"][..., 0], truth["rpn_logits"][..., 1]
    assert weights.sum(axis=1) == pytest.approx([1, 1])
    assert (weights * values).sum(axis=1) == pytest.approx([0.5, 0])
    deltas = truth["rpn_deltas"][0]
    matched = deltas[:, 4] > 0
    assert matched.sum() == 2
    placed = decode(deltas[matched, :4], ANCHORS[matched])
    assert sorted(np.rint(placed).astype(int).tolist()) == [[8, 8, 16, 16], [16, 16, 31, 31]]


def test_truths_of_the_second_stage_are_the_boxes_and_what_is_known() -> None:
    found = batch([[[8, 8, 16, 16, 1]], [NOTHING]], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(second_stage(found), [[[8, 8, 16, 16, 1, 1]], [[*NOTHING, 0]]])
