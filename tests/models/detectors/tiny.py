"""A tiny set of squares to find, for the tests of whole detectors."""

from __future__ import annotations

import numpy as np

from models.architectures.base import Batch

SIZE = 64


def squares(count: int, seed: int = 0, labels: int = 2) -> Batch:
    """Noise with one bright box in every second image, of alternating label."""
    rng = np.random.default_rng(seed)
    pixels = rng.random((count, SIZE, SIZE, 1)).astype(np.float32) * 0.3
    found, boxes = np.zeros((count, labels), np.float32), np.full((count, 2, 5), -1, np.float32)
    masks = np.zeros((count, SIZE, SIZE, labels), np.float32)
    for image in range(0, count, 2):
        width, height = rng.integers(14, 26, 2)
        left, top = rng.integers(0, SIZE - width), rng.integers(0, SIZE - height)
        label = image // 2 % labels
        pixels[image, top : top + height, left : left + width] += 0.6
        found[image, label] = 1
        boxes[image, 0] = (left, top, left + width, top + height, label)
        masks[image, top : top + height, left : left + width, label] = 1
    return Batch(pixels, found, np.ones_like(found), masks, np.ones_like(found), boxes)
