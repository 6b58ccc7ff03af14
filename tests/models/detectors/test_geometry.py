"""Boxes, anchors, suppression, RoI align and pasting against plain loops and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.detectors.boxes import REFINING, UNIT, AnchorPlan, Weights, area, clip, decode, encode, overlaps
from tests.models.training.keras_or_skip import require_keras

require_keras()

from keras import ops  # noqa: E402

from models.detectors.layers import (  # noqa: E402  # noqa: E402
    align,
    align_pyramid,
    greedy_keep,
    level_of,
    paste_masks,
    strongest,
)
from tests.models.detectors import slow  # noqa: E402

Array = slow.Array
CORNERS = st.floats(0, 480, width=32)
SIDES = st.floats(1, 200, width=32)


def numpy(tensor: object) -> Array:
    return np.asarray(ops.convert_to_numpy(tensor))


def some_boxes(seed: int, count: int, size: float = 64, least: float = 4) -> Array:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, size - least, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(least, size / 2, (count, 2))], axis=1).astype(np.float32)


@given(st.tuples(CORNERS, CORNERS, SIDES, SIDES), st.tuples(CORNERS, CORNERS, SIDES, SIDES))
@pytest.mark.parametrize("weights", [UNIT, REFINING])
def test_decoding_undoes_encoding(
    weights: Weights, first: tuple[float, float, float, float], second: tuple[float, float, float, float]
) -> None:
    box, reference = (np.array([x, y, x + width, y + height], np.float64) for x, y, width, height in (first, second))
    # Growth is bounded by 62.5 (LARGEST_GROWTH); a box a thousand times its anchor is never asked for.
    if (box[2:] - box[:2] < 60 * (reference[2:] - reference[:2])).all():
        np.testing.assert_allclose(decode(encode(box, reference, weights), reference, weights), box, atol=1e-6)


def test_encoding_by_hand() -> None:
    reference = np.array([10, 20, 30, 60], np.float32)  # centre (20, 40), 20 x 40
    box = np.array([20, 20, 60, 40], np.float32)  # centre (40, 30), 40 x 20
    np.testing.assert_allclose(encode(box, reference), [1.0, -0.25, np.log(2), -np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(encode(box, reference, REFINING), [10.0, -2.5, 5 * np.log(2), -5 * np.log(2)], rtol=1e-6)


def test_the_graph_s_formulas_are_numpy_s() -> None:
    boxes, references = some_boxes(1, 9), some_boxes(2, 9)
    np.testing.assert_allclose(numpy(overlaps(boxes, references, ops)), overlaps(boxes, references), atol=1e-6)
    deltas = encode(boxes, references)
    np.testing.assert_allclose(numpy(encode(boxes, references, UNIT, ops)), deltas, atol=1e-5)
    np.testing.assert_allclose(numpy(decode(deltas, references, UNIT, ops)), boxes, atol=1e-3)


def test_overlap_is_0_for_boxes_that_touch_or_are_empty_and_1_for_the_same() -> None:
    box, beside, empty = (np.array([b], np.float32) for b in ([0, 0, 10, 10], [10, 0, 20, 10], [5, 5, 5, 9]))
    assert overlaps(box, box)[0, 0] == pytest.approx(1.0)
    assert overlaps(box, beside)[0, 0] == 0.0
    assert overlaps(box, empty)[0, 0] == 0.0
    assert overlaps(empty, empty)[0, 0] == 0.0
    assert overlaps(box, box + np.array([5, 0, 5, 0], np.float32))[0, 0] == pytest.approx(50 / 150)


@given(st.integers(0, 2**32 - 1))
def test_overlap_is_symmetric_bounded_and_as_in_plain_loops(seed: int) -> None:
    one, other = some_boxes(seed, 4), some_boxes(seed + 1, 3)
    table = overlaps(one, other)
    np.testing.assert_allclose(table, overlaps(other, one).T, rtol=1e-6)
    assert ((table >= 0) & (table <= 1 + 1e-6)).all()
    np.testing.assert_allclose(table, [[slow.overlap(a, b) for b in other] for a in one], atol=1e-5)


def test_a_box_that_is_cut_stays_in_the_image() -> None:
    np.testing.assert_array_equal(clip(np.array([[-5, 3, 70, 64]], np.float32), 64), [[0, 3, 64, 64]])


def test_anchors_lie_round_the_centres_of_their_cells() -> None:
    plan = AnchorPlan(64, (16, 32), (1.0, 2.0), (0.5, 1.0, 2.0))
    boxes = plan.boxes()
    assert boxes.shape == (plan.count, 4) == ((16 + 4) * 6, 4)
    np.testing.assert_allclose(boxes[1], [0, 0, 16, 16], atol=1e-5)
    np.testing.assert_allclose(boxes[6 + 1], [16, 0, 32, 16], atol=1e-5)  # next column
    np.testing.assert_allclose(boxes[4 * 6 + 4], [-8, 8, 24, 40], atol=1e-5)  # next row, the larger scale
    np.testing.assert_allclose(area(boxes[:6]), [256] * 3 + [1024] * 3, rtol=1e-5)
    heights, widths = boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]
    np.testing.assert_allclose((heights / widths).reshape(-1, 3), np.tile([0.5, 1, 2], (plan.count // 3, 1)), rtol=1e-4)
    np.testing.assert_allclose(boxes[16 * 6 + 1], [0, 0, 32, 32], atol=1e-5)  # the next stride


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.5, 0.7]), st.booleans())
def test_suppression_is_greedy_suppression(seed: int, threshold: float, several: bool) -> None:
    boxes = np.stack([some_boxes(seed + image, 24) for image in range(2)])
    kinds = np.random.default_rng(seed).integers(0, 2, (2, 24))
    keep = numpy(greedy_keep(boxes, threshold, kinds.astype(np.float32) if several else None))
    for image in range(2):
        wanted = slow.greedy(boxes[image], threshold, kinds[image] if several else None)
        assert np.flatnonzero(keep[image]).tolist() == wanted


def test_the_longest_chain_of_suppressions_is_followed_to_its_end() -> None:
    """Each box overlaps only its neighbours: every second one stays, which the last learns in the last round."""
    left = np.arange(30, dtype=np.float32) * 4
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], axis=1)[np.newaxis]
    assert slow.overlap(boxes[0, 0], boxes[0, 1]) > 0.4 > slow.overlap(boxes[0, 0], boxes[0, 2])
    np.testing.assert_array_equal(numpy(greedy_keep(boxes, 0.4))[0], [1, 0] * 15)


def test_an_overlap_of_just_the_threshold_suppresses_nothing() -> None:
    boxes = np.array([[[0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 8, 8]]], np.float32)
    np.testing.assert_array_equal(numpy(greedy_keep(boxes, 0.5))[0], [1, 1, 0])


def test_the_strongest_bring_their_rows_along() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.7, 0.2, 0.3]], np.float32)
    boxes = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    best, chosen, same = (numpy(item) for item in strongest(scores, 2, boxes, scores))
    np.testing.assert_allclose(best, [[0.9, 0.5], [0.7, 0.3]])
    np.testing.assert_array_equal(best, same)
    np.testing.assert_array_equal(chosen, [boxes[0, [1, 2]], boxes[1, [0, 2]]])


@settings(max_examples=20, deadline=None)
@given(arrays(np.float32, (2, 5, 6, 2), elements=st.floats(-4, 4, width=32)), st.integers(0, 2**32 - 1))
def test_roi_align_is_the_mean_of_bilinear_samples(features: Array, seed: int) -> None:
    boxes = np.stack([some_boxes(seed, 3, 40, 1), some_boxes(seed + 1, 3, 40, 1)])
    found = numpy(align(boxes, features, 8, 3))
    assert found.shape == (2, 3, 3, 3, 2)
    for image in range(2):
        for row in range(3):
            wanted = slow.aligned(features[image], boxes[image, row], 8, 3, 2)
            np.testing.assert_allclose(found[image, row], wanted, atol=1e-4)


def test_roi_align_of_a_ramp_is_where_its_points_are() -> None:
    ramp = np.broadcast_to(
        (np.arange(8, dtype=np.float32) + 0.5)[np.newaxis, np.newaxis, :, np.newaxis] * 4, (1, 8, 8, 1)
    )
    found = numpy(align(np.array([[[8, 8, 24, 24]]], np.float32), ramp, 4, 4))
    np.testing.assert_allclose(found[0, 0, 0, :, 0], [10, 14, 18, 22], atol=1e-5)


def test_a_box_looks_at_the_features_that_suit_its_size() -> None:
    sides = np.array([[8, 111, 112.1, 224.1, 447, 449, 2000]], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=-1)
    np.testing.assert_array_equal(numpy(level_of(boxes, (4, 8, 16, 32))), [[0, 0, 1, 2, 2, 3, 3]])
    features = [np.full((1, 64 // stride, 64 // stride, 1), stride, np.float32) for stride in (4, 8, 16, 32)]
    found = numpy(align_pyramid(boxes, features, (4, 8, 16, 32), 2))
    np.testing.assert_allclose(found[0, :, 0, 0, 0], [4, 4, 8, 16, 16, 32, 32])


def test_a_mask_is_laid_over_its_box_and_the_most_probable_detection_speaks_first() -> None:
    boxes = np.array([[[8, 8, 24, 24], [16, 8, 32, 24], [0, 0, 32, 32], [0, 0, 32, 32]]], np.float32)
    scores = np.array([[0.9, 0.8, 0.7, 0.0]], np.float32)
    classes = np.array([[0, 0, 1, 1]], np.float32)
    masks = np.ones((1, 4, 4, 4, 2), np.float32)
    masks[0, 0, ..., 0] = 0.25  # of the first detection
    masks[0, 2, ..., 1] = np.array([1, 1, 0, 0])[:, np.newaxis]  # upper half
    maps = numpy(paste_masks(boxes, scores, classes, masks, 32, 16))
    assert maps.shape == (1, 16, 16, 2)
    wanted = np.zeros((16, 16), np.float32)
    wanted[4:12, 8:16] = 1.0
    wanted[4:12, 4:12] = 0.25
    np.testing.assert_allclose(maps[0, :, :, 0], wanted, atol=1e-6)
    np.testing.assert_allclose(maps[0, :6, :, 1], 1.0, atol=1e-6)
    np.testing.assert_allclose(maps[0, 10:, :, 1], 0.0, atol=1e-6)
    assert (np.diff(maps[0, :, 3, 1]) <= 0).all()


def test_rows_without_a_detection_paint_nothing() -> None:
    boxes = np.array([[[0, 0, 32, 32]]], np.float32)
    nothing = np.zeros((1, 1), np.float32)
    assert not numpy(paste_masks(boxes, nothing, nothing, np.ones((1, 1, 4, 4, 1), np.float32), 32, 16)).any()
