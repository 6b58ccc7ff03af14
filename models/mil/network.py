"""Cut radiographs into patches that a network sees each by itself, and lay what it saw of them side by side again."""

from __future__ import annotations

import math
from typing import Any

from keras import layers, ops

from models.architectures.pooling import probability_weighted_pooling
from models.encoders.parts import scaled


def cut(image: Any, grid: int) -> Any:
    """``[n, size, size, c]`` as ``grid`` x ``grid`` patches of each image: ``[n grid grid, size/grid, size/grid, c]``.

    Raises:
        ValueError: the patches would not be squares whose sides are multiples of 32.
    """
    size, channels = int(image.shape[1]), int(image.shape[-1])
    if grid < 1 or size % (32 * grid):
        raise ValueError(f"patches = {grid} does not cut {size} x {size} into squares with sides of 32, 64, 96 ...")
    if grid == 1:
        return image
    side = size // grid
    x = ops.reshape(image, (-1, grid, side, grid, side, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, side, side, channels))


def lay(features: Any, grid: int) -> Any:
    """Undo :func:`cut` on features of patches: ``[n grid grid, h, h, c]`` as ``[n, grid h, grid h, c]``."""
    if grid == 1:
        return features
    side, channels = int(features.shape[1]), int(features.shape[-1])
    x = ops.reshape(features, (-1, grid, grid, side, side, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, grid * side, grid * side, channels))


POOLINGS = ("noisy-or", "attention", "max", "weighted", "mean")
"""``noisy-or``: one minus the chance that every place is empty. ``attention``: the mean of places, weighted by how much
the network attends to them (Ilse et al., 2018). ``max``: the place that says *yes* loudest. ``weighted``: the mean of
places, weighted by their own probability (Ye et al., 2020). ``mean``: all places alike."""
ATTENTION = 128
LEAST = 1e-6


def noisy_or(places: Any) -> Any:
    """Logit of ``1 - prod(1 - p)`` over the places of ``[n, h, w, labels]``.

    With ``s = sum(-log(1 - p))`` this is ``log(exp(s) - 1)``, written so that neither end overflows.
    """
    emptiness = ops.sum(ops.softplus(places), axis=(1, 2))
    emptiness = ops.maximum(emptiness, LEAST)
    return emptiness + ops.log(1.0 - ops.exp(-emptiness))


def attend(features: Any, places: Any, width: float) -> tuple[Any, Any]:
    """Gated attention over features ``[n, h, w, c]``, a head for each label: the image's logits, and those of its map.

    A place that the network does not attend to has no say, whatever its own logit: its logit in the map is lowered by
    how much less than the best place it is attended to.
    """
    labels, units = int(places.shape[-1]), scaled(ATTENTION, width)
    seen = layers.Conv2D(units, 1, activation="tanh", name="attention_seen")(features)
    gate = layers.Conv2D(units, 1, activation="sigmoid", name="attention_gate")(features)
    scores = layers.Conv2D(labels, 1, dtype="float32", name="attention")(layers.Multiply(name="gated")([seen, gate]))
    relative = scores - ops.max(scores, axis=(1, 2), keepdims=True)
    weights = ops.exp(relative)
    logits = ops.sum(weights * places, axis=(1, 2)) / ops.sum(weights, axis=(1, 2))
    return logits, places + relative


def pool(features: Any, places: Any, how: str, width: float) -> tuple[Any, Any]:
    """Logits ``[n, labels]`` of images, and of their maps ``[n, h, w, labels]``, from features and places' logits.

    Raises:
        ValueError: there is no such pooling.
    """
    match how:
        case "noisy-or":
            return noisy_or(places), places
        case "attention":
            return attend(features, places, width)
        case "max":
            return ops.max(places, axis=(1, 2)), places
        case "weighted":
            return probability_weighted_pooling(places), places
        case "mean":
            return ops.mean(places, axis=(1, 2)), places
    raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, not '{how}'")


def prior(how: str, places: int) -> float:
    """The logit that every place starts from: so many places that could each be it make *yes* too likely at first."""
    return -math.log(places) if how == "noisy-or" else 0.0
