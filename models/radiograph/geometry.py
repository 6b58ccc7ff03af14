"""The letterbox: how a radiograph is laid into a network's input, and the exact way back.

Coordinates are in pixels, edges not centres: the centre of the pixel in row 0 and column 0 is (0.5, 0.5). A window of
*whole* source pixels fills a rectangle of *whole* network pixels, so that both directions are the same two linear maps,
one for rows and one for columns, and their product is the identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.contract import Mask, Pixels
from models.model_spec import Fit


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the source image that a network sees, in source pixels."""

    top: int
    left: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where an image of ``rows`` x ``columns`` lies in a network input of ``height`` x ``width``.

    ``pixel_aspect`` is the height of a source pixel divided by its width. By default the image keeps its true shape (to
    a network pixel) and is centred; an odd remainder goes below or to the right. With ``fit`` *stretch* it fills the
    input whatever its shape, with *crop* its largest centred window of the input's shape does.
    """

    rows: int
    columns: int
    height: int
    width: int
    pixel_aspect: float = 1.0
    fit: Fit = Fit.LETTERBOX

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.height, self.width) < 1 or not 0 < self.pixel_aspect < float("inf"):
            raise ValueError("a letterbox needs sizes of 1 at least and a positive pixel aspect")

    @property
    def window(self) -> Window:
        """The part of the image that the network sees: all of it, unless it is cropped."""
        if self.fit is not Fit.CROP:
            return Window(0, 0, self.rows, self.columns)
        scale = max(self.height / (self.rows * self.pixel_aspect), self.width / self.columns)
        rows = max(1, min(self.rows, round(self.height / (scale * self.pixel_aspect))))
        columns = max(1, min(self.columns, round(self.width / scale)))
        return Window((self.rows - rows) // 2, (self.columns - columns) // 2, rows, columns)

    @property
    def image_height(self) -> int:
        """Network rows that the image fills."""
        if self.fit is not Fit.LETTERBOX:
            return self.height
        return max(1, min(self.height, round(self.rows * self.pixel_aspect * self._scale)))

    @property
    def image_width(self) -> int:
        """Network columns that the image fills."""
        if self.fit is not Fit.LETTERBOX:
            return self.width
        return max(1, min(self.width, round(self.columns * self._scale)))

    @property
    def top(self) -> int:
        """First network row of the image."""
        return (self.height - self.image_height) // 2

    @property
    def left(self) -> int:
        """First network column of the image."""
        return (self.width - self.image_width) // 2

    @property
    def _scale(self) -> float:
        return min(self.height / (self.rows * self.pixel_aspect), self.width / self.columns)

    def to_network(self, x: float, y: float) -> tuple[float, float]:
        """Map a point of the source image to the network input."""
        window = self.window
        across, down = self.image_width / window.columns, self.image_height / window.rows
        return self.left + (x - window.left) * across, self.top + (y - window.top) * down

    def to_source(self, x: float, y: float) -> tuple[float, float]:
        """Map a point of the network input to the source image; one in the padding lies outside of it."""
        window = self.window
        across, down = window.columns / self.image_width, window.rows / self.image_height
        return window.left + (x - self.left) * across, window.top + (y - self.top) * down

    def forward(self, pixels: Pixels, padding: float = 0.0) -> Pixels:
        """Lay ``float32[rows, columns]`` into ``float32[height, width]``, antialiased, the rest filled with padding."""
        if pixels.shape != (self.rows, self.columns):
            raise ValueError(f"pixels of shape {pixels.shape} do not fit a letterbox for {(self.rows, self.columns)}")
        window = self.window
        seen = pixels[window.top : window.top + window.rows, window.left : window.left + window.columns]
        image = Image.fromarray(np.ascontiguousarray(seen, dtype=np.float32))
        small = image.resize((self.image_width, self.image_height), Image.Resampling.BILINEAR)
        network = np.full((self.height, self.width), padding, dtype=np.float32)
        network[self.top : self.top + self.image_height, self.left : self.left + self.image_width] = np.asarray(small)
        return network

    def map_to_source(self, network_map: Pixels) -> Pixels:
        """Lay a network's map ``float32[h, w]`` over its whole input onto the source grid, smoothly.

        The value at a source pixel is the map interpolated linearly at that pixel's centre, and 0 where the network saw
        nothing.
        """
        window = self.window
        seen = self._cut(network_map, window.columns, window.rows)
        if (window.rows, window.columns) == (self.rows, self.columns):
            return seen
        whole = np.zeros((self.rows, self.columns), dtype=np.float32)
        whole[window.top : window.top + window.rows, window.left : window.left + window.columns] = seen
        return whole

    def map_to_image(self, network_map: Pixels, longest: int = 64) -> Pixels:
        """Cut a network's map to the image, in a small grid of its true shape: ``longest`` cells at most."""
        if self.fit is Fit.CROP:
            whole = Image.fromarray(self.map_to_source(network_map))
            return np.asarray(whole.resize(self._grid(longest), Image.Resampling.BILINEAR))
        return self._cut(network_map, *self._grid(longest))

    def inside(self, network_map: Pixels) -> Pixels:
        """The cells of a network's map ``[h, w]`` whose centre lies in the image, not in its padding; one at least."""
        height, width = network_map.shape
        rows = _cells(self.top, self.image_height, height / self.height, height)
        return network_map[rows, _cells(self.left, self.image_width, width / self.width, width)]

    def mask_to_source(self, network_map: Pixels, threshold: float) -> Mask:
        """The source pixels ``bool[rows, columns]`` at whose centre a network's map reaches the threshold."""
        mask: Mask = self.map_to_source(network_map) >= np.float32(threshold)
        return mask

    def boxes_to_source(self, boxes: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map boxes ``[n, 4]`` (left, top, right, bottom) from network to source pixels, cut to the image."""
        edges = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        window = self.window
        x = (edges[:, [0, 2]] - self.left) * window.columns / self.image_width
        y = (edges[:, [1, 3]] - self.top) * window.rows / self.image_height
        x = window.left + np.clip(x, 0, window.columns)
        y = window.top + np.clip(y, 0, window.rows)
        return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)

    def _grid(self, longest: int) -> tuple[int, int]:
        """Columns and rows of a grid of the image's true shape."""
        width: float = self.columns
        height = self.rows * self.pixel_aspect
        if self.fit is Fit.LETTERBOX:
            width, height = self.image_width, self.image_height
        shrink = min(1.0, longest / max(width, height))
        return max(1, round(width * shrink)), max(1, round(height * shrink))

    def _cut(self, network_map: Pixels, columns: int, rows: int) -> Pixels:
        height, width = network_map.shape
        across, down = width / self.width, height / self.height
        area = (
            self.left * across,
            self.top * down,
            (self.left + self.image_width) * across,
            (self.top + self.image_height) * down,
        )
        image = Image.fromarray(np.ascontiguousarray(network_map, dtype=np.float32))
        return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR, box=area))


def _cells(first: int, length: int, scale: float, cells: int) -> slice:
    """The cells of a map, ``scale`` of them a network pixel, whose centres lie in a range of network pixels."""
    begin, end = math.ceil(first * scale - 0.5), math.ceil((first + length) * scale - 0.5)
    return slice(min(begin, cells - 1), max(end, begin + 1))
