"""Which decoder reads which transfer syntax: one table, for the association offers and for the decoding alike.

A JPEG image does not have *the* pixels: two decoders may differ by a grey level, and then so do two findings. So each
transfer syntax has exactly one decoder here. The libraries are BSD or MIT licensed; pydicom's own JPEG plugins are
either GPL or cannot read 12-bit JPEG Extended.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class PixelDecoder(StrEnum):
    """The program that turns a frame's bytes into samples."""

    NATIVE = "pydicom, native pixel data"
    RLE = "pydicom, PackBits"
    JPEG = "imagecodecs, libjpeg-turbo 3"
    JPEG_LS = "imagecodecs, CharLS"
    JPEG_2000 = "imagecodecs, OpenJPEG"


DECODERS: Mapping[str, PixelDecoder] = MappingProxyType(
    {
        "1.2.840.10008.1.2": PixelDecoder.NATIVE,  # Implicit VR Little Endian
        "1.2.840.10008.1.2.1": PixelDecoder.NATIVE,  # Explicit VR Little Endian
        "1.2.840.10008.1.2.1.99": PixelDecoder.NATIVE,  # Deflated Explicit VR Little Endian
        "1.2.840.10008.1.2.2": PixelDecoder.NATIVE,  # Explicit VR Big Endian
        "1.2.840.10008.1.2.5": PixelDecoder.RLE,  # RLE Lossless
        "1.2.840.10008.1.2.4.50": PixelDecoder.JPEG,  # JPEG Baseline (Process 1)
        "1.2.840.10008.1.2.4.51": PixelDecoder.JPEG,  # JPEG Extended (Process 2 and 4)
        "1.2.840.10008.1.2.4.57": PixelDecoder.JPEG,  # JPEG Lossless (Process 14)
        "1.2.840.10008.1.2.4.70": PixelDecoder.JPEG,  # JPEG Lossless (Process 14, Selection Value 1)
        "1.2.840.10008.1.2.4.80": PixelDecoder.JPEG_LS,  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.81": PixelDecoder.JPEG_LS,  # JPEG-LS Near-lossless
        "1.2.840.10008.1.2.4.90": PixelDecoder.JPEG_2000,  # JPEG 2000 Lossless Only
        "1.2.840.10008.1.2.4.91": PixelDecoder.JPEG_2000,  # JPEG 2000
        "1.2.840.10008.1.2.4.201": PixelDecoder.JPEG_2000,  # High-Throughput JPEG 2000 Lossless Only
        "1.2.840.10008.1.2.4.202": PixelDecoder.JPEG_2000,  # High-Throughput JPEG 2000 with RPCL, Lossless Only
        "1.2.840.10008.1.2.4.203": PixelDecoder.JPEG_2000,  # High-Throughput JPEG 2000
    }
)

LOSSY = frozenset(
    {
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.81",
        "1.2.840.10008.1.2.4.91",
        "1.2.840.10008.1.2.4.203",
    }
)
"""Transfer syntaxes whose decoded samples may overshoot the stored bits, so that they are clipped and not masked."""
