"""Losses that know how far each target can be trusted. Backend-agnostic: only ``keras.ops``.

Keras gives a loss one tensor of truths; ours carry values and weights side by side in the last axis (first half values,
second half weights), because a weight of zero, "not known", differs from label to label.
"""

from __future__ import annotations

from typing import Any

from keras import ops

EPSILON = 1e-6


def split_truth(truth: Any) -> tuple[Any, Any]:
    """Values and weights of a packed truth tensor."""
    values, weights = ops.split(truth, 2, axis=-1)
    return values, weights


def weighted_bce(truth: Any, logits: Any) -> Any:
    """Binary cross-entropy of logits ``[n, labels]``, weighted by how far each label is known; one value an example.

    The sum over labels is divided by their number, not by the known weight: an example with one known label counts less
    than one with seventeen.
    """
    values, weights = split_truth(truth)
    losses = ops.maximum(logits, 0.0) - logits * values + ops.log1p(ops.exp(-ops.abs(logits)))
    return ops.mean(losses * weights, axis=-1)


def soft_dice(values: Any, predictions: Any, axis: tuple[int, ...]) -> Any:
    """Dice coefficient of fractions in ``[0, 1]``; 1 where both are empty."""
    overlap = 2.0 * ops.sum(values * predictions, axis=axis)
    total = ops.sum(values, axis=axis) + ops.sum(predictions, axis=axis)
    return (overlap + EPSILON) / (total + EPSILON)


def map_loss(truth: Any, probabilities: Any) -> Any:
    """Cross-entropy of a map ``[n, h, w, 1]``, and ``1 - Dice`` where the truth is not empty; one value an example."""
    values, weights = split_truth(truth)
    clipped = ops.clip(probabilities, EPSILON, 1.0 - EPSILON)
    losses = -(values * ops.log(clipped) + (1.0 - values) * ops.log(1.0 - clipped))
    entropy = ops.mean(losses * weights, axis=(1, 2, 3))
    filled = ops.cast(ops.sum(values, axis=(1, 2, 3)) > 0, probabilities.dtype)
    known = ops.mean(weights, axis=(1, 2, 3))
    return entropy + 0.2 * filled * known * (1.0 - soft_dice(values, probabilities, (1, 2, 3)))
