"""Measure screenshots of a viewer: where the radiograph lies, what was laid over it, and how well two regions agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Region = NDArray[np.bool_]
Picture = NDArray[np.int16]

_BLACK_BELOW = 32
_CHANGED_FROM = 9
_MARK_FROM = 180


@dataclass(frozen=True)
class WorkerId:
    """The radiograph's rectangle in a screenshot, edges in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def read(path: Path) -> Picture:
    """Read a screenshot as ``int16[rows, columns, 3]``."""
    return np.asarray(Image.open(path).convert("RGB")).astype(np.int16)


def place_of_radiograph(picture: Picture) -> WorkerId:
    """Where the drawn radiograph lies: it is nowhere black, and around it are only a thin frame and a few symbols."""
    lit = picture.max(axis=2) >= _BLACK_BELOW
    left, right = _longest_run(lit.mean(axis=0) > 0.3)
    top, bottom = _longest_run(lit[:, left:right].mean(axis=1) > 0.8)
    return WorkerId(left, top, right, bottom)


def _longest_run(wanted: Region) -> tuple[int, int]:
    """First index and the one after the last of the longest run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest])


def on_screen(mask: Region, place: WorkerId, shape: tuple[int, int]) -> Region:
    """Lay a mask of the source grid where a viewer that does everything right would draw it."""
    size = (place.right - place.left, place.bottom - place.top)
    scaled = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST), bool)
    screen = np.zeros(shape, bool)
    screen[place.top : place.bottom, place.left : place.right] = scaled
    return screen


def changed(before: Picture, after: Picture) -> Region:
    """Pixels that differ."""
    return np.asarray(np.abs(before - after).max(axis=2) >= _CHANGED_FROM)


def mark_seen(picture: Picture) -> Region:
    """The bright mark as the viewer shows it."""
    return np.asarray(picture.min(axis=2) >= _MARK_FROM)


def inside(points: list[list[float]], shape: tuple[int, int]) -> Region:
    """The region within a closed line; ``points`` are [x, y] in screenshot pixels."""
    canvas = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in points], fill=1)
    return np.asarray(canvas, bool)


def overlap(one: Region, other: Region) -> float:
    """Intersection over union."""
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 0.0
