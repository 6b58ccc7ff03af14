"""Features under a box, on a small grid of its own: RoI align (He et al., Mask R-CNN, 2017) as two small products.

Averaging bilinear samples is linear and separable: for each box there is one matrix that picks rows and one that picks
columns. No gather is needed, so the gradient is a product as well: the same on every run, also on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from models.detectors.boxes import EPSILON, area

SAMPLES = 2
"""Points along each side of a cell of which the mean is taken."""
CANONICAL_SIDE = 224.0
CANONICAL_STRIDE = 16
"""A box with the side of an ImageNet picture looks at the features of this stride (Lin et al., FPN, 2017)."""


def align(boxes: Any, features: Any, stride: float, resolution: int) -> Any:
    """Features ``[n, h, w, c]`` of ``stride`` under ``boxes [n, k, 4]``: ``[n, k, resolution, resolution, c]``.

    A feature belongs to the centre of its cell; beyond the outermost centres their values hold on.
    """
    down = _picks(boxes[..., 1], boxes[..., 3], features.shape[1], stride, resolution)
    across = _picks(boxes[..., 0], boxes[..., 2], features.shape[2], stride, resolution)
    rows = ops.einsum("nkih,nhwc->nkiwc", down, features)
    return ops.einsum("nkjw,nkiwc->nkijc", across, rows)


def align_pyramid(boxes: Any, features: Sequence[Any], strides: Sequence[int], resolution: int) -> Any:
    """As :func:`align`, each box from the one of several features that suits its size."""
    if len(features) == 1:
        return align(boxes, features[0], strides[0], resolution)
    level = level_of(boxes, strides)
    parts = []
    for index, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        own = ops.cast(ops.equal(level, index), feature.dtype)
        parts.append(align(boxes, feature, stride, resolution) * own[:, :, None, None, None])
    return sum(parts[1:], parts[0])


def level_of(boxes: Any, strides: Sequence[int]) -> Any:
    """Which of the strides (ascending powers of two) each box ``[n, k, 4]`` looks at: ``float[n, k]``, an index."""
    side = ops.sqrt(ops.maximum(area(boxes, ops), EPSILON))
    octave = ops.floor(ops.log(side / CANONICAL_SIDE) / float(np.log(2.0)) + EPSILON)
    return ops.clip(octave + float(np.log2(CANONICAL_STRIDE / strides[0])), 0.0, float(len(strides) - 1))


def _picks(low: Any, high: Any, cells: int, stride: float, resolution: int) -> Any:
    """For each box, how much of each of ``cells`` goes into each of its ``resolution`` parts: ``[n, k, parts, cells]``.

    ``low`` and ``high`` are the box's edges in pixels, ``[n, k]``.
    """
    steps = (ops.arange(resolution * SAMPLES, dtype="float32") + 0.5) / (resolution * SAMPLES)
    points = low[..., None] + (high - low)[..., None] * steps
    at = ops.clip(points / stride - 0.5, 0.0, float(cells - 1))
    distance = ops.abs(at[..., None] - ops.arange(cells, dtype="float32"))
    weights = ops.maximum(1.0 - distance, 0.0)
    grouped = ops.reshape(weights, (-1, low.shape[1], resolution, SAMPLES, cells))
    return ops.mean(grouped, axis=3)
