"""Outlines of findings on a copy of a radiograph, under a band of text: captures, explanations and the demonstration.

The copy has screen size and square pixels, in 8 bit RGB. The band begins with a banner: this is research.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.contract import Mask, ModelInput
from workers.results.outline import Points, outlines

_LONGEST_SIDE, _SHORTEST = 1536, 768
BANNER = "Pleura AI - research use, not for diagnosis"
_BAND, TEXT, _WARNING = (24, 24, 24), (235, 235, 235), (255, 208, 0)
_COLOURS = ((255, 96, 64), (255, 208, 0), (64, 224, 128), (96, 160, 255), (240, 112, 255))

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """A line of the band, and the outlines in source pixels (column, row) that are drawn in its colour."""

    text: str
    colour: Colour = TEXT
    outlines: Sequence[Points] = ()


def colour_of(index: int) -> Colour:
    """Colour (RGB) of the finding with this index."""
    return _COLOURS[index % len(_COLOURS)]


def mask_outlines(mask: Mask) -> list[Points]:
    """The outlines that are drawn of a mask."""
    return [outline.points for outline in outlines(mask)[0]]


def draw_masks(image: ModelInput, title: str, masks: Sequence[tuple[str, Mask]]) -> Image.Image:
    """Draw named masks of ``image``; one on another grid is only named."""
    marks = [
        Mark(name, colour_of(index), mask_outlines(mask) if mask.shape == image.shape else ())
        for index, (name, mask) in enumerate(masks)
    ]
    return draw_overlay(grey_of(image), (image.pixel_aspect, 1.0), [Mark(title), *marks])


def grey_of(image: ModelInput) -> NDArray[np.uint8]:
    """The pixels of ``image`` as 8 bit grey."""
    return np.round(np.clip(image.pixels, 0, 1) * 255).astype(np.uint8)


def draw_overlay(grey: NDArray[np.uint8], spacing: tuple[float, float], marks: Sequence[Mark]) -> Image.Image:
    """Draw ``marks`` on ``grey`` (``uint8[rows, columns]``, whose rows and columns are ``spacing`` apart)."""
    rows, columns = grey.shape
    size = _screen_size(rows, columns, spacing)
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BOX).convert("RGB")
    scale = np.asarray([size[0] / columns, size[1] / rows])
    pen, width = ImageDraw.Draw(picture), max(2, max(size) // 400)
    for mark in marks:
        for points in mark.outlines:
            pen.line([(float(x), float(y)) for x, y in points * scale], fill=mark.colour, width=width, joint="curve")
    return _with_band(picture, [Mark(BANNER, _WARNING), *marks])


def text_sheet(paragraphs: Sequence[str]) -> Image.Image:
    """A dark square with the banner and ``paragraphs`` as text (RGB)."""
    size = _SHORTEST // 32
    sheet = Image.new("RGB", (_SHORTEST, _SHORTEST), _BAND)
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(size), 2 * size
    for text, colour in [(BANNER, _WARNING), *((paragraph, TEXT) for paragraph in paragraphs)]:
        for line in wrap(text, 2 * _SHORTEST // size - 8):
            pen.text((2 * size, top), line, font=font, fill=colour)
            top += 3 * size // 2
        top += size
    return sheet


def _screen_size(rows: int, columns: int, spacing: tuple[float, float]) -> tuple[int, int]:
    """Width and height with square pixels."""
    width, height = columns * spacing[1], rows * spacing[0]
    factor = min(_LONGEST_SIDE, max(_SHORTEST, rows, columns)) / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _with_band(picture: Image.Image, lines: Sequence[Mark]) -> Image.Image:
    # The width of a letter is a little over half of its height: the longest line must fit between the margins.
    size = max(10, min(picture.width // 40, int(picture.width / (0.6 * max(len(line.text) for line in lines) + 2))))
    font = ImageFont.load_default(size)
    band = (len(lines) * 3 * size) // 2 + size
    sheet = Image.new("RGB", (picture.width, picture.height + band), _BAND)
    sheet.paste(picture, (0, band))
    pen = ImageDraw.Draw(sheet)
    for index, line in enumerate(lines):
        pen.text((size, size // 2 + index * 3 * size // 2), line.text, font=font, fill=line.colour)
    return sheet
