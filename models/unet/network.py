"""U-Nets (Ronneberger et al., 2015) over any encoder of the table, with maps at the input's own resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import layers, ops

from models.encoders.parts import convolve_normalise_relu, scaled
from models.encoders.plain import LIGHT, PLAIN
from models.encoders.table import encode

DECODER = (256, 128, 64, 32, 16)
"""Filters from the deepest level up, as segmentation networks with a residual encoder use them."""
OUTSIDE = -10.0
"""Logit of places that the network was not shown: a probability of 0.00005."""
STEP = 32


def border_pixels(size: int, border: float) -> int:
    """Pixels cropped from each side when a fraction ``border`` of the size is.

    Raises:
        ValueError: less than nothing, or so much that hardly anything is left.
    """
    if not 0.0 <= border <= 0.4:
        raise ValueError(f"border must be from 0 to 0.4 of the image, not {border:g}")
    return round(size * border)


@dataclass(frozen=True, slots=True)
class Shape:
    """Between which strides a U-Net works, and how thick its decoder is.

    ``deepest`` is the coarsest stride of the encoder's features (0: as published, 16 of the plain U-Net and 32 of all
    others), ``finest`` that of the map, ``decoder`` the share of the decoder's filters.
    """

    deepest: int = 0
    finest: int = 1
    decoder: float = 1.0

    def __post_init__(self) -> None:
        if self.deepest not in (0, 16, 32) or self.finest not in (1, 2, 4) or not 0 < self.decoder <= 4:
            raise ValueError("deepest must be 16 or 32 (0: as published), finest 1, 2 or 4, decoder above 0, at most 4")


PUBLISHED = Shape()


def decoder_filters(encoder: str, deepest: int) -> tuple[int, ...]:
    """Filters of the decoder's levels; the plain encoders are mirrored."""
    levels = deepest.bit_length() - 1
    mirrored = {"plain": PLAIN, "light": LIGHT}
    if encoder in mirrored:
        return tuple(reversed(mirrored[encoder][:levels]))
    return DECODER[-levels:]


def _up(x: Any, skip: Any | None, filters: int, level: int) -> Any:
    """Twice as fine: enlarge, join the encoder's features of that size, two convolutions."""
    x = layers.UpSampling2D(2, name=f"up{level}_enlarge")(x)
    if skip is not None:
        x = layers.Concatenate(name=f"up{level}_join")([x, skip])
    x = convolve_normalise_relu(x, filters, 3, f"up{level}_conv1")
    return convolve_normalise_relu(x, filters, 3, f"up{level}_conv2")


def decode(features: dict[int, Any], encoder: str, width: float, shape: Shape = PUBLISHED) -> Any:
    """Features at the stride that ``shape`` names: at first the encoder's input resolution."""
    deepest = shape.deepest or (16 if encoder == "plain" else 32)
    x, stride = features[deepest], deepest
    for level, filters in enumerate(decoder_filters(encoder, deepest), start=1):
        if stride == shape.finest:
            break
        stride //= 2
        x = _up(x, features.get(stride), scaled(filters, width * shape.decoder), level)
    return x


def framed(image: Any, border: int) -> tuple[Any, int]:
    """The image without its border, filled up with air to a multiple of :data:`STEP`; and its side before that."""
    size = int(image.shape[1])
    inner = size - 2 * border
    fill = -inner % STEP
    x = layers.Cropping2D(border, name="crop_border")(image) if border else image
    return (layers.ZeroPadding2D(((0, fill), (0, fill)), name="fill")(x) if fill else x), inner


def unframed(logits: Any, inner: int, border: int) -> Any:
    """Undo :func:`framed` on a map; the border gets :data:`OUTSIDE`."""
    fill = int(logits.shape[1]) - inner
    if fill:
        logits = layers.Cropping2D(((0, fill), (0, fill)), name="cut_fill")(logits)
    if border:
        logits = ops.pad(logits, ((0, 0), (border, border), (border, border), (0, 0)), constant_values=OUTSIDE)
    return logits


def map_logits(
    image: Any, encoder: str, labels: int, *, width: float, initial: str, border: int, shape: Shape = PUBLISHED
) -> Any:
    """Logits ``[n, size / finest, size / finest, labels]`` of an image ``[n, size, size, 1]`` in ``[0, 1]``.

    Raises:
        ValueError: a coarse map of an image that has a border or is no multiple of :data:`STEP`.
    """
    shown, inner = framed(image, border)
    if shape.finest > 1 and (border or inner % STEP):
        raise ValueError(f"finest = {shape.finest} needs border = 0 and a size that is a multiple of {STEP}")
    features = encode(encoder, shown, width, initial)
    x = decode(features, encoder, width, shape)
    logits = layers.Conv2D(labels, 3, padding="same", dtype="float32", name="places")(x)
    whole = logits if shape.finest > 1 else unframed(logits, inner, border)
    return layers.Identity(dtype="float32", name="map_logits")(whole)
