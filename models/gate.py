"""The pixel gate: is this a whole, upright, frontal chest radiograph? Headers lie or are empty; pixels do not.

First cheap checks that need no network, then the gate network's verdict. What the gate is not sure of is not analysed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.contract import ModelInput, ModelSpec, Unfit

LEAST_SIDE = 128
"""Fewer rows or columns than this cannot show a lung."""
LARGEST_ASPECT = 2.5
"""The long side of a chest radiograph is never so many times the short one."""
_LEAST_RANGE = 0.08
_SATURATED = 0.9
_CLIPPED_LEVEL = 0.004
_SAMPLE_SIDE = 512


class UnfitCode(StrEnum):
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
    UNSURE = "unsure"

    @property
    def sentence(self) -> str:
        """What it means, for a person."""
        return _SENTENCES[self]

    @property
    def is_chest(self) -> bool:
        """False when the gate thinks that this is no chest radiograph at all."""
        return self not in (UnfitCode.NOT_FRONTAL_CHEST, UnfitCode.BLANK, UnfitCode.EXTREME_SHAPE)


_SENTENCES = {
    UnfitCode.TOO_SMALL: f"The image has fewer than {LEAST_SIDE} rows or columns.",
    UnfitCode.EXTREME_SHAPE: f"One side of the image is more than {LARGEST_ASPECT:g} times the other.",
    UnfitCode.BLANK: "The image is blank: all its pixels have one value.",
    UnfitCode.FLAT: "The image has hardly any contrast.",
    UnfitCode.SATURATED: "Most of the image is black or white without any detail.",
    UnfitCode.ROTATED: "The chest does not stand upright in the image, or the image is mirrored top to bottom.",
    UnfitCode.INVERTED: "The image looks inverted: air is bright and bone is dark.",
    UnfitCode.CROPPED: "The image does not show the whole chest.",
    UnfitCode.NOT_FRONTAL_CHEST: "The image does not look like a frontal chest radiograph.",
    UnfitCode.UNSURE: "It is not certain that this is a whole, upright, frontal chest radiograph.",
}
_VERDICTS = {
    "rotated": UnfitCode.ROTATED,
    "inverted": UnfitCode.INVERTED,
    "cropped": UnfitCode.CROPPED,
}


def inspect(image: ModelInput) -> Unfit | None:
    """Check what needs no network: size, shape, blankness, contrast, saturation."""
    rows, columns = image.shape
    if min(rows, columns) < LEAST_SIDE:
        return unfit(UnfitCode.TOO_SMALL)
    tall = rows * image.pixel_aspect / columns
    if max(tall, 1 / tall) > LARGEST_ASPECT:
        return unfit(UnfitCode.EXTREME_SHAPE)
    sample = image.pixels[:: max(1, rows // _SAMPLE_SIDE), :: max(1, columns // _SAMPLE_SIDE)]
    if float(image.pixels.min()) == float(image.pixels.max()):
        return unfit(UnfitCode.BLANK)
    low, high = np.percentile(sample, (1, 99))
    if high - low < _LEAST_RANGE:
        return unfit(UnfitCode.FLAT)
    clipped = np.count_nonzero((sample <= _CLIPPED_LEVEL) | (sample >= 1 - _CLIPPED_LEVEL)) / sample.size
    return unfit(UnfitCode.SATURATED) if clipped > _SATURATED else None


def judge(
    probabilities: Sequence[float] | NDArray[np.floating], distance: float | None, spec: ModelSpec
) -> Unfit | None:
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
        return unfit(_VERDICTS.get(spec.labels[best].name, UnfitCode.NOT_FRONTAL_CHEST))
    strange = limit is not None and distance is not None and distance > limit
    return None if sure and not strange else unfit(UnfitCode.UNSURE)


def unfit(code: UnfitCode) -> Unfit:
    """The reason for one code."""
    return Unfit(code=code.value, sentence=code.sentence, is_chest=code.is_chest)
