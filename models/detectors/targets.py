"""Targets of each anchor in a batch: truths with their weights packed in the last axis (see ``losses``)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.architectures.base import Batch
from models.detectors.boxes import encode, overlaps
from models.localise import region_boxes

Array = NDArray[np.float32]


def label_truth(matches: Matches, boxes: Array, known: Array) -> Array:
    """For each anchor and label whether it answers for a box of it: ``[anchors, 2 * labels]``.

    ``boxes [m, 5]`` are the true ones, ``known [labels]`` how far they are all of their label.
    """
    values = np.zeros((len(matches.box), len(known)), dtype=np.float32)
    weights = np.where(matches.box[:, np.newaxis] == -2, np.float32(0), known[np.newaxis, :]).astype(np.float32)
    rows = np.flatnonzero(matches.positive)
    values[rows, boxes[matches.box[rows], 4].astype(int)] = 1.0
    return np.concatenate([values, np.maximum(weights, values)], axis=-1)


def delta_truth(matches: Matches, boxes: Array, anchors: Array) -> Array:
    """How far the true box of each anchor is from it, ``[anchors, 8]``; weight 0 for an anchor that has none."""
    truth = np.zeros((len(anchors), 8), dtype=np.float32)
    rows = np.flatnonzero(matches.positive)
    truth[rows, :4] = encode(boxes[matches.box[rows], :4], anchors[rows])
    truth[rows, 4:] = 1.0
    return truth


def objectness_truth(matches: Matches, known: float) -> Array:
    """Whether each anchor answers for any box, ``[anchors, 2]``.

    The weights of an image sum to 1, half of it for either kind if it has both: what drawing 128 anchors of each kind
    (Ren et al.) aims at, without drawing. ``known`` is how far there is nothing else.
    """
    positive, negative = matches.positive, matches.negative
    weights = np.zeros(len(matches.box), dtype=np.float32)
    share = 0.5 if positive.any() else 1.0
    weights[positive] = share / max(1, int(positive.sum()))
    weights[negative] = known * share / max(1, int(negative.sum()))
    return np.stack([positive.astype(np.float32), weights], axis=-1)


def one_stage(batch: Batch, anchors: Array, high: float = 0.5, low: float = 0.4) -> dict[str, Array]:
    """Truths of a RetinaNet: ``class_logits`` and ``box_deltas`` (its published thresholds)."""
    boxes = boxes_of(batch)
    known = complete(batch, boxes)
    classes, deltas = [], []
    for own, whole in zip(boxes, known, strict=True):
        own = own[own[:, 4] >= 0]
        matches = match(anchors, own[:, :4], high, low)
        classes.append(label_truth(matches, own, whole))
        deltas.append(delta_truth(matches, own, anchors))
    return {"class_logits": np.stack(classes), "box_deltas": np.stack(deltas)}


def region_proposals(batch: Batch, anchors: Array, high: float = 0.7, low: float = 0.3) -> dict[str, Array]:
    """Truths of a region proposal network: ``rpn_logits`` and ``rpn_deltas`` (its published thresholds)."""
    boxes = boxes_of(batch)
    known = complete(batch, boxes).min(axis=1)
    logits, deltas = [], []
    for own, whole in zip(boxes, known, strict=True):
        own = own[own[:, 4] >= 0]
        matches = match(anchors, own[:, :4], high, low)
        logits.append(objectness_truth(matches, float(whole)))
        deltas.append(delta_truth(matches, own, anchors))
    return {"rpn_logits": np.stack(logits), "rpn_deltas": np.stack(deltas)}


def second_stage(batch: Batch) -> Array:
    """The true boxes as they stand, for a loss that matches them itself: ``[n, most, 6]``.

    The last column says how far there is nothing beside them.
    """
    boxes = boxes_of(batch)
    known = complete(batch, boxes).min(axis=1)
    last = np.broadcast_to(known[:, np.newaxis, np.newaxis], (*boxes.shape[:2], 1))
    return np.concatenate([boxes, last], axis=-1).astype(np.float32)


REGIONS = 4
"""Boxes that are made of one mask, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """For each anchor of one image: ``box`` is the row of its true box, ``-1`` for background, ``-2`` for neither."""

    box: NDArray[np.int64]

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Anchors that answer for a box."""
        return np.greater_equal(self.box, 0)

    @property
    def negative(self) -> NDArray[np.bool_]:
        """Anchors that should say that nothing is there."""
        return np.equal(self.box, -1)


def match(anchors: Array, boxes: Array, high: float, low: float) -> Matches:
    """Give each anchor ``[a, 4]`` the true box ``[m, 4]`` that it overlaps most, if by ``high`` at least.

    One that overlaps none by ``low`` is background; between the two it is neither. The anchor that overlaps a box most
    answers for it in any case, so that no box is lost (all of them, where several do so equally).
    """
    if len(boxes) == 0:
        return Matches(np.full(len(anchors), -1, dtype=np.int64))
    table = overlaps(anchors, boxes)
    best = table.max(axis=1)
    chosen = np.where(best >= high, table.argmax(axis=1), np.where(best < low, -1, -2))
    for row in range(len(boxes)):
        own = table[:, row]
        if own.max() > 0:
            chosen[own >= own.max() - 1e-6] = row
    return Matches(chosen.astype(np.int64))


def boxes_of(batch: Batch) -> Array:
    """A batch's boxes ``[n, rows, 5]``, the last column the index of the label, -1 where a row is empty.

    A finding that is marked by a mask alone (as in SIIM-ACR) gets a box round each of its :data:`REGIONS` largest
    regions.

    Raises:
        ValueError: the batch has neither boxes nor masks.
    """
    if batch.boxes is None and batch.masks is None:
        raise ValueError("a detector learns from boxes or masks, and the data give none")
    count = len(batch.pixels)
    drawn = np.zeros((count, 0, 5), np.float32) if batch.boxes is None else np.asarray(batch.boxes, dtype=np.float32)
    if batch.masks is None:
        return drawn
    labels = batch.masks.shape[-1]
    rows = np.full((count, REGIONS * labels, 5), -1, dtype=np.float32)
    for image, label in np.argwhere(batch.masks.any(axis=(1, 2))):
        if not (drawn[image, :, 4] == label).any():
            found = region_boxes(batch.masks[image, ..., label] >= 0.5)[:REGIONS]
            rows[image, label * REGIONS : label * REGIONS + len(found), :4] = found
            rows[image, label * REGIONS : label * REGIONS + len(found), 4] = label
    return np.concatenate([drawn, rows], axis=1)


def complete(batch: Batch, boxes: Array) -> Array:
    """How far all boxes of a label are drawn in an image, ``[n, labels]``, from 0 to 1.

    Where the batch does not say how far places are known: an image that is said to have a finding and has no box for it
    teaches nothing about it, for it is somewhere.
    """
    if batch.mask_known is not None:
        return np.minimum(batch.mask_known, 1.0).astype(np.float32)
    drawn = (boxes[:, :, 4:5] == np.arange(batch.labels.shape[1])).any(axis=1)
    absent = np.minimum(batch.known, 1.0) * (batch.labels < 0.5)
    return np.where(drawn, np.float32(1), absent).astype(np.float32)
