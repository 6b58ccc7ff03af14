"""From a network's map to a mask on the source grid: resampled, thresholded, small regions removed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import Box, Mask, Pixels
from models.radiograph.geometry import Letterbox


@dataclass(frozen=True, slots=True)
class LocalisedRegions:
    """Where a finding lies: a mask in source pixels, boxes, a small map for the screen; None where there is none."""

    mask: Mask | None = None
    boxes: tuple[Box, ...] = ()
    heat_map: Pixels | None = None


@dataclass(frozen=True, slots=True)
class MapCut:
    """Where a map becomes a mask: at ``threshold``, or at the share ``relative`` of its own highest value if higher.

    The relative part keeps the foot of a high peak out of the mask: a class activation map that is sure of one place
    lifts the cells round it too. Regions below ``minimum_fraction`` of the image are dropped.
    """

    threshold: float
    relative: float = 0.0
    minimum_fraction: float = 0.0

    def mask(self, network_map: Pixels, letterbox: Letterbox) -> Mask:
        """The source pixels ``bool[rows, columns]`` at whose centre a map ``float32[h, w]`` reaches the cut."""
        values = letterbox.map_to_source(network_map)
        mask: Mask = values >= np.float32(max(self.threshold, self.relative * float(values.max())))
        return mask

    def without_specks(self, mask: Mask) -> Mask:
        """The mask without the regions that are too small."""
        return without_specks(mask, max(1, round(self.minimum_fraction * mask.size)))


def mask_from_map(network_map: Pixels, letterbox: Letterbox, cut: MapCut) -> LocalisedRegions:
    """Cut a map ``float32[h, w]`` into a mask."""
    mask = cut.without_specks(cut.mask(network_map, letterbox))
    return LocalisedRegions(mask=mask if mask.any() else None, heat_map=letterbox.map_to_image(network_map))


def paste_boxes(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], letterbox: Letterbox, threshold: float
) -> tuple[Box, ...]:
    """Detections ``[n, 4]`` in network pixels as boxes in source pixels, most probable first; empty ones dropped."""
    found = []
    for edges, score in zip(letterbox.boxes_to_source(boxes), scores, strict=True):
        left, top, right, bottom = (float(edge) for edge in edges)
        if score >= threshold and right > left and bottom > top:
            found.append(Box(left, top, right - left, bottom - top, float(score)))
    return tuple(sorted(found, key=lambda box: -box.probability))


def paste_masks(network_map: Pixels, boxes: tuple[Box, ...], letterbox: Letterbox, cut: MapCut) -> LocalisedRegions:
    """A detector's boxes with the mask that its map has inside them; what lies beside every box is no finding."""
    inside = np.zeros((letterbox.rows, letterbox.columns), dtype=np.bool_)
    for box in boxes:
        rows = slice(math.floor(box.y), math.ceil(box.y + box.height))
        inside[rows, math.floor(box.x) : math.ceil(box.x + box.width)] = True
    mask = cut.without_specks(cut.mask(network_map, letterbox) & inside)
    return LocalisedRegions(mask if mask.any() else None, boxes, letterbox.map_to_image(network_map))


def without_specks(mask: Mask, minimum: int) -> Mask:
    """Drop connected regions (neighbours at edges or corners) of ``bool[rows, columns]`` below ``minimum`` pixels."""
    rows, starts, ends = _runs(mask)
    if len(rows) == 0 or minimum <= 1:
        return mask
    regions = _regions(rows, starts, ends)
    areas = np.bincount(regions, weights=ends - starts)
    large = areas[regions] >= minimum
    if large.all():
        return mask
    kept = np.zeros_like(mask)
    for run in np.flatnonzero(large):
        kept[rows[run], starts[run] : ends[run]] = True
    return kept


def region_masks(mask: Mask) -> tuple[Mask, ...]:
    """The connected regions of a mask as masks of their own, largest first."""
    rows, starts, ends = _runs(mask)
    regions = _regions(rows, starts, ends)
    numbers, areas = np.unique(regions, return_inverse=True)
    order = np.argsort(-np.bincount(areas, weights=ends - starts, minlength=len(numbers)), kind="stable")
    found = []
    for number in numbers[order]:
        own = np.zeros_like(mask)
        for run in np.flatnonzero(regions == number):
            own[rows[run], starts[run] : ends[run]] = True
        found.append(own)
    return tuple(found)


def region_boxes(mask: Mask) -> NDArray[np.float32]:
    """The boxes ``[k, 4]`` (left, top, right, bottom; edges) round the connected regions of a mask, largest first."""
    rows, starts, ends = _runs(mask)
    if len(rows) == 0:
        return np.zeros((0, 4), dtype=np.float32)
    _, regions = np.unique(_regions(rows, starts, ends), return_inverse=True)
    count = int(regions.max()) + 1
    boxes = np.empty((count, 4), dtype=np.float32)
    boxes[:, :2], boxes[:, 2:] = np.inf, -np.inf
    for column, edges, reduce in (
        (0, starts, np.minimum),
        (1, rows, np.minimum),
        (2, ends, np.maximum),
        (3, rows + 1, np.maximum),
    ):
        reduce.at(boxes[:, column], regions, edges)
    return boxes[np.argsort(-np.bincount(regions, weights=ends - starts), kind="stable")]


def _runs(mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The horizontal runs of a mask, in reading order: their row, first column and column behind the last."""
    # One row behind the other, a place that is never marked before each and at the end: every run begins and ends.
    width = mask.shape[1] + 1
    flat = np.zeros(mask.shape[0] * width + 1, dtype=np.bool_)
    flat[:-1].reshape(-1, width)[:, 1:] = mask
    # Of one dimension and mostly false, which is what numpy counts fast.
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    rows, starts = np.divmod(edges[::2], width)
    return rows, starts, edges[1::2] - rows * width


def _regions(rows: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """A region number for each run: runs of neighbouring rows that touch are one region (union-find)."""
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    row, start, end = rows.tolist(), starts.tolist(), ends.tolist()
    above = 0
    for run in range(len(row)):
        while above < run and (row[above] < row[run] - 1 or (row[above] == row[run] - 1 and end[above] < start[run])):
            above += 1
        other = above
        while other < run and row[other] == row[run] - 1 and start[other] <= end[run]:
            parent[root(run)] = root(other)
            other += 1
    return np.array([root(run) for run in range(len(row))], dtype=np.int64)
