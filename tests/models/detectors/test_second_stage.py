"""What proposals and masks learn, by hand: which box they answer for, how much they weigh, what their loss is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.architectures.base import Batch
from tests.models.training.keras_or_skip import require_keras

require_keras()

from keras import ops  # noqa: E402

from models.detectors.boxes import REFINING, decode  # noqa: E402
from models.detectors.losses import (  # noqa: E402  # noqa: E402
    assign,
    drawn,
    heads_loss,
    mask_loss,
    masks_for,
    pack_heads,
    pack_truth,
    proposal_weights,
)

NOTHING = [0, 0, 0, 0, -1, 1]
TRUTH = np.array([[[10, 10, 30, 30, 1, 1], NOTHING], [NOTHING, NOTHING]], np.float32)
PROPOSALS = np.array([[[10, 10, 30, 28], [10, 10, 30, 18], [40, 40, 60, 60], [0, 0, 5, 5]]] * 2, np.float32)


def numpy(tensor: object) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def test_a_proposal_answers_for_the_box_that_it_overlaps_by_half() -> None:
    found = assign(PROPOSALS, TRUTH)
    np.testing.assert_array_equal(numpy(found.positive), [[1, 0, 0, 0], [0, 0, 0, 0]])
    assert numpy(found.label)[0, 0] == 1
    np.testing.assert_array_equal(numpy(found.box)[0, 0], [10, 10, 30, 30])


def test_of_several_boxes_it_answers_for_the_one_that_it_overlaps_most() -> None:
    truth = np.array([[[10, 10, 30, 27, 0, 1], [10, 10, 30, 28, 1, 1], [9, 9, 30, 30, 0, 1]]], np.float32)
    assert numpy(assign(PROPOSALS[:1], truth).label)[0, 0] == 1


def test_positives_weigh_a_quarter_at_least_and_an_unknown_background_nothing() -> None:
    positive = np.array([[1] + [0] * 9, [1] * 5 + [0] * 5, [0] * 10, [1] + [0] * 9], np.float32)
    weights = numpy(proposal_weights(positive, np.array([[1], [1], [1], [0]], np.float32)))
    np.testing.assert_allclose(weights[0], [0.25] + [0.75 / 9] * 9, rtol=1e-6)
    np.testing.assert_allclose(weights[1], [0.1] * 10, rtol=1e-6)
    np.testing.assert_allclose(weights[2], [0.1] * 10, rtol=1e-6)
    np.testing.assert_allclose(weights[3], [0.25] + [0] * 9, rtol=1e-6)


def test_the_heads_loss_by_hand() -> None:
    logits = np.zeros((2, 4, 3), np.float32)
    logits[0, 0] = [0, 0, math.log(2)]  # label 1: 2 of 4 parts
    deltas = np.full((2, 4, 2, 4), 7.0, np.float32)
    height = 18.0
    exact = [0, REFINING[0] * 1.0 / height, 0, REFINING[1] * math.log(20 / height)]
    deltas[0, 0, 1] = np.array(exact) + np.array([0.5, 0, 2, 0])
    found = numpy(heads_loss(2)(TRUTH, pack_heads(PROPOSALS, logits, deltas.reshape(2, 4, 8))))
    first = 0.25 * (math.log(2) + 0.125 + 1.5) + 0.75 * math.log(3)
    np.testing.assert_allclose(found, [first, math.log(3)], rtol=1e-5)
    np.testing.assert_allclose(decode(np.array(exact), PROPOSALS[0, 0], REFINING), TRUTH[0, 0, :4], rtol=1e-6)


def test_no_gradient_passes_through_the_place_of_a_proposal() -> None:
    import tensorflow as tf

    answer = tf.Variable(pack_heads(PROPOSALS, np.zeros((2, 4, 3), np.float32), np.ones((2, 4, 8), np.float32)))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(heads_loss(2)(TRUTH, answer))
    gradient = tape.gradient(value, answer).numpy()
    assert not gradient[..., :4].any()
    assert gradient[..., 4:7].any()
    assert gradient[0, 0, 11:].any()
    assert not gradient[0, 0, 7:11].any()  # corrections of the other label


def test_boxes_are_filled_as_rectangles_or_ellipses() -> None:
    boxes = np.array([[8, 16, 24, 48, 1], [0, 0, 0, 0, -1]], np.float32)
    rectangle, ellipse = (drawn(boxes, shape, 64, 2) for shape in ("rectangles", "ellipses"))
    wanted = np.zeros((32, 32), np.float32)
    wanted[8:24, 4:12] = 1
    np.testing.assert_array_equal(rectangle[..., 1], wanted)
    assert not rectangle[..., 0].any()
    assert (ellipse <= rectangle).all()
    assert ellipse.sum() == pytest.approx(math.pi / 4 * rectangle.sum(), rel=0.05)


def test_masks_are_pooled_or_asked_for() -> None:
    masks = np.zeros((1, 4, 4, 1), np.float32)
    masks[0, :2, :1] = 1
    batch = Batch(np.zeros((1, 4, 4, 1), np.float32), np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), masks)
    np.testing.assert_array_equal(
        masks_for(batch, np.zeros((1, 0, 5), np.float32), "masks", 4)[0, ..., 0], [[0.5, 0], [0, 0]]
    )
    none = Batch(batch.pixels, batch.labels, batch.known)
    with pytest.raises(ValueError, match="rectangles"):
        masks_for(none, np.zeros((1, 0, 5), np.float32), "masks", 4)


def test_the_mask_loss_looks_at_the_own_label_inside_the_own_box() -> None:
    masks = np.zeros((2, 32, 32, 2), np.float32)
    masks[:, :, :16, 1] = 1  # the left half of the image, of label 1
    truth = pack_truth(masks, TRUTH)
    side = 4
    proposals = np.array([[[10, 10, 60, 30], [12, 10, 32, 30]]] * 2, np.float32)
    logits = np.zeros((2, 2, side, side, 2), np.float32)
    logits[..., 0] = 9.0  # of the other label, which nobody asks for
    # Columns of the second proposal have their centres at 14.5, 19.5, 24.5 and 29.5: all in mask and box.
    logits[0, 1, :, :, 1] = math.log(3)
    answer = np.concatenate([proposals, logits.reshape(2, 2, -1)], axis=-1)
    found = numpy(mask_loss(2, 64, side)(truth, answer))
    np.testing.assert_allclose(found, [-math.log(0.75), 0.0], atol=1e-6)
    wide = TRUTH.copy()
    wide[0, 0, :4] = [6, 10, 32, 30]  # now also the mask beyond column 32 would be cut off
    beyond = proposals.copy()
    beyond[0, 1] = [12, 10, 44, 30]  # centres at 16, 24, 32, 40: the last two outside of the box
    answer = np.concatenate([beyond, logits.reshape(2, 2, -1)], axis=-1)
    masks[..., 1] = 1
    found = numpy(mask_loss(2, 64, side)(pack_truth(masks, wide), answer))
    np.testing.assert_allclose(found[0], (-math.log(0.75) - math.log(0.25)) / 2, atol=1e-6)
