"""The pixel gate: is this a whole, upright, frontal chest radiograph? Headers lie or are empty; pixels do not.

First cheap checks that need no network, then the gate network's verdict. What the gate is not sure of is not analysed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.contract import ModelInput, NotAnalysed
from models.model_spec import ModelSpec
from models.radiograph.orientation import stands_upright

LEAST_SIDE = 128
"""Fewer rows or columns than this cannot show a lung."""
LARGEST_ASPECT = 2.5
"""The long side of a chest radiograph is never so many times the short one."""
_LEAST_RANGE = 0.08
_SATURATED = 0.9
_CLIPPED_LEVEL = 0.004
_SAMPLE_SIDE = 512


class NotAnalysedCode(StrEnum):
    """Why the pixel gate keeps an image from being analysed: the closed list."""

    TOO_SMALL = "too_small"
    EXTREME_SHAPE = "extreme_shape"
    BLANK = "blank"
    FLAT = "flat"
    SATURATED = "saturated"
    ROTATED = "rotated"
    INVERTED = "inverted"
    CROPPED = "cropped"
    NOT_FRONTAL_CHEST = "not_frontal_chest"
    ORIENTATION = "orientation"
    UNSURE = "unsure"

    @property
    def sentence(self) -> str:
        """What it means, for a person."""
        return _SENTENCES[self]

    @property
    def is_chest(self) -> bool:
        """False when the gate thinks that this is no chest radiograph at all."""
        return self not in (NotAnalysedCode.NOT_FRONTAL_CHEST, NotAnalysedCode.BLANK, NotAnalysedCode.EXTREME_SHAPE)


_SENTENCES = {
    NotAnalysedCode.TOO_SMALL: f"The image has fewer than {LEAST_SIDE} rows or columns.",
    NotAnalysedCode.EXTREME_SHAPE: f"One side of the image is more than {LARGEST_ASPECT:g} times the other.",
    NotAnalysedCode.BLANK: "The image is blank: all its pixels have one value.",
    NotAnalysedCode.FLAT: "The image has hardly any contrast.",
    NotAnalysedCode.SATURATED: "Most of the image is black or white without any detail.",
    NotAnalysedCode.ROTATED: "The chest does not stand upright in the image, or the image is mirrored top to bottom.",
    NotAnalysedCode.INVERTED: "The image looks inverted: air is bright and bone is dark.",
    NotAnalysedCode.CROPPED: "The image does not show the whole chest.",
    NotAnalysedCode.NOT_FRONTAL_CHEST: "The image does not look like a frontal chest radiograph.",
    NotAnalysedCode.ORIENTATION: "Patient Orientation does not say that this is a frontal chest with the head up.",
    NotAnalysedCode.UNSURE: "It is not certain that this is a whole, upright, frontal chest radiograph.",
}
_VERDICTS = {
    "rotated": NotAnalysedCode.ROTATED,
    "inverted": NotAnalysedCode.INVERTED,
    "cropped": NotAnalysedCode.CROPPED,
}


def inspect(image: ModelInput) -> NotAnalysed | None:
    """Check what needs no network: size, shape, Patient Orientation, blankness, contrast, saturation.

    A valid Patient Orientation that says upside down, quarter-turned or lateral contradicts what a network for upright
    frontal images expects, or the pixels: then its sides would be a guess.
    """
    rows, columns = image.shape
    if min(rows, columns) < LEAST_SIDE:
        return not_analysed(NotAnalysedCode.TOO_SMALL)
    tall = rows * image.pixel_aspect / columns
    if max(tall, 1 / tall) > LARGEST_ASPECT:
        return not_analysed(NotAnalysedCode.EXTREME_SHAPE)
    if image.patient_orientation is not None and not stands_upright(image.patient_orientation):
        return not_analysed(NotAnalysedCode.ORIENTATION)
    sample = image.pixels[:: max(1, rows // _SAMPLE_SIDE), :: max(1, columns // _SAMPLE_SIDE)]
    if float(image.pixels.min()) == float(image.pixels.max()):
        return not_analysed(NotAnalysedCode.BLANK)
    low, high = np.percentile(sample, (1, 99))
    if high - low < _LEAST_RANGE:
        return not_analysed(NotAnalysedCode.FLAT)
    clipped = np.count_nonzero((sample <= _CLIPPED_LEVEL) | (sample >= 1 - _CLIPPED_LEVEL)) / sample.size
    return not_analysed(NotAnalysedCode.SATURATED) if clipped > _SATURATED else None


def assess(
    probabilities: Sequence[float] | NDArray[np.floating], distance: float | None, spec: ModelSpec
) -> NotAnalysed | None:
    """Turn a gate network's answer into a reason not to analyse, or None.

    ``probabilities`` are in the order of the gate's labels, the first of which is let through. A verdict below the
    gate's least probability, or an image farther from all that the gate has seen than its threshold, is unsure.
    """
    if spec.gate is None or len(probabilities) != len(spec.labels):
        raise ValueError(f"{spec.name} is no gate of {len(probabilities)} classes")
    best = int(np.argmax(probabilities))
    sure = float(probabilities[best]) >= spec.gate.min_probability
    limit = spec.gate.distance_threshold
    if best and sure:
        return not_analysed(_VERDICTS.get(spec.labels[best].name, NotAnalysedCode.NOT_FRONTAL_CHEST))
    strange = limit is not None and distance is not None and distance > limit
    return None if sure and not strange else not_analysed(NotAnalysedCode.UNSURE)


def not_analysed(code: NotAnalysedCode) -> NotAnalysed:
    """The reason for one code."""
    return NotAnalysed(code=code.value, sentence=code.sentence, is_chest=code.is_chest)
