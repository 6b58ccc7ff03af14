"""Losses with a weight for each target. Backend-agnostic: only ``keras.ops``.

Keras gives a loss one tensor of truths; ours carry values and weights side by side in the last axis (first half values,
second half weights), because a weight of zero, "not known", differs from label to label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

EPSILON = 1e-6

MapLoss = Callable[[Any, Any], Any]


def split_truth(truth: Any) -> tuple[Any, Any]:
    """Values and weights of a packed truth tensor."""
    values, weights = ops.split(truth, 2, axis=-1)
    return values, weights


def cross_entropies(values: Any, logits: Any) -> Any:
    """Binary cross-entropy of each logit, without overflow."""
    logits = ops.cast(logits, "float32")
    return ops.maximum(logits, 0.0) - logits * values + ops.log1p(ops.exp(-ops.abs(logits)))


def weighted_bce(truth: Any, logits: Any) -> Any:
    """Binary cross-entropy of logits ``[n, labels]``, weighted by how far each label is known; one value an example.

    The sum over labels is divided by their number, not by the known weight: an example with one known label counts less
    than one with seventeen.
    """
    values, weights = split_truth(truth)
    return ops.mean(cross_entropies(values, logits) * weights, axis=-1)


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


def weighted_softmax(truth: Any, logits: Any) -> Any:
    """Cross-entropy of mutually exclusive classes ``[n, classes]``; one value an example.

    The weight of the true class counts: zero where it is not known, larger for a rare class.
    """
    values, weights = split_truth(truth)
    return -ops.sum(values * weights * ops.log_softmax(ops.cast(logits, "float32"), axis=-1), axis=-1)


def map_bce(truth: Any, logits: Any) -> Any:
    """Binary cross-entropy of a map's logits ``[n, h, w, labels]``, mean over places and labels; one value an example.

    Places and labels of weight zero, not known, are counted as no loss.
    """
    values, weights = split_truth(truth)
    return ops.mean(cross_entropies(values, logits) * weights, axis=(1, 2, 3))


def map_positive_bce(positive: float) -> MapLoss:
    """As :func:`map_bce`, with places that have the finding (or a share of it) counting ``positive`` times."""

    def loss(truth: Any, logits: Any) -> Any:
        values, weights = split_truth(truth)
        balance = 1.0 + (positive - 1.0) * values
        return ops.mean(cross_entropies(values, logits) * weights * balance, axis=(1, 2, 3))

    return loss


def map_dice(smoothing: float = 1.0, *, empty: bool = True) -> MapLoss:
    """Soft Dice loss of a map's logits with ``smoothing`` in numerator and denominator; one value an example.

    ``1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s)`` for each label over its image, then the mean over the labels. With
    the smoothing (1 in the SIIM-ACR notebooks) an empty mask teaches as well: the fewer pixels are said, the less loss.
    Unless ``empty``, it does not: of an image without the finding another loss has to say so.
    """

    def loss(truth: Any, logits: Any) -> Any:
        values, weights = split_truth(truth)
        predicted = ops.sigmoid(ops.cast(logits, "float32")) * weights
        overlap = 2.0 * ops.sum(predicted * values, axis=(1, 2)) + smoothing
        total = ops.sum(predicted, axis=(1, 2)) + ops.sum(values * weights, axis=(1, 2)) + smoothing
        known = ops.max(weights, axis=(1, 2))
        if not empty:
            known = known * ops.cast(ops.max(values, axis=(1, 2)) > 0, known.dtype)
        return ops.mean(known * (1.0 - overlap / total), axis=-1)

    return loss


def map_focal(gamma: float = 2.0, alpha: float = 0.25) -> MapLoss:
    """Focal loss of a map's logits (Lin et al., 2017), mean over places and labels; one value an example.

    ``-a (1 - q)^gamma log q`` with ``q`` the probability given to the truth and ``a`` = ``alpha`` for what is there,
    ``1 - alpha`` for what is not.
    """

    def loss(truth: Any, logits: Any) -> Any:
        values, weights = split_truth(truth)
        entropy = cross_entropies(values, logits)
        balance = alpha * values + (1.0 - alpha) * (1.0 - values)
        hard = ops.power(ops.maximum(-ops.expm1(-entropy), EPSILON), gamma)
        return ops.mean(weights * balance * hard * entropy, axis=(1, 2, 3))

    return loss


def added(first: MapLoss, second: MapLoss, share: float = 1.0) -> MapLoss:
    """The first loss and ``share`` times the second."""

    def loss(truth: Any, logits: Any) -> Any:
        return first(truth, logits) + share * second(truth, logits)

    return loss
