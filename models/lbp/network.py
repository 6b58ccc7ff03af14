"""Local binary patterns (Ojala, Pietikäinen, Mäenpää 2002) as layers, so that they run wherever a network runs.

Every pixel is compared with eight neighbours on a circle; the eight answers, read as a enqueue, are its pattern.
Patterns with at most two changes round the enqueue are *uniform*: 58 of the 256. All others count as one. An image is
described by how often each of the 59 occurs in each cell of a grid, which hardly changes with brightness and contrast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

NEIGHBOURS = 8
UNIFORM_PATTERNS = 59
TIE = 1e-5
"""Differences this far below zero still count as none: 8-bit images have flat areas, where each library's convolution
rounds its own way. A grey level is 400 times as much."""


def uniform_index() -> NDArray[np.int64]:
    """For each of the 256 patterns its number: 0 … 57 for the uniform ones in rising order, 58 for all others."""
    numbers = np.full(256, UNIFORM_PATTERNS - 1)
    found = 0
    for pattern in range(256):
        ring = [(pattern >> place) & 1 for place in range(NEIGHBOURS)]
        if sum(ring[place] != ring[place - 1] for place in range(NEIGHBOURS)) <= 2:
            numbers[pattern] = found
            found += 1
    return numbers


def difference_kernel(radius: int) -> NDArray[np.float32]:
    """Kernel ``[2r+1, 2r+1, 1, 8]``: each neighbour on the circle, interpolated bilinearly, minus the centre.

    Neighbour 0 lies to the right; they follow one another counter-clockwise, as in scikit-image.
    """
    side = 2 * radius + 1
    kernel = np.zeros((side, side, 1, NEIGHBOURS))
    for place in range(NEIGHBOURS):
        angle = 2.0 * np.pi * place / NEIGHBOURS
        row, column = round(-radius * np.sin(angle), 5), round(radius * np.cos(angle), 5)
        top, left = int(np.floor(row)), int(np.floor(column))
        down, right = row - top, column - left
        for y, x, weight in (
            (top, left, (1 - down) * (1 - right)),
            (top, left + 1, (1 - down) * right),
            (top + 1, left, down * (1 - right)),
            (top + 1, left + 1, down * right),
        ):
            if weight > 0:
                kernel[y + radius, x + radius, 0, place] += weight
        kernel[radius, radius, 0, place] -= 1.0
    return kernel.astype(np.float32)


def histograms(image: Any, radius: int, cells: int) -> Any:
    """Pattern histograms of ``[n, size, size, 1]``: ``[n, cells · cells · 59]``, each cell's sum 1."""
    size = int(image.shape[1])
    kernel = layers.Conv2D(NEIGHBOURS, 2 * radius + 1, use_bias=False, trainable=False, name=f"ring{radius}")
    differences = kernel(image)
    kernel.set_weights([difference_kernel(radius)])
    powers = np.asarray([1 << place for place in range(NEIGHBOURS)], np.int32)
    patterns = ops.sum(ops.cast(differences >= -TIE, "int32") * powers, axis=-1)
    table = layers.Embedding(256, UNIFORM_PATTERNS, trainable=False, name=f"uniform{radius}")
    kinds = table(patterns)
    table.set_weights([np.eye(UNIFORM_PATTERNS, dtype=np.float32)[uniform_index()]])
    side = (size - 2 * radius) // cells
    pooled = layers.AveragePooling2D(side, side, name=f"cells{radius}")(kinds)
    return layers.Flatten(name=f"histograms{radius}")(pooled)
