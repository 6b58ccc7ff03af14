"""From a letterboxed radiograph to the tensor that a network was trained on: contrast, range, channels, axis order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.contract import ModelInput, Pixels
from models.model_spec import InputSpec
from models.radiograph.geometry import Letterbox

_BINS = 256
_TILES = 8
_CLIP = 2.0


def letterbox_for(image: ModelInput, spec: InputSpec) -> Letterbox:
    """The letterbox of one radiograph in one network's input."""
    rows, columns = image.shape
    return Letterbox(rows, columns, spec.height, spec.width, image.pixel_aspect, spec.fit)


def prepare(image: ModelInput, letterbox: Letterbox, spec: InputSpec) -> Pixels:
    """One network input ``float32[height, width, channels]``, or ``[channels, height, width]`` for the NCHW layout."""
    network = equalise(letterbox.forward(image.pixels, spec.padding), spec.equalise)
    low, high = spec.value_range
    channels = np.repeat(network[..., np.newaxis], spec.channels, axis=2) * np.float32(high - low) + np.float32(low)
    tensor = (channels - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(tensor.transpose(2, 0, 1) if spec.layout == "NCHW" else tensor, dtype=np.float32)


def equalise(pixels: Pixels, method: str) -> Pixels:
    """Equalise the histogram of ``float32[h, w]`` in ``[0, 1]``: of the whole, or of tiles with limited contrast."""
    match method:
        case "none":
            return pixels
        case "histogram":
            return _apply(pixels, _curve(_levels(pixels), limit=None))
        case "clahe":
            return _clahe(pixels)
        case _:
            raise ValueError(f"there is no equalisation '{method}'")


def _levels(pixels: Pixels) -> NDArray[np.int64]:
    return np.clip(np.rint(pixels * (_BINS - 1)), 0, _BINS - 1).astype(np.int64)


def _curve(levels: NDArray[np.int64], limit: float | None) -> NDArray[np.float64]:
    """The cumulated histogram as a curve over grey levels; what exceeds ``limit`` times the mean is spread evenly."""
    counts = np.bincount(levels.ravel(), minlength=_BINS).astype(np.float64)
    if limit is not None:
        ceiling = max(limit * levels.size / _BINS, 1.0)
        counts = np.minimum(counts, ceiling) + np.maximum(counts - ceiling, 0).sum() / _BINS
    curve: NDArray[np.float64] = np.cumsum(counts) / counts.sum()
    return curve


def _apply(pixels: Pixels, curve: NDArray[np.float64]) -> Pixels:
    return curve[_levels(pixels)].astype(np.float32)


def _clahe(pixels: Pixels) -> Pixels:
    """Contrast-limited adaptive equalisation: each pixel lies between the curves of its four nearest tile centres."""
    levels = _levels(pixels)
    height, width = levels.shape
    rows, columns = min(_TILES, height), min(_TILES, width)
    curves = np.stack(
        [
            np.stack([_curve(tile, _CLIP) for tile in np.array_split(band, columns, axis=1)])
            for band in np.array_split(levels, rows, axis=0)
        ]
    )
    y0, y1, fy = _between(height, rows)
    x0, x1, fx = _between(width, columns)
    fy, fx = fy[:, np.newaxis], fx[np.newaxis, :]

    def at(row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = curves[row[:, np.newaxis], column[np.newaxis, :], levels]
        return found

    upper = at(y0, x0) * (1 - fx) + at(y0, x1) * fx
    lower = at(y1, x0) * (1 - fx) + at(y1, x1) * fx
    return (upper * (1 - fy) + lower * fy).astype(np.float32)


def _between(size: int, tiles: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For each pixel the tile centre before it, the one after it, and how far it lies between them."""
    position = np.clip((np.arange(size) + 0.5) * tiles / size - 0.5, 0, tiles - 1)
    before = np.floor(position).astype(np.int64)
    return before, np.minimum(before + 1, tiles - 1), position - before
