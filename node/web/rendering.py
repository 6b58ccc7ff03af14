"""Radiographs and masks as PNG, made on request and never written to a disk.

A picture for the viewer is *packed*: sixteen bits of grey in the red and green channel of an ordinary PNG, so that the
browser can change window and level without another request and without banding.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread

from models.contract import Mask, ModelInput
from workers.results.result_reader import segment_masks, tracking_uids

LONGEST = 2048
PREVIEW = 384
_FILL, _EDGE = 62, 255
# Okabe and Ito's palette: distinguishable with the common colour-vision deficiencies.
_COLOURS = ((230, 159, 0), (86, 180, 233), (204, 121, 167), (0, 158, 115), (240, 228, 66), (213, 94, 0))
_KEPT = 12
Bytes = NDArray[np.uint8]
Colour = tuple[int, int, int]


class Radiographs:
    """Pictures of the files in the store folder. Files there are named by digest and never change."""

    def __init__(self, folder: Path, read: Callable[[Path], ModelInput]) -> None:
        """Show files of the store ``folder``; ``read`` reads a received radiograph."""
        self._folder = folder.resolve()
        self._read_image = read
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def packed(self, path: str, longest: int = LONGEST) -> bytes:
        """The radiograph at ``path`` for the viewer.

        Raises:
            FileNotFoundError: The file has been removed.
            node.web.image_process.ImageError: Its pixels cannot be read.
        """
        return self._once(("packed", path, longest), lambda: packed_png(self._read(path), longest))

    def preview(self, path: str, longest: int = PREVIEW) -> bytes:
        """The radiograph at ``path`` as an ordinary grey PNG; raises as :meth:`packed` does."""
        return self._once(("preview", path, longest), lambda: grey_png(self._read(path), longest))

    def overlay(self, path: str, numbers: tuple[int, ...], colour: Colour) -> bytes:
        """Segments ``numbers`` of the SEG at ``path`` as one transparent PNG, not larger than the source image.

        Raises:
            LookupError: There is no such segment.
            FileNotFoundError: The file has been removed.
        """

        def make() -> bytes:
            masks = segment_masks(dcmread(self._inside(path)))
            if missing := set(numbers) - masks.keys():
                raise LookupError(f"there is no segment {min(missing)}")
            return overlay_png(np.logical_or.reduce([masks[number] for number in numbers]), colour)

        return self._once(("overlay", path, numbers, colour), make)

    def segments(self, path: str) -> dict[str, int]:
        """Segment numbers of the SEG at ``path`` by the Tracking UID of their finding; none if the file is gone."""
        try:
            numbered = tracking_uids(dcmread(self._inside(path), stop_before_pixels=True))
        except FileNotFoundError:
            return {}
        return {uid: number for number, uid in numbered.items() if uid}

    def _read(self, path: str) -> ModelInput:
        return self._read_image(self._inside(path))

    def _inside(self, path: str) -> Path:
        return stored_file(self._folder, path)

    def _once(self, key: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made


def colour_of(index: int) -> Colour:
    """Colour (RGB, 0 to 255) of the finding with this index."""
    return _COLOURS[index % len(_COLOURS)]


def stored_file(folder: Path, path: str) -> Path:
    """The file at ``path`` of the store ``folder``.

    Raises:
        FileNotFoundError: It has been removed, or would lie elsewhere.
    """
    root = folder.resolve()
    whole = (root / path).resolve()
    if not whole.is_relative_to(root) or not whole.is_file():
        raise FileNotFoundError(path)
    return whole


def shown_size(rows: int, columns: int, aspect: float, longest: int) -> tuple[int, int]:
    """Width and height of the picture: square pixels, enlarged only for the pixel aspect ratio."""
    width, height = float(columns), rows * aspect
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resized(image: ModelInput, longest: int) -> NDArray[np.float32]:
    rows, columns = image.shape
    size = shown_size(rows, columns, image.pixel_aspect, longest)
    if size == (columns, rows):
        return image.pixels
    made = Image.fromarray(image.pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.clip(np.asarray(made, dtype=np.float32), 0, 1)


def packed_png(image: ModelInput, longest: int = LONGEST) -> bytes:
    """``image`` with sixteen bits of grey in red (high) and green (low); blue is zero."""
    grey = np.round(_resized(image, longest) * 65535).astype(np.uint16)
    channels = np.zeros((*grey.shape, 3), dtype=np.uint8)
    channels[..., 0] = grey >> 8
    channels[..., 1] = grey & 0xFF
    return _png(channels)


def grey_png(image: ModelInput, longest: int = PREVIEW) -> bytes:
    """``image`` as an ordinary grey PNG."""
    return _png(np.round(_resized(image, longest) * 255).astype(np.uint8))


def overlay_png(mask: Mask, colour: Colour, longest: int = LONGEST) -> bytes:
    """A mask in ``colour``, half transparent with an opaque edge; the viewer scales it to the radiograph."""
    size = shown_size(mask.shape[0], mask.shape[1], 1.0, longest)
    small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 127
    made = np.zeros((*small.shape, 4), dtype=np.uint8)
    made[small] = (*colour, _FILL)
    made[small & ~_eroded(small, max(2, max(size) // 450))] = (*colour, _EDGE)
    return _png(made)


def _eroded(mask: Mask, times: int) -> Mask:
    """``mask`` without an edge that is ``times`` pixels wide."""
    inner = mask
    for _ in range(times):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def _png(pixels: Bytes) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=2)
    return out.getvalue()
