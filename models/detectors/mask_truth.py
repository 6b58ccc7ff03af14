"""Masks as a mask head learns them: whole in the truth, cut out under each proposal in the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from models.architectures.contract import Batch, Loss
from models.detectors.losses import cross_entropy
from models.detectors.roi_align import align
from models.detectors.second_stage import assign

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
        each = ops.mean(cross_entropy(wanted, ops.sum(logits * kinds, axis=-1)), axis=(2, 3))
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
