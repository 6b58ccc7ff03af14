"""From the logits of places to the logit of the image, where several families pool alike."""

from __future__ import annotations

from typing import Any

from keras import ops


def probability_weighted_pooling(logits: Any) -> Any:
    """Logit of an image from the logits of its places, each weighted by its own probability (PCAM, Ye et al. 2020).

    ``[n, h, w, labels]`` to ``[n, labels]``. The map keeps its meaning: the places that say *yes* decide.
    """
    weights = ops.sigmoid(logits)
    return ops.sum(weights * logits, axis=(1, 2)) / (ops.sum(weights, axis=(1, 2)) + 1e-6)
