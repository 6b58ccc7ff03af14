"""Semantic feature pyramid (Kirillov et al., 2019): features of every stride, each enlarged to stride 4, and summed."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import initializers, layers, ops

from models.encoders.parts import convolve_normalise_relu, scaled
from models.encoders.pyramid import pyramid
from models.encoders.table import encode

STRIDES = (4, 8, 16, 32)
STRIDE = STRIDES[0]
"""Of the map."""
PRIOR = 0.05
"""What every place says at first: about the share of an image that a finding fills."""


def map_logits(image: Any, encoder: str, labels: int, filters: int, *, width: float, initial: str) -> Any:
    """Logits ``[n, size / 4, size / 4, labels]`` of an image ``[n, size, size, 1]`` in ``[0, 1]``."""
    depth = scaled(filters, width)
    levels = pyramid(encode(encoder, image, width, initial), STRIDES, depth)
    parts = []
    for stride, x in levels.items():
        x = convolve_normalise_relu(x, depth, 3, f"level_{stride}")
        if stride > STRIDE:
            x = layers.UpSampling2D(stride // STRIDE, interpolation="bilinear", name=f"enlarge_{stride}")(x)
        parts.append(x)
    x = convolve_normalise_relu(layers.Add(name="levels")(parts), depth, 3, "joined")
    bias = initializers.Constant(-math.log((1 - PRIOR) / PRIOR))
    return layers.Conv2D(labels, 1, bias_initializer=bias, dtype="float32", name="map_logits")(x)


def with_mirror_image(network: keras.Model) -> keras.Model:
    """A network of ``maps`` that sees the mirror image too; its map is turned back, and the mean counts."""
    image = keras.Input(network.input_shape[1:], name="image")
    # One pass over a batch twice as long: the exported file then holds the network once.
    both = network(ops.concatenate([image, ops.flip(image, axis=2)], axis=0))["maps"]
    straight, turned = ops.unstack(ops.reshape(both, (2, -1, *both.shape[1:])), 2, axis=0)
    maps = layers.Identity(dtype="float32", name="maps")(0.5 * (straight + ops.flip(turned, axis=2)))
    return keras.Model(image, {"maps": maps}, name="mirrored")
