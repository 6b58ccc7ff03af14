"""What each anchor should say of a batch: truths with their weights packed in the last axis (``training.losses``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.architectures.contract import Batch
from models.detectors.boxes import encode
from models.detectors.matching import Matches, boxes_of, complete, match

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
