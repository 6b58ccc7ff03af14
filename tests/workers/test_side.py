"""The side of a finding, from its mask or its boxes."""

from __future__ import annotations

import numpy as np
import pytest

from models.contract import Box, Code, Finding
from workers.side import side_of

CODE = Code("36118008", "SCT", "Pneumothorax")


def _finding(columns: slice | None = None, *boxes: Box) -> Finding:
    mask = None
    if columns is not None:
        mask = np.zeros((10, 100), dtype=bool)
        mask[2:5, columns] = True
    return Finding("pneumothorax", CODE, "chest", 0.9, 0.5, mask=mask, boxes=boxes)


@pytest.mark.parametrize(
    ("columns", "side"),
    [(slice(10, 30), "right"), (slice(60, 90), "left"), (slice(30, 70), "both"), (slice(0, 0), ""), (None, "")],
)
def test_masks(columns: slice | None, side: str) -> None:
    """The image hangs as usual: the patient's right is on the left."""
    assert side_of(_finding(columns), 100, None) == side
    assert side_of(_finding(columns), 100, ("L", "F")) == side
    mirrored = {"left": "right", "right": "left"}.get(side, side)
    assert side_of(_finding(columns), 100, ("R", "F")) == mirrored


def test_boxes() -> None:
    right, left = Box(5, 0, 20, 10, 0.9), Box(60, 0, 30, 10, 0.8)
    assert side_of(_finding(None, right), 100, None) == "right"
    assert side_of(_finding(None, left), 100, None) == "left"
    assert side_of(_finding(None, right, left), 100, None) == "both"
    # A box across the middle counts on both sides by its parts.
    assert side_of(_finding(None, Box(45, 0, 40, 10, 0.9)), 100, None) == "left"
