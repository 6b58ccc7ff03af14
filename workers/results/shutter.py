"""The display shutter of a source image (PS3.3 C.7.6.11), which hides bright areas outside of the exposed field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from models.contract import Mask
from models.radiograph.grayscale import numbers

_RECTANGLE = (
    "ShutterLeftVerticalEdge",
    "ShutterRightVerticalEdge",
    "ShutterUpperHorizontalEdge",
    "ShutterLowerHorizontalEdge",
)
_CIRCLE = ("CenterOfCircularShutter", "RadiusOfCircularShutter")
_POLYGON = ("VerticesOfThePolygonalShutter",)
# A vertex may be outside of the image, but drawing must not take too long.
_FARTHEST = 1 << 20


def shuttered(source: Dataset, shape: tuple[int, int], pixel_aspect: float = 1.0) -> Mask | None:
    """The pixels ``bool[rows, columns]`` that the shutter covers, or None if there is no valid shutter.

    Several shapes cover the union of their areas. A shape that would cover the whole image is ignored. A circle is
    round on the patient: ``pixel_aspect`` is the height of a pixel divided by its width.
    """
    openings = [_SHAPES[name].opening(source, shape, pixel_aspect) for name in _shapes(source) if name in _SHAPES]
    usable = [opening for opening in openings if opening is not None and opening.any()]
    covered: Mask = ~np.logical_and.reduce(usable) if usable else np.zeros(shape, dtype=bool)
    return covered if covered.any() and not covered.all() else None


def shutter_attributes(source: Dataset) -> tuple[str, ...]:
    """The attributes that the shutter of ``source`` needs; empty if it has no shutter or an unknown shape."""
    names = _shapes(source)
    if not names or not _SHAPES.keys() >= set(names):
        return ()
    return ("ShutterShape", *(keyword for name in names for keyword in _SHAPES[name].attributes))


def shutter_grey(source: Dataset) -> int:
    """The grey level of the shutter in 8 bits; Shutter Presentation Value is a P-Value of 16 (PS3.4 N.2.5)."""
    value = numbers(source, "ShutterPresentationValue")
    return int(min(max(value[0], 0), 0xFFFF)) >> 8 if value else 0


def _shapes(source: Dataset) -> list[str]:
    shapes = source.get("ShutterShape") or ()
    return sorted({str(name).strip().upper() for name in ([shapes] if isinstance(shapes, str) else shapes)})


def _rectangle(source: Dataset, shape: tuple[int, int], _aspect: float) -> Mask | None:
    """Edges are columns and rows, counted from 1; the pixels on an edge are visible."""
    edges = [numbers(source, keyword)[:1] for keyword in _RECTANGLE]
    if not all(edges):
        return None
    left, right, upper, lower = (edge[0] for edge in edges)
    row, column = np.ogrid[1 : shape[0] + 1, 1 : shape[1] + 1]
    opening: Mask = (row >= upper) & (row <= lower) & (column >= left) & (column <= right)
    return opening


def _circle(source: Dataset, shape: tuple[int, int], aspect: float) -> Mask | None:
    """Centre as row and column, radius in pixels along a row."""
    centre, radius = numbers(source, "CenterOfCircularShutter"), numbers(source, "RadiusOfCircularShutter")
    if len(centre) != 2 or len(radius) != 1:
        return None
    row, column = np.ogrid[1 : shape[0] + 1, 1 : shape[1] + 1]
    opening: Mask = np.hypot((row - centre[0]) * aspect, column - centre[1]) <= radius[0]
    return opening


def _polygon(source: Dataset, shape: tuple[int, int], _aspect: float) -> Mask | None:
    """Vertices as pairs of row and column."""
    values = numbers(source, "VerticesOfThePolygonalShutter")
    if len(values) < 6 or len(values) % 2:
        return None
    vertices = np.clip(np.asarray(values).reshape(-1, 2), -_FARTHEST, _FARTHEST)
    sheet = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(sheet).polygon([(float(x - 1), float(y - 1)) for y, x in vertices], fill=1, outline=1)
    return np.asarray(sheet, dtype=bool)


@dataclass(frozen=True, slots=True)
class _Shape:
    attributes: tuple[str, ...]
    opening: Callable[[Dataset, tuple[int, int], float], Mask | None]


_SHAPES: Mapping[str, _Shape] = {
    "RECTANGULAR": _Shape(_RECTANGLE, _rectangle),
    "CIRCULAR": _Shape(_CIRCLE, _circle),
    "POLYGONAL": _Shape(_POLYGON, _polygon),
}
