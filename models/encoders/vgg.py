"""A small VGG (Simonyan and Zisserman, 2014) with batch normalisation, for little data."""

from __future__ import annotations

from typing import Any

from keras import layers

from models.encoders.parts import convolve_normalise_relu, repeated, scaled

SMALL = ((1, 16), (1, 32), (2, 64), (2, 128), (2, 128))
"""Convolutions and filters of the five blocks."""


def build(image: Any, width: float) -> dict[int, Any]:
    """Features before each pool (strides 1 to 16) and after the last (32)."""
    features, x = {}, image
    for block, (convolutions, filters) in enumerate(SMALL, start=1):
        for number in range(1, repeated(convolutions, width) + 1):
            x = convolve_normalise_relu(x, scaled(filters, width), 3, f"block{block}_conv{number}")
        features[2 ** (block - 1)] = x
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    features[2 ** len(SMALL)] = x
    return features
