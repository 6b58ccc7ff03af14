"""Stored values to what a person would see: Modality LUT, VOI LUT, polarity (the pipeline of PS3.4 N.2).

A frame has at most 16 stored bits, so the whole pipeline is computed once for every possible code and then looked up:
exact in double precision, and as fast for a chain of tables as for none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from models.contract import Pixels
from models.radiograph.attributes import sound_attributes
from models.radiograph.decode import StoredPixels

Table = NDArray[np.float64]
Counts = NDArray[np.int64]

_SAMPLE = 1 << 21
_TAIL = 0.005
_CONTRAST_TAIL = 0.01
_LEAST_CONTRAST = 0.1
_LEAST_LEVELS = 32.0
# Beyond these a rescale is a mistake, whatever it makes of the values.
_LEAST_SLOPE, _LARGEST_SLOPE, _LARGEST_INTERCEPT = 1e-6, 1e6, 1e9

GREY_ATTRIBUTES = (
    "PhotometricInterpretation",
    "PresentationLUTShape",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
)
"""What the grayscale pipeline reads of a data set."""


@dataclass(frozen=True, slots=True)
class _Transfer:
    """A candidate for the VOI stage: ``shown[2 ** bits]`` in ``[0, 1]``, and what it is called in a note."""

    shown: Table
    name: str


def to_grayscale(stored: StoredPixels, dataset: Dataset) -> tuple[Pixels, tuple[str, ...]]:
    """Apply a data set's grayscale pipeline to its stored pixels.

    Returns ``float32[rows, columns]`` in ``[0, 1]`` in the sense of MONOCHROME2, and notes on what had to be fixed. A
    VOI LUT goes before a window (PS3.3 C.11.2), of several windows the first is taken; one that leaves the image
    without contrast is replaced by the range that holds all but the outermost half percent of its values, and those
    that speak of values at another depth are not used. Padding (PS3.3 C.7.5.1.1.2) counts in no statistics and becomes
    air.
    """
    dataset = sound_attributes(dataset, GREY_ATTRIBUTES)
    counts = _histogram(stored)
    padding = _padding(stored, dataset)
    inside = np.where(padding, 0, counts)
    if not inside.any():
        inside, padding = counts, np.zeros_like(padding)
    modality, notes = _modality(stored, dataset)
    shown, note = _voi(stored, dataset, modality, inside)
    if is_inverted(dataset):
        shown = 1 - shown
    shown = np.where(padding, 0.0, shown)
    # A network answers whatever it is given: what no radiograph can be must not get to one.
    assert bool(((shown >= 0) & (shown <= 1)).all()), "the grayscale pipeline has left the range from 0 to 1"
    pixels: Pixels = shown.astype(np.float32)[stored.codes]
    return pixels, (*notes, *note)


def is_inverted(dataset: Dataset) -> bool:
    """True when the smallest value is shown white.

    MONOCHROME1 says so (PS3.3 C.7.6.3.1.2) and so does the Presentation LUT Shape INVERSE (C.11.6) that a DX image must
    carry beside it: two words for one inversion, never two inversions.
    """
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    return photometric == "MONOCHROME1" or str(dataset.get("PresentationLUTShape") or "").strip().upper() == "INVERSE"


def _histogram(stored: StoredPixels) -> Counts:
    """How often each code occurs, of every n-th row and column where the image is large."""
    step = max(1, math.isqrt(stored.codes.size // _SAMPLE))
    return np.bincount(stored.codes[::step, ::step].ravel(), minlength=1 << stored.bits)


def _padding(stored: StoredPixels, dataset: Dataset) -> NDArray[np.bool_]:
    """Which codes are padding; the value may stand there signed or not, so it is read as a code."""
    domain = stored.domain()
    if stored.scaled:
        return np.zeros(domain.shape, dtype=np.bool_)
    values = [*numbers(dataset, "PixelPaddingValue")[:1], *numbers(dataset, "PixelPaddingRangeLimit")[:1]]
    least, most = (domain.min(), domain.max())
    if stored.signed:
        values = [value - (1 << 16) if value > most and value >= 1 << 15 else value for value in values]
    if not values or not least <= values[0] <= most:
        return np.zeros(domain.shape, dtype=np.bool_)
    padded: NDArray[np.bool_] = (domain >= min(values)) & (domain <= max(values))
    return padded


def _modality(stored: StoredPixels, dataset: Dataset) -> tuple[Table, tuple[str, ...]]:
    """Modality LUT Sequence or Rescale (PS3.3 C.11.1) for every code."""
    domain = stored.domain()
    for item in _items(dataset, "ModalityLUTSequence"):
        table = _lookup(item, domain, stored.signed, dataset)
        if table is not None:
            return table.output, ()
        return domain, ("The Modality LUT is unusable and was left out.",)
    slope, intercept = numbers(dataset, "RescaleSlope")[:1], numbers(dataset, "RescaleIntercept")[:1]
    if slope == (0.0,):
        return domain, ("The rescale slope is 0 and was left out.",)
    if not _is_plausible((slope or (1.0,))[0], (intercept or (0.0,))[0]):
        return domain, ("The rescale slope and intercept are absurd and were left out.",)
    return domain * (slope or (1.0,))[0] + (intercept or (0.0,))[0], ()


def has_plausible_rescale(dataset: Dataset) -> bool:
    """True where Rescale Slope and Intercept are there and can be meant."""
    slope, intercept = numbers(dataset, "RescaleSlope"), numbers(dataset, "RescaleIntercept")
    return len(slope) == len(intercept) == 1 and _is_plausible(slope[0], intercept[0])


def _is_plausible(slope: float, intercept: float) -> bool:
    return _LEAST_SLOPE <= abs(slope) <= _LARGEST_SLOPE and abs(intercept) <= _LARGEST_INTERCEPT


def _voi(stored: StoredPixels, dataset: Dataset, modality: Table, counts: Counts) -> tuple[Table, tuple[str, ...]]:
    notes: list[str] = []
    for candidate in _candidates(stored, dataset, modality):
        if candidate.shown.size and _contrast(candidate.shown, counts) >= _LEAST_CONTRAST:
            return candidate.shown, tuple(notes)
        notes.append(f"{candidate.name} leaves no contrast and was not used.")
    notes.append("The grey values were spread over the range that holds 99 % of them.")
    return _spread(modality, counts), tuple(notes)


def _candidates(stored: StoredPixels, dataset: Dataset, modality: Table) -> Iterator[_Transfer]:
    """What may be shown, best first; an unusable one has an empty table."""
    unusable = np.zeros(0)
    for item in () if stored.scaled else _items(dataset, "VOILUTSequence"):
        table = _lookup(item, modality, bool(modality.min() < 0), dataset)
        yield _Transfer(unusable if table is None else table.output / table.white, "The VOI LUT")
        break
    centre, width = numbers(dataset, "WindowCenter")[:1], numbers(dataset, "WindowWidth")[:1]
    if centre and width and not stored.scaled:
        function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
        with np.errstate(over="ignore"):  # a width of next to nothing is a step
            shown = window(modality, centre[0], width[0], function)
        yield _Transfer(unusable if shown is None else shown, f"The window {centre[0]:g} / {width[0]:g}")
    elif stored.bits == 8 and not _items(dataset, "ModalityLUTSequence"):
        low, high = modality.min(), modality.max()
        yield _Transfer((modality - low) / (high - low), "The full range of 8 bits")


def window(values: Table, centre: float, width: float, function: str = "LINEAR") -> Table | None:
    """Apply a window (PS3.3 C.11.2.1.2, C.11.2.1.3) with output ``[0, 1]``; None where its width is not allowed."""
    if function == "SIGMOID":
        if width <= 0:
            return None
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1) if width > 0 else None
    if width < 1:
        return None
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _spread(modality: Table, counts: Counts) -> Table:
    """Stretch between robust percentiles, but never so few levels that noise would look like an image."""
    low, high = _tails(modality, counts, _TAIL)
    slope = np.abs(np.diff(modality[np.argsort(modality)]))
    level = float(np.median(slope[slope > 0])) if (slope > 0).any() else 1.0
    missing = max(_LEAST_LEVELS * level - (high - low), 0) / 2
    return np.clip((modality - (low - missing)) / (high - low + 2 * missing), 0, 1)


def _contrast(shown: Table, counts: Counts) -> float:
    low, high = _tails(shown, counts, _CONTRAST_TAIL)
    return high - low


def _tails(values: Table, counts: Counts, tail: float) -> tuple[float, float]:
    """Values between which all but ``tail`` of the pixels at each end lie; symmetric, whatever the polarity."""
    order = np.argsort(values, kind="stable")
    ranked = counts[order]
    total = int(ranked.sum())
    low = int(np.argmax(np.cumsum(ranked) > tail * total))
    high = len(order) - 1 - int(np.argmax(np.cumsum(ranked[::-1]) > tail * total))
    return float(values[order[low]]), float(values[order[high]])


@dataclass(frozen=True, slots=True)
class _Looked:
    """A lookup table's output for every code, and its white."""

    output: Table
    white: float


def _lookup(item: Dataset, values: Table, signed: bool, dataset: Dataset) -> _Looked | None:
    """Look values up in a Modality or VOI LUT item (PS3.3 C.11.1.1, C.11.2.1.1); None where it is unusable."""
    descriptor = numbers(item, "LUTDescriptor")
    if len(descriptor) != 3 or not 8 <= descriptor[2] <= 16:
        return None
    entries = int(descriptor[0]) or 1 << 16
    data = _lut_data(item, entries, dataset)
    if data is None:
        return None
    first = descriptor[1] - (1 << 16) if signed and descriptor[1] >= 1 << 15 else descriptor[1]
    index = np.clip(np.rint(values - first), 0, entries - 1).astype(np.int64)
    white = float((1 << int(descriptor[2])) - 1)
    # Some writers give the depth of the words, not of the values, and some another one still: a table that stays in
    # the lower half of its range, or leaves it, is all there is.
    white = white if white / 2 < data.max() <= white else float(max(data.max(), 1))
    return _Looked(data[index].astype(np.float64), white)


def keeps_its_descriptor(item: Dataset, dataset: Dataset) -> bool:
    """True for a Modality or VOI LUT item of ``dataset`` with the entries and the depth that its descriptor tells."""
    descriptor = numbers(item, "LUTDescriptor")
    if len(descriptor) != 3 or not 8 <= descriptor[2] <= 16:
        return False
    entries = int(descriptor[0]) or 1 << 16
    data, value = _lut_data(item, entries, dataset), item.get("LUTData")
    words = len(value) // 2 if isinstance(value, bytes | bytearray) else np.size(value)
    is_whole = words in (entries, (entries + 1) // 2)
    return data is not None and is_whole and int(data.max()) < 1 << int(descriptor[2])


def _lut_data(item: Dataset, entries: int, dataset: Dataset) -> NDArray[Any] | None:
    value = item.get("LUTData")
    if value is None:
        return None
    if isinstance(value, bytes | bytearray):
        _, little = getattr(dataset, "original_encoding", (None, True))
        words = np.frombuffer(value[: len(value) // 2 * 2], dtype="<u2" if little is not False else ">u2")
        if len(words) < entries <= 2 * len(words):
            words = words.astype("<u2").view(np.uint8).astype(np.uint16)
    else:
        words = np.atleast_1d(np.asarray(value, dtype=np.int64)) & 0xFFFF
    return words[:entries] if len(words) >= entries else None


def _items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    return tuple(dataset.get(keyword) or ())


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """All finite values of an attribute as numbers; nothing where it is absent, empty or no number."""
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            return ()
        listed = value if isinstance(value, list | tuple) or hasattr(value, "__iter__") else [value]
        numbers = tuple(float(item) for item in listed)
    except (TypeError, ValueError, OverflowError):
        return ()
    return numbers if all(math.isfinite(number) for number in numbers) else ()
