"""U-Nets (Ronneberger et al., 2015) over any encoder of the table, with maps at the input's own resolution."""

from __future__ import annotations

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


def decoder_filters(encoder: str, deepest: int) -> tuple[int, ...]:
    """Filters of the decoder's levels; the plain encoders are mirrored."""
    mirrored = {"plain": PLAIN, "light": LIGHT}
    if encoder in mirrored:
        return tuple(reversed(mirrored[encoder][: deepest.bit_length() - 1]))
    return DECODER


def _up(x: Any, skip: Any | None, filters: int, level: int) -> Any:
    """Twice as fine: enlarge, join the encoder's features of that size, two convolutions."""
    x = layers.UpSampling2D(2, name=f"up{level}_enlarge")(x)
    if skip is not None:
        x = layers.Concatenate(name=f"up{level}_join")([x, skip])
    x = convolve_normalise_relu(x, filters, 3, f"up{level}_conv1")
    return convolve_normalise_relu(x, filters, 3, f"up{level}_conv2")


def decode(features: dict[int, Any], encoder: str, width: float) -> Any:
    """Features at the encoder's input resolution. The published U-Net goes down to stride 16, all others to 32."""
    deepest = 16 if encoder == "plain" else 32
    x, stride = features[deepest], deepest
    for level, filters in enumerate(decoder_filters(encoder, deepest), start=1):
        stride //= 2
        x = _up(x, features.get(stride), scaled(filters, width), level)
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


def map_logits(image: Any, encoder: str, labels: int, *, width: float, initial: str, border: int) -> Any:
    """Logits ``[n, size, size, labels]`` of an image ``[n, size, size, 1]`` in ``[0, 1]``."""
    shown, inner = framed(image, border)
    features = encode(encoder, shown, width, initial)
    x = decode(features, encoder, width)
    logits = layers.Conv2D(labels, 3, padding="same", dtype="float32", name="places")(x)
    return layers.Identity(dtype="float32", name="map_logits")(unframed(logits, inner, border))
