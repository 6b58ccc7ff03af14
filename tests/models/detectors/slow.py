"""What the detectors' geometry must say, written out in plain loops."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def overlap(one: Array, other: Array) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0.0) * max(height, 0.0)
    either = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both
    return float(both / either) if either > 0 else 0.0


def greedy(boxes: Array, threshold: float, kinds: NDArray[np.int64] | None = None) -> list[int]:
    """Rows that greedy suppression keeps of boxes that are sorted by score, as torchvision's nms has it."""
    kept: list[int] = []
    for row in range(len(boxes)):
        rivals = [other for other in kept if kinds is None or kinds[other] == kinds[row]]
        if all(overlap(boxes[row], boxes[other]) <= threshold for other in rivals):
            kept.append(row)
    return kept


def bilinear(feature: Array, y: float, x: float) -> Array:
    """A value between the centres of cells, the outermost ones holding on beyond them."""
    rows, columns = feature.shape[:2]
    y, x = min(max(y, 0.0), rows - 1.0), min(max(x, 0.0), columns - 1.0)
    top, left = math.floor(y), math.floor(x)
    below, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    down, across = y - top, x - left
    value = (1 - down) * ((1 - across) * feature[top, left] + across * feature[top, right])
    return np.asarray(value + down * ((1 - across) * feature[below, left] + across * feature[below, right]))


def aligned(feature: Array, box: Array, stride: float, resolution: int, samples: int) -> Array:
    """RoI align of one box: the mean of samples x samples points in each cell (aligned, as in Detectron 2)."""
    left, top, right, bottom = (float(edge) / stride - 0.5 for edge in box)
    height, width = (bottom - top) / resolution, (right - left) / resolution
    found = np.zeros((resolution, resolution, feature.shape[2]), np.float64)
    for row in range(resolution):
        for column in range(resolution):
            for down in range(samples):
                for across in range(samples):
                    y = top + height * (row + (down + 0.5) / samples)
                    x = left + width * (column + (across + 0.5) / samples)
                    found[row, column] += bilinear(feature, y, x) / samples**2
    return found.astype(np.float32)
