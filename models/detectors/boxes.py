"""Boxes in network pixels, ``[..., 4]``: left, top, right, bottom, edges not centres.

The same formulas serve assignment in NumPy and the graph in ``keras.ops``: each function takes the library of functions
that its arrays belong to as ``xp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-6
LARGEST_GROWTH = float(np.log(1000.0 / 16.0))
"""Bound of a predicted logarithm of growth, so that no early guess overflows (as in Detectron)."""

Weights = tuple[float, float]
"""Factors of a shift and of a logarithm of growth, which bring both near to variance 1."""
UNIT: Weights = (1.0, 1.0)
REFINING: Weights = (10.0, 5.0)
"""Of a second stage, whose corrections are small (Girshick, Fast R-CNN, 2015)."""


def area(boxes: Any, xp: Any = np) -> Any:
    """Areas ``[...]`` in square pixels; 0 for a box whose edges are crossed."""
    return xp.maximum(boxes[..., 2] - boxes[..., 0], 0.0) * xp.maximum(boxes[..., 3] - boxes[..., 1], 0.0)


def overlaps(first: Any, second: Any, xp: Any = np) -> Any:
    """Intersection over union ``[..., a, b]`` of each of ``[..., a, 4]`` with each of ``[..., b, 4]``; 0 if empty."""
    one, other = first[..., :, None, :], second[..., None, :, :]
    width = xp.minimum(one[..., 2], other[..., 2]) - xp.maximum(one[..., 0], other[..., 0])
    height = xp.minimum(one[..., 3], other[..., 3]) - xp.maximum(one[..., 1], other[..., 1])
    both = xp.maximum(width, 0.0) * xp.maximum(height, 0.0)
    either = area(one, xp) + area(other, xp) - both
    return both / xp.maximum(either, EPSILON)


def encode(boxes: Any, references: Any, weights: Weights = UNIT, xp: Any = np) -> Any:
    """How far ``boxes [..., 4]`` are from ``references [..., 4]``: shifts in sizes, logarithms of growth.

    Every width and height must be positive; those below ``EPSILON`` count as that.
    """
    x, y, width, height = _centred(boxes, xp)
    at_x, at_y, across, down = _centred(references, xp)
    shift, grow = weights
    return xp.stack(
        [
            shift * (x - at_x) / across,
            shift * (y - at_y) / down,
            grow * xp.log(width / across),
            grow * xp.log(height / down),
        ],
        -1,
    )


def decode(deltas: Any, references: Any, weights: Weights = UNIT, xp: Any = np) -> Any:
    """The boxes ``[..., 4]`` that :func:`encode` had turned into ``deltas`` relative to ``references``."""
    at_x, at_y, across, down = _centred(references, xp)
    shift, grow = weights
    x = at_x + deltas[..., 0] / shift * across
    y = at_y + deltas[..., 1] / shift * down
    width = across * xp.exp(xp.minimum(deltas[..., 2] / grow, LARGEST_GROWTH))
    height = down * xp.exp(xp.minimum(deltas[..., 3] / grow, LARGEST_GROWTH))
    return xp.stack([x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0], -1)


def clip(boxes: Any, size: int, xp: Any = np) -> Any:
    """Boxes cut to an image of ``size`` x ``size`` pixels."""
    return xp.clip(boxes, 0.0, float(size))


def _centred(boxes: Any, xp: Any) -> tuple[Any, Any, Any, Any]:
    width = xp.maximum(boxes[..., 2] - boxes[..., 0], EPSILON)
    height = xp.maximum(boxes[..., 3] - boxes[..., 1], EPSILON)
    return (boxes[..., 0] + boxes[..., 2]) / 2.0, (boxes[..., 1] + boxes[..., 3]) / 2.0, width, height


Array = NDArray[np.float32]

RATIOS = (0.5, 1.0, 2.0)
"""Heights by widths of the anchors (Ren et al., Faster R-CNN, 2015; Lin et al., RetinaNet, 2017)."""
OCTAVE = (1.0, 2.0 ** (1.0 / 3.0), 2.0 ** (2.0 / 3.0))
"""Sizes within an octave (RetinaNet)."""


@dataclass(frozen=True, slots=True)
class AnchorPlan:
    """Which anchors lie in an image of ``size`` x ``size`` pixels.

    For each of ``strides`` there is a grid of ``ceil(size / stride)`` cells a side; each cell has an anchor for each of
    ``scales`` (side of a square anchor in strides) and each of ``ratios`` (height by width, same area).
    """

    size: int
    strides: tuple[int, ...]
    scales: tuple[float, ...]
    ratios: tuple[float, ...] = RATIOS

    @property
    def each(self) -> int:
        """Anchors of one cell."""
        return len(self.scales) * len(self.ratios)

    @property
    def count(self) -> int:
        """Anchors of one image."""
        return self.each * sum(ceil(self.size / stride) ** 2 for stride in self.strides)

    def boxes(self) -> Array:
        """All anchors ``[count, 4]`` in network pixels: by stride, row, column, scale, ratio. Not cut to the image."""
        return np.concatenate([self._grid(stride) for stride in self.strides])

    def _grid(self, stride: int) -> Array:
        sides = stride * np.repeat(np.asarray(self.scales), len(self.ratios))
        roots = np.sqrt(np.tile(np.asarray(self.ratios), len(self.scales)))
        half = np.stack([-sides / roots, -sides * roots, sides / roots, sides * roots], axis=-1) / 2.0
        centres = (np.arange(ceil(self.size / stride)) + 0.5) * stride
        y, x = np.meshgrid(centres, centres, indexing="ij")
        placed = np.stack([x, y, x, y], axis=-1)[:, :, np.newaxis, :] + half
        return placed.reshape(-1, 4).astype(np.float32)


def default_scale(size: int) -> float:
    """Side of the smallest anchor in strides: 4 as published; 2 for inputs too small to hold many of those."""
    return 4.0 if size >= 256 else 2.0
