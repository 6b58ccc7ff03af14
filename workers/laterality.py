"""Laterality and lung zones of a finding.

Reports, triage, database and worklist ask here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from models.contract import Finding, Hanging, LungShare, Zone

LEFT, RIGHT, BOTH, UNKNOWN, NO_PLACE = "left", "right", "both", "unknown", ""

# Part of the image's width around its middle in which a finding is given no side.
_MIDDLE = 0.05


def side_of(finding: Finding, shape: tuple[int, int], orientation: tuple[str, str] | None) -> str:
    """The side of the patient on which ``finding`` lies in an image of ``shape`` (rows, columns).

    ``orientation`` is the valid Patient Orientation (:mod:`models.radiograph.orientation`). A side is told only where
    it says which way columns or rows run along the body's left-right axis: without it a place has the side
    :data:`UNKNOWN`, whichever way radiographs are usually hung. Where the lungs were found, the finding is in the lung
    that it covers; else what comes near the middle of the image is on :data:`BOTH` sides. A finding without a place is
    on none (:data:`NO_PLACE`). Where the anatomy contradicts Patient Orientation (a mirrored image, a wrong header, a
    heart on the right), the side is :data:`UNKNOWN`.
    """
    extent = _extent(finding)
    if extent is None:
        return NO_PLACE
    axis = _left_right_axis(orientation)
    if orientation is None or axis is None or contradicted(finding.hanging, orientation):
        return UNKNOWN
    if finding.lungs is not None:
        sides = {side for side, _ in covered_lungs(finding, orientation)}
        return sides.pop() if len(sides) == 1 else BOTH if sides else UNKNOWN
    rows, columns = shape
    size, (low, high) = (columns, rows)[axis], extent[axis]
    towards_end = low > size * (0.5 + _MIDDLE)
    if not towards_end and not high < size * (0.5 - _MIDDLE):
        return BOTH
    return LEFT if towards_end == orientation[axis].startswith("L") else RIGHT


def zones_of(finding: Finding) -> tuple[Zone, ...]:
    """The zones in which ``finding`` lies, of either lung, from the top; none where the lungs were not found."""
    lungs = finding.lungs
    if lungs is None:
        return ()
    return tuple(zone for zone in Zone if any(zone in lung.zones for lung in lungs.both))


def place_text(side: str, zones: Iterable[str]) -> str:
    """A side and zones in words: ``right lower zone``, ``left upper and middle zones``, ``both lungs``.

    A side that may not be told is left out. So are zones where all are involved, and those of both lungs, which may
    differ: the report's coded sites have them.
    """
    names = list(zones)
    if side == BOTH:
        return "both lungs" if names else ""
    if not names or len(names) == len(Zone):
        return side if side in (LEFT, RIGHT) else ""
    words = f"{' and '.join(names)} zone{'s' if len(names) > 1 else ''}"
    return f"{side} {words}" if side in (LEFT, RIGHT) else words


def covered_lungs(finding: Finding, orientation: tuple[str, str] | None) -> tuple[tuple[str, LungShare], ...]:
    """Each lung that is covered, the right one first, with its side (:data:`UNKNOWN` where it must not be told)."""
    if finding.lungs is None:
        return ()
    sides = sides_of_lungs(finding.hanging, orientation)
    covered = [(side, lung) for side, lung in zip(sides, finding.lungs.both, strict=True) if lung.zones]
    return tuple(sorted(covered, key=lambda each: each[0], reverse=True))


def sides_of_lungs(hanging: Hanging | None, orientation: tuple[str, str] | None) -> tuple[str, str]:
    """The sides of the patient on which the lung on the left of the picture and that on its right are; both
    :data:`UNKNOWN` where they must not be told. Of a whole lung this is what :func:`side_of` is of a finding.
    """
    if orientation is None or _left_right_axis(orientation) is None or contradicted(hanging, orientation):
        return UNKNOWN, UNKNOWN
    return (RIGHT, LEFT) if orientation[0] == "L" else (LEFT, RIGHT)


def contradicted(hanging: Hanging | None, orientation: tuple[str, str]) -> bool:
    """Whether the anatomy says that the picture hangs the other way round than Patient Orientation has it.

    The lungs lie side by side, so an orientation in which left and right run along the columns contradicts it too.
    """
    if hanging is None:
        return False
    if _left_right_axis(orientation) != 0:
        return True
    expected = Hanging.USUAL if orientation[0] == "L" else Hanging.MIRRORED
    return hanging not in (expected, Hanging.UNSURE)


def _left_right_axis(orientation: tuple[str, str] | None) -> int | None:
    """The axis of the image (0: along a row, 1: along a column) that runs purely to the patient's left or right."""
    if orientation is None:
        return None
    return next((axis for axis, direction in enumerate(orientation) if direction in ("L", "R")), None)


def _extent(finding: Finding) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """First and last column edge, first and last row edge of the finding; None where it shows no place."""
    if finding.mask is not None and finding.mask.any():
        columns = np.flatnonzero(finding.mask.any(axis=0))
        rows = np.flatnonzero(finding.mask.any(axis=1))
        return (float(columns[0]), float(columns[-1] + 1)), (float(rows[0]), float(rows[-1] + 1))
    if finding.boxes:
        lefts, rights = [box.x for box in finding.boxes], [box.x + box.width for box in finding.boxes]
        tops, bottoms = [box.y for box in finding.boxes], [box.y + box.height for box in finding.boxes]
        return (min(lefts), max(rights)), (min(tops), max(bottoms))
    return None
