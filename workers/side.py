"""On which side of the patient a finding lies, told from its mask or its boxes."""

from __future__ import annotations

import numpy as np

from models.contract import Finding

LEFT, RIGHT, BOTH, UNKNOWN = "left", "right", "both", ""

# So much of a finding must lie in one half of the image to be called one-sided.
_MOST = 0.8


def side_of(finding: Finding, columns: int, patient_orientation: tuple[str, str] | None) -> str:
    """Say on which side ``finding`` lies in an image with ``columns`` columns; empty where no place is shown.

    Patient Orientation (0020,0020), PS3.3 C.7.6.1.1.1: its first value says where a row runs to. Without one the image
    is taken as it is hung, the patient's right on the left.
    """
    first, second = _halves(finding, columns)
    total = first + second
    if total <= 0:
        return UNKNOWN
    runs_to_left = not (patient_orientation and patient_orientation[0].upper().startswith("R"))
    if first >= _MOST * total:
        return RIGHT if runs_to_left else LEFT
    if second >= _MOST * total:
        return LEFT if runs_to_left else RIGHT
    return BOTH


def _halves(finding: Finding, columns: int) -> tuple[float, float]:
    """How much lies in the half with the first columns, and in the other."""
    middle = columns / 2
    if finding.mask is not None and finding.mask.any():
        filled = np.flatnonzero(finding.mask.any(axis=0))
        weights = finding.mask.sum(axis=0)[filled]
        return float(weights[filled < middle].sum()), float(weights[filled >= middle].sum())
    first = sum(max(0.0, min(box.x + box.width, middle) - box.x) * box.height for box in finding.boxes)
    second = sum(max(0.0, box.x + box.width - max(box.x, middle)) * box.height for box in finding.boxes)
    return first, second
