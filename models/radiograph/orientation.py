"""Patient Orientation (0020,0020): how the patient lies in the stored pixels, where the header says it validly."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

_AXES = {"L": "x", "R": "x", "A": "y", "P": "y", "H": "z", "F": "z"}


def patient_orientation(dataset: Dataset) -> tuple[str, str] | None:
    """Directions in which columns and rows run (PS3.3 C.7.6.1.1.1), or None where the header does not say it validly.

    A radiograph stored quarter-turned has, say, ``F\\L``; two directions along the same axis say nothing.
    """
    value = dataset.get("PatientOrientation")
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        return None
    row, column = (str(direction).strip().upper() for direction in value)
    if not row or not column or not (set(row) | set(column)) <= set(_AXES):
        return None
    return None if _AXES[row[0]] == _AXES[column[0]] else (row, column)


def stands_upright(orientation: tuple[str, str]) -> bool:
    """Whether a frontal image of this valid Patient Orientation shows the patient's head above the feet.

    Rows then run mainly to the patient's left or right, columns mainly to the feet. Which of left and right is told
    elsewhere: a mirrored chest stands upright.
    """
    row, column = orientation
    return _AXES[row[0]] == "x" and column[0] == "F"
