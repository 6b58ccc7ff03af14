"""VGG (Simonyan and Zisserman, 2014): VGG16 as published, and a small one with batch normalisation."""

from __future__ import annotations

from typing import Any

from keras import layers

from models.encoders.parts import convolve, convolve_normalise_relu, relu, repeated, scaled

VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
SMALL = ((1, 16), (1, 32), (2, 64), (2, 128), (2, 128))
"""Convolutions and filters of the five blocks."""


def build(image: Any, width: float, blocks: tuple[tuple[int, int], ...], *, normalised: bool = False) -> dict[int, Any]:
    """Features before each pool (strides 1 to 16) and after the last (32)."""
    features, x = {}, image
    for block, (convolutions, filters) in enumerate(blocks, start=1):
        for number in range(1, repeated(convolutions, width) + 1):
            name = f"block{block}_conv{number}"
            if normalised:
                x = convolve_normalise_relu(x, scaled(filters, width), 3, name)
            else:
                x = relu(convolve(x, scaled(filters, width), 3, name, bias=True), f"{name}_relu")
        features[2 ** (block - 1)] = x
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    features[2 ** len(blocks)] = x
    return features
