"""A radiograph as a picture with the outlines of findings and the research-use banner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.contract import Mask, Pixels

BANNER = "Research use only. Not a medical device. Not for diagnosis."

# Okabe and Ito's palette: distinguishable with the common colour-vision deficiencies.
_COLOURS = ((230, 159, 0), (86, 180, 233), (204, 121, 167), (0, 158, 115), (240, 228, 66), (213, 94, 0))
_OPACITY = 0.28


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A named region on the source grid."""

    name: str
    mask: Mask


def colour_of(index: int) -> tuple[int, int, int]:
    """Colour (RGB, 0 to 255) of the region with this index."""
    return _COLOURS[index % len(_COLOURS)]


def draw_overlay(pixels: Pixels, regions: Sequence[Region], lines: Sequence[str], *, width: int = 1024) -> Image.Image:
    """Draw ``regions`` over ``pixels`` (``float32[rows, columns]`` in ``[0, 1]``) and write ``lines`` above them.

    The picture is ``width`` pixels wide and keeps the aspect ratio of the source; the banner is always written.
    """
    rows, columns = pixels.shape
    height = max(1, round(rows * width / columns))
    grey = Image.fromarray(np.round(pixels * 255).astype(np.uint8)).resize((width, height), Image.Resampling.LANCZOS)
    picture = np.repeat(np.asarray(grey, dtype=np.float32)[:, :, None], 3, axis=2)
    for index, region in enumerate(regions):
        mask = np.asarray(Image.fromarray(region.mask).resize((width, height), Image.Resampling.NEAREST))
        _paint(picture, mask, np.asarray(colour_of(index), dtype=np.float32))
    image = Image.fromarray(np.round(picture).astype(np.uint8))
    _write(image, lines, [region.name for region in regions])
    return image


def _paint(picture: Pixels, mask: Mask, colour: Pixels) -> None:
    """Tint ``mask`` in place and draw its edge, two pixels wide."""
    picture[mask] = picture[mask] * (1 - _OPACITY) + colour * _OPACITY
    picture[mask & ~eroded(mask, 2)] = colour


def eroded(mask: Mask, times: int) -> Mask:
    """``mask`` without an edge that is ``times`` pixels wide."""
    inner = mask
    for _ in range(times):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def _write(image: Image.Image, lines: Sequence[str], names: Sequence[str]) -> None:
    draw = ImageDraw.Draw(image)
    size = max(12, image.width // 48)
    font = ImageFont.load_default(size)
    top = size // 2
    for line in lines:
        _shadowed(draw, (size // 2, top), line, font, (255, 255, 255))
        top += round(size * 1.35)
    for index, name in enumerate(names):
        draw.rectangle((size // 2, top + size // 5, size // 2 + size * 4 // 5, top + size), fill=colour_of(index))
        _shadowed(draw, (round(size * 1.7), top), name, font, colour_of(index))
        top += round(size * 1.35)
    _shadowed(draw, (size // 2, image.height - round(size * 1.6)), BANNER, font, (240, 228, 66))


def _shadowed(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, int, int],
) -> None:
    draw.text(at, text, font=font, fill=colour, stroke_width=2, stroke_fill=(0, 0, 0))
