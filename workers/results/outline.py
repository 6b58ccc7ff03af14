"""Outlines of a mask: closed polygons along pixel edges, for SCOORD polylines.

Coordinates are in pixels, ``(column, row)``, edges not centres: ``(0, 0)`` is the top left corner of the top left pixel
(PS3.3 C.18.6.1.2), so that they are those of :class:`models.contract.Box`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import shapely
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from models.contract import Box, Mask

Points = NDArray[np.float64]

MAXIMUM_REGIONS = 10
SMALLEST_REGION = 0.01
MAXIMUM_POINTS = 1000
TOLERANCE = 1.0
MAXIMUM_CORNERS, MAXIMUM_PIXELS = 100_000, 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """Outer boundary of one region: ``points [n, 2]`` as (column, row), closed by the first; its area in pixels."""

    points: Points
    area: float


def outlines(mask: Mask) -> tuple[tuple[Outline, ...], int]:
    """Outlines of the regions of ``mask`` (pixels that share an edge), largest first, and how many were left out.

    At most :data:`MAXIMUM_REGIONS` are returned, each at least :data:`SMALLEST_REGION` of the largest. Holes are not
    outlined, because a polyline has no interior; the SEG and the measured area respect them. Points are thinned while
    the polygon stays within :data:`TOLERANCE` pixels of the pixel edges (or more, if it would have over 1000 points). A
    region of over :data:`MAXIMUM_PIXELS`, or a noisy one of over :data:`MAXIMUM_CORNERS` corners, is outlined on a
    coarser grid that covers it.
    """
    top, left, cropped = _crop(mask)
    if cropped.size == 0:
        return (), 0
    coarse, factor = _coarsen(cropped)
    loops = [factor * loop for loop in _boundaries(coarse)]
    areas = [float(area) for area in shapely.area([shapely.polygons(loop) for loop in loops])]
    order = sorted(range(len(loops)), key=lambda index: (-areas[index], index))
    kept = [index for index in order[:MAXIMUM_REGIONS] if areas[index] >= SMALLEST_REGION * areas[order[0]]]
    made = tuple(Outline(_thin(loops[index]) + np.asarray([left, top]), areas[index]) for index in kept)
    return made, len(loops) - len(made)


def box_outline(box: Box) -> Outline:
    """The four corners of a detection, closed, clockwise from the top left."""
    right, bottom = box.x + box.width, box.y + box.height
    corners = [(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom), (box.x, box.y)]
    return Outline(np.asarray(corners, dtype=np.float64), box.width * box.height)


def _crop(mask: Mask) -> tuple[int, int, Mask]:
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return 0, 0, mask[:0, :0]
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1]


def _coarsen(mask: Mask) -> tuple[Mask, int]:
    """Halve the grid until tracing needs well under a second and 100 MB; a coarse pixel is set if any of its is."""
    factor = 1
    while mask.size > MAXIMUM_PIXELS or _corner_count(mask) > MAXIMUM_CORNERS:
        even = np.pad(mask, ((0, mask.shape[0] % 2), (0, mask.shape[1] % 2)))
        mask = even[::2, ::2] | even[1::2, ::2] | even[::2, 1::2] | even[1::2, 1::2]
        factor *= 2
    return mask, factor


def _corner_count(mask: Mask) -> int:
    padded = np.pad(mask, 1)
    return int(np.count_nonzero(padded[:-1, :-1] ^ padded[:-1, 1:] ^ padded[1:, :-1] ^ padded[1:, 1:]))


def _boundaries(mask: Mask) -> list[Points]:
    """Outer boundary of each region of ``mask`` as its corners, closed, clockwise on the screen.

    The contour at 0.5 between pixel centres crosses every boundary edge in its middle, and at a point where two set
    pixels touch diagonally it parts them (the mean of the four is not above 0.5).
    """
    generator = contour_generator(z=np.pad(mask, 1), fill_type=FillType.OuterOffset)
    regions, offsets = cast("tuple[list[Points], list[NDArray[np.uint32]]]", generator.filled(0.5, 1.5))
    # A pixel of padding, and half a pixel from its centre to its edge.
    return [_corners(points[: ends[1]] - 0.5) for points, ends in zip(regions, offsets, strict=True)]


def _corners(middles: Points) -> Points:
    """The corners between the ``middles`` of the successive pixel edges of a closed boundary, closed by the first."""
    vertical = middles[:, 0] % 1 == 0
    turns = vertical[:-1] != vertical[1:]
    here, there, leaves = middles[:-1][turns], middles[1:][turns], vertical[:-1][turns]
    corners = np.stack([np.where(leaves, here[:, 0], there[:, 0]), np.where(leaves, there[:, 1], here[:, 1])], axis=1)
    return np.concatenate([corners, corners[:1]])


def _thin(closed: Points) -> Points:
    """Remove points that are within a tolerance of the line between kept points (Douglas and Peucker, 1973)."""
    line, tolerance = shapely.linestrings(closed), TOLERANCE
    thinned = shapely.simplify(line, tolerance, preserve_topology=False)
    while shapely.get_num_points(thinned) > MAXIMUM_POINTS:
        tolerance *= 1.5
        thinned = shapely.simplify(line, tolerance, preserve_topology=False)
    points = shapely.get_coordinates(thinned)
    return points if len(points) >= 4 else closed
