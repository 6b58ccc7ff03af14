"""Plain encoders: two convolutions a level, halved by pooling, as on the left side of the first U-Net (2015)."""

from __future__ import annotations

from typing import Any

from keras import layers

from models.encoders.parts import convolve_normalise_relu, scaled

PLAIN = (64, 128, 256, 512, 1024, 1024)
LIGHT = (8, 16, 32, 64, 64, 128)
"""Filters at strides 1, 2, 4 ... 32 of the published U-Net, and of a light one that public notebooks use."""


def build(image: Any, width: float, filters: tuple[int, ...]) -> dict[int, Any]:
    """Features at strides 1 to 32; the published network has batch normalisation since its reimplementations."""
    features, x = {}, image
    for level, count in enumerate(filters):
        if level:
            x = layers.MaxPooling2D(2, name=f"level{level}_pool")(x)
        x = convolve_normalise_relu(x, scaled(count, width), 3, f"level{level}_conv1")
        x = convolve_normalise_relu(x, scaled(count, width), 3, f"level{level}_conv2")
        features[2**level] = x
    return features
