"""What detectors learn from, in ``keras.ops``; each loss answers one value an example.

Truths are packed as in :mod:`models.training.losses`: values and weights side by side in the last axis.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from models.training.losses import split_truth

ALPHA, GAMMA = 0.25, 2.0
"""Balance and focus of the focal loss (Lin et al., 2017)."""


def cross_entropy(values: Any, logits: Any) -> Any:
    """Binary cross-entropy of logits, element by element."""
    return ops.maximum(logits, 0.0) - logits * values + ops.log1p(ops.exp(-ops.abs(logits)))


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
    losses = balance * ops.power(wrong, GAMMA) * cross_entropy(values, logits) * weights
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
    return ops.sum(cross_entropy(values, logits) * weights, axis=(1, 2))
