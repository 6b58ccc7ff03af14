"""Outlines of a mask: closed polygons along pixel edges, for SCOORD polylines.

Coordinates are in pixels, ``(column, row)``, edges not centres: ``(0, 0)`` is the top left corner of the top left pixel
(PS3.3 C.18.6.1.2), so that they are those of :class:`models.contract.Box`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import Box, Mask

Points = NDArray[np.float64]
_Index = NDArray[np.intp]

MAXIMUM_REGIONS = 10
SMALLEST_REGION = 0.01
MAXIMUM_POINTS = 1000
TOLERANCE = 1.0
MAXIMUM_CORNERS = 100_000


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
    noisy mask with over :data:`MAXIMUM_CORNERS` corners is outlined on a coarser grid that covers it.
    """
    top, left, cropped = _crop(mask)
    if cropped.size == 0:
        return (), 0
    coarse, factor = _coarsen(cropped)
    loops = [factor * loop for loop in _loops(coarse) if _signed_area(loop) > 0]
    areas = [_signed_area(loop) for loop in loops]
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
    """Halve the grid until tracing takes well under a second; a coarse pixel is set if any of its pixels is."""
    factor = 1
    while _corner_count(mask) > MAXIMUM_CORNERS:
        even = np.pad(mask, ((0, mask.shape[0] % 2), (0, mask.shape[1] % 2)))
        mask = even[::2, ::2] | even[1::2, ::2] | even[::2, 1::2] | even[1::2, 1::2]
        factor *= 2
    return mask, factor


def _corner_count(mask: Mask) -> int:
    padded = np.pad(mask, 1)
    return int(np.count_nonzero(padded[:-1, :-1] ^ padded[:-1, 1:] ^ padded[1:, :-1] ^ padded[1:, 1:]))


def _loops(mask: Mask) -> list[Points]:
    """All boundaries of ``mask`` as ordered corners: regions clockwise on the screen, holes counter-clockwise.

    A grid point is a corner if one or three of its four pixels are set. On each grid line the sorted corners are, in
    pairs, the ends of boundary pieces. A point where two set pixels touch diagonally is two corners, one for each.
    """
    rows, columns, horizontal, vertical = _corners(mask)
    along, across = _partners(rows, horizontal), _partners(columns, vertical)
    seen = np.zeros(rows.size, dtype=bool)
    loops: list[Points] = []
    for start in range(rows.size):
        if seen[start]:
            continue
        path, corner = [], start
        while not seen[corner]:
            other = int(along[corner])
            path += [corner, other]
            seen[corner] = seen[other] = True
            corner = int(across[other])
        loops.append(_oriented(np.stack([columns[path], rows[path]], axis=1).astype(np.float64), mask))
    return loops


def _corners(mask: Mask) -> tuple[_Index, _Index, _Index, _Index]:
    """Row and column of each corner, and its rank along its horizontal and its vertical grid line."""
    padded = np.pad(mask, 1)
    top_left, top_right = padded[:-1, :-1], padded[:-1, 1:]
    bottom_left, bottom_right = padded[1:, :-1], padded[1:, 1:]
    single = top_left ^ top_right ^ bottom_left ^ bottom_right
    falling = top_left & bottom_right & ~top_right & ~bottom_left
    rising = top_right & bottom_left & ~top_left & ~bottom_right
    rows, columns = np.nonzero(single)
    rank = np.zeros(rows.size, dtype=np.intp)
    horizontal, vertical = 2 * columns + rank, 2 * rows + rank
    for touching, upper_is_left in ((falling, True), (rising, False)):
        at_row, at_column = np.nonzero(touching)
        for is_upper in (True, False):
            is_left = is_upper == upper_is_left
            rows = np.concatenate([rows, at_row])
            columns = np.concatenate([columns, at_column])
            horizontal = np.concatenate([horizontal, 2 * at_column + (0 if is_left else 1)])
            vertical = np.concatenate([vertical, 2 * at_row + (0 if is_upper else 1)])
    return rows, columns, horizontal, vertical


def _partners(line: _Index, rank: _Index) -> _Index:
    """For each corner, the corner at the other end of its boundary piece on the same grid line."""
    order = np.lexsort((rank, line))
    partner = np.empty(line.size, dtype=np.intp)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _oriented(corners: Points, mask: Mask) -> Points:
    """Close a loop, and orient it so that set pixels are on its right side (on the screen)."""
    closed = np.concatenate([corners, corners[:1]])
    (x0, y0), (x1, _) = closed[0], closed[1]
    column, row = int(min(x0, x1)), int(y0)
    below_is_set = row < mask.shape[0] and bool(mask[row, column])
    goes_right = x1 > x0
    return closed if below_is_set == goes_right else closed[::-1]


def _signed_area(closed: Points) -> float:
    """Area in pixels, positive for a loop that runs clockwise on the screen (rows grow downwards)."""
    x, y = closed[:, 0], closed[:, 1]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)


def _thin(closed: Points) -> Points:
    tolerance = TOLERANCE
    thinned = _douglas_peucker(closed, tolerance)
    while len(thinned) > MAXIMUM_POINTS:
        tolerance *= 1.5
        thinned = _douglas_peucker(closed, tolerance)
    return thinned if len(thinned) >= 4 else closed


def _douglas_peucker(closed: Points, tolerance: float) -> Points:
    """Remove points that are within ``tolerance`` of the line between kept points (Douglas and Peucker, 1973)."""
    keep = np.zeros(len(closed), dtype=bool)
    far = int(np.argmax(np.sum((closed - closed[0]) ** 2, axis=1)))
    keep[[0, far, len(closed) - 1]] = True
    stack = [(0, far), (far, len(closed) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            stack += [(first, middle), (middle, last)]
    return closed[keep]


def _distances(points: Points, start: Points, end: Points) -> Points:
    """Distance of each point from the line piece ``start``-``end``."""
    direction = end - start
    length = float(direction @ direction)
    if length == 0:
        return np.asarray(np.hypot(*(points - start).T))
    share = np.clip((points - start) @ direction / length, 0, 1)
    return np.asarray(np.hypot(*(points - start - share[:, None] * direction).T))
