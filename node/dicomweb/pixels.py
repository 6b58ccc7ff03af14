"""Frames of a result's Pixel Data, whose values are whole bytes or, in a binary segmentation, single bits.

Frames of one bit a pixel follow each other without a gap (PS3.5 8.1.1), so that one may begin within a byte. Each
leaves in bytes of its own, its first pixel in the lowest bit of the first one: a frame has no neighbour from which a
reader could know how many bits to skip.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset


def frames_of(data_set: Dataset, numbers: Sequence[int]) -> list[bytes] | None:
    """The frames of these numbers, the first is 1; None where there is one that the object does not have."""
    if not all(1 <= number <= int(data_set.get("NumberOfFrames") or 1) for number in numbers):
        return None
    made = {number: _frame(data_set, number - 1) for number in numbers}
    return [made[number] for number in numbers]  # one that is asked for a hundred times takes its memory once


def _frame(data_set: Dataset, index: int) -> bytes:
    bits = data_set.Rows * data_set.Columns * data_set.SamplesPerPixel * data_set.BitsAllocated
    first, end = index * bits, (index + 1) * bits
    touched: bytes = data_set.PixelData[first // 8 : -(-end // 8)]
    if first % 8 == 0 and bits % 8 == 0:
        return touched
    unpacked = np.unpackbits(np.frombuffer(touched, np.uint8), bitorder="little")
    return np.packbits(unpacked[first % 8 :][:bits], bitorder="little").tobytes()


def picture_of(data_set: Dataset, number: int | None) -> NDArray[np.uint8] | None:
    """What a Secondary Capture or a segmentation looks like: ``uint8[rows, columns]``, with colours one axis more.

    A segment is white on black; ``number`` is that of a frame, and without it all segments are in the picture. None
    where the object has no such frame.
    """
    if number is not None and frames_of(data_set, [number]) is None:
        return None
    pixels = np.asarray(data_set.pixel_array)
    if "SegmentSequence" not in data_set:
        return pixels.astype(np.uint8)
    masks = pixels.reshape(-1, data_set.Rows, data_set.Columns) > 0
    drawn = masks.any(axis=0) if number is None else masks[number - 1]
    return np.where(drawn, np.uint8(255), np.uint8(0))
