"""On which side of the patient a finding lies: one strict answer for reports, triage and database."""

from __future__ import annotations

import numpy as np

from models.contract import Finding

LEFT, RIGHT, BOTH, UNKNOWN, NO_PLACE = "left", "right", "both", "unknown", ""

# Part of the image's width around its middle in which a finding is given no side.
_MIDDLE = 0.05


def side_of(finding: Finding, shape: tuple[int, int], orientation: tuple[str, str] | None) -> str:
    """Say on which side of the patient ``finding`` lies in an image of ``shape`` (rows, columns).

    ``orientation`` is the valid Patient Orientation (:mod:`models.radiograph.orientation`). A side is told only where
    it says which way columns or rows run along the body's left-right axis: without it a place has the side
    :data:`UNKNOWN`, whichever way radiographs are usually hung. What comes near the middle of the image is on
    :data:`BOTH` sides; a finding without a place is on none (:data:`NO_PLACE`). It is a side of the image, not an
    anatomical judgement.
    """
    extent = _extent(finding)
    if extent is None:
        return NO_PLACE
    axis = _left_right_axis(orientation)
    if orientation is None or axis is None:
        return UNKNOWN
    rows, columns = shape
    size, (low, high) = (columns, rows)[axis], extent[axis]
    towards_end = low > size * (0.5 + _MIDDLE)
    if not towards_end and not high < size * (0.5 - _MIDDLE):
        return BOTH
    return LEFT if towards_end == orientation[axis].startswith("L") else RIGHT


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
