"""Cheap measures of a received image, to monitor drift of the images; findings do not depend on them.

Only technical values: nothing here names a person, and nothing is a result.
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from models.contract import ModelInput

_GRID = 256
_LONGEST = 64
_WORDS = {
    "view": "ViewPosition",
    "manufacturer": "Manufacturer",
    "device": "ManufacturerModelName",
    "photometric": "PhotometricInterpretation",
}


def measures_of(header: Dataset, model_input: ModelInput | None) -> dict[str, float | str]:
    """Measure one image.

    ``brightness`` and ``contrast`` are mean and standard deviation of the pixels in ``[0, 1]`` (MONOCHROME2 sense) as a
    model gets them, ``dark`` and ``bright`` their 5th and 95th percentile, all on a grid of at most 256 x 256 pixels.
    ``rows``, ``columns`` and ``spacing`` (millimetres) are those of the source; words are those of its header.
    """
    measured: dict[str, float | str] = {}
    for name, keyword in _WORDS.items():
        word = _word(header.get(keyword))
        if word:
            measured[name] = word
    if model_input is None:
        return measured
    rows, columns = model_input.shape
    grid = model_input.pixels[:: -(-rows // _GRID), :: -(-columns // _GRID)]
    dark, bright = np.percentile(grid, (5, 95))
    numbers = {
        "brightness": float(grid.mean(dtype=np.float64)),
        "contrast": float(grid.std(dtype=np.float64)),
        "dark": float(dark),
        "bright": float(bright),
        "rows": float(rows),
        "columns": float(columns),
    }
    if model_input.spacing is not None and model_input.spacing.row > 0:
        numbers["spacing"] = model_input.spacing.row
    return measured | {name: round(value, 5) for name, value in numbers.items() if np.isfinite(value)}


def _word(value: object) -> str:
    """A short text in one line; empty where the header has none."""
    return " ".join(str(value or "").replace("\0", " ").split())[:_LONGEST]
