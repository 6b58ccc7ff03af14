"""What detectors learn from, in ``keras.ops``; each loss answers one value an example.

Truths are packed as in :mod:`models.architectures.losses`: values and weights side by side in the last axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from models.architectures.base import Batch, Loss
from models.architectures.losses import cross_entropies, split_truth
from models.detectors.boxes import REFINING, encode, overlaps
from models.detectors.layers import align, rows_of

ALPHA, GAMMA = 0.25, 2.0
"""Balance and focus of the focal loss (Lin et al., 2017)."""


def smooth_l1(difference: Any, beta: float) -> Any:
    """``d^2 / (2 beta)`` for differences below ``beta``, beyond that ``|d| - beta / 2``."""
    distance = ops.abs(difference)
    return ops.where(distance < beta, 0.5 * distance * distance / beta, distance - 0.5 * beta)


def focal_loss(truth: Any, logits: Any) -> Any:
    """Focal loss of ``logits [n, anchors, labels]``: summed, divided by the number of anchors that answer for a box.

    ``truth`` is ``[n, anchors, 2 * labels]``; an anchor of weight 0 teaches nothing.
    """
    values, weights = split_truth(truth)
    chance = ops.sigmoid(logits)
    wrong = values * (1.0 - chance) + (1.0 - values) * chance
    balance = values * ALPHA + (1.0 - values) * (1.0 - ALPHA)
    losses = balance * ops.power(wrong, GAMMA) * cross_entropies(values, logits) * weights
    return ops.sum(losses, axis=(1, 2)) / ops.maximum(ops.sum(values * weights, axis=(1, 2)), 1.0)


def delta_loss(truth: Any, deltas: Any, beta: float = 1.0 / 9.0) -> Any:
    """Smooth L1 of ``deltas [n, anchors, 4]``, summed over the four, averaged over anchors that answer for a box.

    ``truth`` is ``[n, anchors, 8]``: four values, four weights (0 but for those anchors).
    """
    values, weights = split_truth(truth)
    losses = ops.sum(smooth_l1(deltas - values, beta) * weights, axis=(1, 2))
    return losses / ops.maximum(ops.sum(weights, axis=(1, 2)) / 4.0, 1.0)


def objectness_loss(truth: Any, logits: Any) -> Any:
    """Cross-entropy of ``logits [n, anchors, 1]``, weights sum to 1 an image; ``truth`` is ``[n, anchors, 2]``."""
    values, weights = split_truth(truth)
    return ops.sum(cross_entropies(values, logits) * weights, axis=(1, 2))


POSITIVE = 0.5
"""A proposal answers for the box that it overlaps most, if by this at least."""
LEAST_SHARE = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """For each proposal: ``box [n, p, 4]`` and ``label [n, p]`` of its true box, and whether it answers for it."""

    box: Any
    label: Any
    positive: Any


def assign(proposals: Any, truth: Any) -> Assigned:
    """Match proposals ``[n, p, 4]`` with true boxes ``[n, m, 5 or more]`` (edges, label; -1: none)."""
    real = ops.cast(truth[:, None, :, 4] >= 0.0, proposals.dtype)
    table = overlaps(proposals, truth[..., :4], ops) * real
    own = rows_of(truth[..., :5], ops.argmax(table, axis=-1))
    positive = ops.cast(ops.max(table, axis=-1) >= POSITIVE, proposals.dtype)
    return Assigned(*(ops.stop_gradient(item) for item in (own[..., :4], own[..., 4], positive)))


def proposal_weights(positive: Any, known: Any) -> Any:
    """Weights ``[n, p]`` of proposals, summing to 1 an image; ``known [n, 1]`` is how far there is nothing else."""
    count = ops.sum(positive, axis=-1, keepdims=True)
    rest = ops.sum(1.0 - positive, axis=-1, keepdims=True)
    share = ops.where(count > 0.0, ops.maximum(count / positive.shape[1], LEAST_SHARE), 0.0)
    nothing = known * (1.0 - share) / ops.maximum(rest, 1.0)
    return positive * share / ops.maximum(count, 1.0) + (1.0 - positive) * nothing


def pack_heads(proposals: Any, logits: Any, deltas: Any) -> Any:
    """Proposals and both heads' answers side by side: ``[n, p, 4 + (1 + labels) + 4 * labels]``."""
    return ops.concatenate([proposals, logits, deltas], axis=-1)


def heads_loss(labels: int) -> Loss:
    """The loss of :func:`pack_heads` for truths of :func:`models.detectors.targets.second_stage`.

    Cross-entropy over nothing and each label, and smooth L1 of the corrections of the proposal's own label.
    """

    def loss(truth: Any, answer: Any) -> Any:
        proposals = ops.stop_gradient(answer[..., :4])
        logits, deltas = answer[..., 4 : 5 + labels], answer[..., 5 + labels :]
        found = assign(proposals, truth)
        weights = proposal_weights(found.positive, truth[:, :1, 5])
        kinds = _one_hot((found.label + 1.0) * found.positive, 1 + labels)
        entropy = ops.logsumexp(logits, axis=-1) - ops.sum(kinds * logits, axis=-1)
        each = ops.reshape(deltas, (-1, answer.shape[1], labels, 4))
        own = ops.sum(each * kinds[..., 1:, None], axis=-2)
        wanted = encode(found.box, proposals, REFINING, ops)
        correction = ops.sum(smooth_l1((own - wanted) * found.positive[..., None], 1.0), axis=-1)
        return ops.sum(weights * (entropy + correction), axis=-1)

    return loss


def _one_hot(index: Any, count: int) -> Any:
    return ops.one_hot(ops.cast(index, "int32"), count, dtype=index.dtype)


Array = NDArray[np.float32]

SHAPES = ("masks", "rectangles", "ellipses")
"""What a mask head learns: the data's masks, or shapes that fill the boxes where there are no masks."""
REDUCTION = 2
"""Network pixels by cells of a mask in the truth."""


def masks_for(batch: Batch, boxes: Array, shape: str, size: int) -> Array:
    """The masks ``[n, size / 2, size / 2, labels]`` that are to be learnt, as fractions.

    Raises:
        ValueError: the data have no masks and ``shape`` asks for them.
    """
    if shape != "masks":
        return np.stack([drawn(own, shape, size, batch.labels.shape[1]) for own in boxes])
    if batch.masks is None:
        raise ValueError("the data have no masks: set the option shapes to 'rectangles' or 'ellipses'")
    side = size // REDUCTION
    cells = batch.masks.reshape(len(batch.masks), side, REDUCTION, side, REDUCTION, -1)
    fractions: Array = cells.mean(axis=(2, 4)).astype(np.float32)
    return fractions


def drawn(boxes: Array, shape: str, size: int, labels: int) -> Array:
    """Boxes ``[m, 5]`` of an image as filled rectangles or ellipses: ``[size / 2, size / 2, labels]``."""
    side = size // REDUCTION
    canvas = np.zeros((side, side, labels), dtype=np.float32)
    at = (np.arange(side, dtype=np.float32) + 0.5) * REDUCTION
    for left, top, right, bottom, label in boxes[boxes[:, 4] >= 0]:
        across = 2 * np.abs(at - (left + right) / 2) / max(right - left, 1e-6)
        down = 2 * np.abs(at - (top + bottom) / 2) / max(bottom - top, 1e-6)
        if shape == "rectangles":
            inside = np.maximum(across[np.newaxis, :], down[:, np.newaxis]) <= 1
        else:
            inside = across[np.newaxis, :] ** 2 + down[:, np.newaxis] ** 2 <= 1
        canvas[inside, int(label)] = 1
    return canvas


def pack_truth(masks: Array, boxes: Array) -> Array:
    """Masks and the second stage's boxes ``[n, m, 6]`` in one row an image, ``[n, cells, 1]``."""
    count = len(masks)
    flat = np.concatenate([masks.reshape(count, -1), boxes.reshape(count, -1)], axis=1)
    return flat[..., np.newaxis].astype(np.float32)


def mask_loss(labels: int, size: int, resolution: int) -> Loss:
    """The loss of proposals with their masks ``[n, k, 4 + resolution**2 * labels]`` for :func:`pack_truth`.

    Cross-entropy of the logits of the label that a proposal answers for (He et al.), averaged over its cells and over
    the proposals that answer for a box. What lies outside of that box is none of its mask.
    """
    side = size // REDUCTION

    def loss(truth: Any, answer: Any) -> Any:
        count, whole = ops.shape(truth)[0], side * side * labels
        masks = ops.reshape(truth[:, :whole, 0], (-1, side, side, labels))
        boxes = ops.reshape(truth[:, whole:, 0], (count, -1, 6))
        proposals = ops.stop_gradient(answer[..., :4])
        logits = ops.reshape(answer[..., 4:], (-1, answer.shape[1], resolution, resolution, labels))
        found = assign(proposals, boxes)
        kinds = ops.cast(ops.equal(found.label[..., None], ops.arange(labels, dtype="float32")), answer.dtype)
        kinds = kinds[:, :, None, None, :]
        cut = ops.sum(align(proposals, masks, REDUCTION, resolution) * kinds, axis=-1)
        inside = _inside(proposals, found.box, resolution)
        wanted = ops.stop_gradient(ops.cast(cut >= 0.5, answer.dtype) * inside)
        each = ops.mean(cross_entropies(wanted, ops.sum(logits * kinds, axis=-1)), axis=(2, 3))
        return ops.sum(each * found.positive, axis=1) / ops.maximum(ops.sum(found.positive, axis=1), 1.0)

    return loss


def _inside(proposals: Any, boxes: Any, resolution: int) -> Any:
    """Which cells of proposals ``[n, k, 4]`` lie in boxes ``[n, k, 4]``: ``[n, k, resolution, resolution]``."""
    steps = (ops.arange(resolution, dtype="float32") + 0.5) / resolution

    def along(low: int, high: int) -> Any:
        start, end = proposals[..., low, None], proposals[..., high, None]
        points = start + (end - start) * steps
        own = ops.logical_and(points >= boxes[..., low, None], points < boxes[..., high, None])
        return ops.cast(own, proposals.dtype)

    return along(1, 3)[..., :, None] * along(0, 2)[..., None, :]
