"""Anchors: the boxes that a detector corrects, laid on the grids of its features."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

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
