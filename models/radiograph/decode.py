"""From a data set to stored pixel values: decode, check, cut to the stored bits, refuse what is no grey image.

Everything that arrives in Pixel Data (7FE0,0010) (PS3.5 8, A.4) ends here as :class:`StoredPixels` or as an
:class:`UnreadablePixels` that says precisely why not.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_fragments, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.uid import UID, ExplicitVRBigEndian

from models.contract import NotAnalysed
from models.radiograph.attributes import sound_attributes
from models.radiograph.bounded_source import InvalidDataSetError
from models.radiograph.codestream import CodestreamError, FrameHeader, jpeg_2000_header, jpeg_header
from models.radiograph.data_set import read_path
from models.radiograph.transfer_syntaxes import DECODERS, LOSSY, PixelDecoder

Samples = NDArray[Any]
Codes = NDArray[np.unsignedinteger[Any]]
_Made = TypeVar("_Made")
_QUOTED = re.compile(r"""(["'`])(?:(?!\1).)*\1""")

MAXIMUM_PIXELS = 64_000_000
"""Rows times Columns above this are refused unless a caller says otherwise: the largest radiography detectors have
fewer. An image of this size takes about a gigabyte of memory on its way to a model."""

PIXEL_ATTRIBUTES = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    "PixelData",
)
"""What decoding needs of a data set: the Image Pixel module (PS3.3 C.7.6.3)."""

_GREY_TOLERANCE = 8 / 255
_GREY_ROUNDING = 3.0
_COLOUR_FRACTION = 1e-3
# Native pixel data is padded to an even length (PS3.5 8.1.1), by some writers to a multiple of 16.
_LONGEST_PADDING = 15
_ITEM = {True: b"\xfe\xff\x00\xe0", False: b"\xff\xfe\xe0\x00"}


class PixelFault(StrEnum):
    """Why pixels cannot be read: the closed list."""

    NOT_DICOM = "not_dicom"
    NO_PIXELS = "no_pixels"
    TRANSFER_SYNTAX = "transfer_syntax"
    PIXEL_HEADER = "pixel_header"
    MULTI_FRAME = "multi_frame"
    TOO_LARGE = "too_large"
    WRONG_LENGTH = "wrong_length"
    CORRUPT = "corrupt"
    SIZE_MISMATCH = "size_mismatch"
    COLOUR = "colour"


class UnreadablePixels(Exception):  # noqa: N818 - says what the pixels are
    """The pixels of a data set cannot be read; ``code`` is from the closed list, ``sentence`` is for a person."""

    def __init__(self, code: PixelFault, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence

    @property
    def not_analysed(self) -> NotAnalysed:
        """The same as the reason of an image that was not analysed."""
        return NotAnalysed(code=self.code.value, sentence=self.sentence)


@dataclass(frozen=True, slots=True, eq=False)
class StoredPixels:
    """One grey frame as stored: ``codes`` are the stored bits as unsigned integers ``[rows, columns]``.

    ``bits`` is Bits Stored, or the depth of the code stream where that is all there is; with ``signed`` a code is a
    two's complement number of that many bits. ``scaled`` says that the values were brought to another depth than the
    one that windows and padding values of the header speak of. ``notes`` say what was fixed.
    """

    codes: Codes
    bits: int
    signed: bool
    decoder: PixelDecoder
    notes: tuple[str, ...] = ()
    scaled: bool = False

    def domain(self) -> NDArray[np.float64]:
        """The stored value that each possible code stands for: ``float64[2 ** bits]``."""
        codes = np.arange(1 << self.bits, dtype=np.int64)
        if self.signed:
            codes = np.where(codes >= 1 << (self.bits - 1), codes - (1 << self.bits), codes)
        return codes.astype(np.float64)

    def values(self) -> NDArray[np.int32]:
        """Stored values ``int32[rows, columns]``, with their sign."""
        return self.domain().astype(np.int32)[self.codes]


@dataclass(frozen=True, slots=True)
class _Header:
    """The Image Pixel module (PS3.3 C.7.6.3), checked."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    photometric: str
    transfer_syntax: str


def decode(source: Dataset | Path, threads: int = 1, maximum_pixels: int = MAXIMUM_PIXELS) -> StoredPixels:
    """Decode the one frame of a data set or DICOM file; ``threads`` is how many OpenJPEG may take.

    What the header and the code stream claim is compared before any memory is taken for it, and what comes out is
    compared with both. An image of more than ``maximum_pixels`` is not decoded.

    Raises:
        UnreadablePixels: With the code and the sentence of what is wrong.
    """
    dataset = sound_attributes(read_file(source) if isinstance(source, Path) else source, PIXEL_ATTRIBUTES)
    header = _header(dataset, maximum_pixels)
    decoder = DECODERS.get(header.transfer_syntax)
    if decoder is None:
        name = UID(header.transfer_syntax).name
        raise UnreadablePixels(PixelFault.TRANSFER_SYNTAX, f"There is no decoder for the transfer syntax {name}.")
    samples, precision = _decoded(dataset, header, decoder, threads)
    if header.samples > 1 or header.photometric == "PALETTE COLOR":
        grey = _understood(decoder, lambda: _grey(dataset, header, samples, decoder))
        return StoredPixels(grey, 8 * grey.dtype.itemsize, False, decoder)
    header, notes = _of_its_own_depth(header, precision)
    codes, cut = _stored_bits(samples, header, precision)
    return StoredPixels(codes, header.stored, header.signed, decoder, (*notes, *cut), scaled=bool(notes))


def _decoded(dataset: Dataset, header: _Header, decoder: PixelDecoder, threads: int) -> tuple[Samples, int]:
    """Samples, and how many bits of each may be set; their shape and range are what was promised."""
    samples, precision = _understood(decoder, lambda: _SAMPLES[decoder](dataset, header, threads))
    shape = (header.rows, header.columns) if header.samples == 1 else (header.rows, header.columns, header.samples)
    if samples.shape != shape:
        words = " x ".join(str(size) for size in samples.shape)
        raise UnreadablePixels(
            PixelFault.SIZE_MISMATCH, f"The pixels decode to {words}, not to {' x '.join(map(str, shape))}."
        )
    if samples.dtype.kind not in "iu" or (samples.dtype.kind == "u" and int(samples.max()) >> precision):
        raise UnreadablePixels(PixelFault.SIZE_MISMATCH, f"The pixels decode to values beyond {precision} bits.")
    if samples.dtype.kind == "i" and not header.signed and int(samples.min()) < 0:
        raise UnreadablePixels(PixelFault.SIZE_MISMATCH, "The data set promises no sign, its pixel data has negatives.")
    return samples, precision


def _understood(decoder: PixelDecoder, decoding: Callable[[], _Made]) -> _Made:
    """What ``decoding`` gives; whatever it raises says that the bytes are broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decoding()
    except (UnreadablePixels, MemoryError):
        raise
    except CodestreamError as error:
        raise UnreadablePixels(PixelFault.CORRUPT, f"The pixels cannot be decoded: {error}.") from error
    except Exception as error:
        # Decoders that meet hostile bytes fail in every way there is; for us they all mean the same.
        message = _without_values(str(error))
        raise UnreadablePixels(PixelFault.CORRUPT, f"The pixels cannot be decoded ({decoder}): {message}.") from error


def _without_values(words: str) -> str:
    """What a library says, without what it quotes: a peer may have put a patient's name where a code belongs."""
    return _QUOTED.sub("…", words)


def _of_its_own_depth(header: _Header, precision: int) -> tuple[_Header, tuple[str, ...]]:
    """The header with the depth that a lossy code stream has, where that is less than it says.

    Whoever compressed brought the values to that depth and left the header as it was.
    """
    if header.transfer_syntax not in LOSSY or header.signed or precision >= header.stored:
        return header, ()
    note = f"The pixel data has {precision} bits a sample, not {header.stored}: windows of the header were not used."
    return replace(header, stored=precision, high_bit=precision - 1), (note,)


def read_file(path: Path, *, stop_before_pixels: bool = False) -> Dataset:
    """Read a DICOM file, or only what stands before its pixels.

    Raises:
        UnreadablePixels: It is not one.
        OSError: The disk does not give it now, which says nothing about its bytes.
    """
    try:
        return read_path(path, pixels=not stop_before_pixels)
    except (InvalidDataSetError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UnreadablePixels(PixelFault.NOT_DICOM, f"The file cannot be read as DICOM: {error}.") from error


def _header(dataset: Dataset, maximum_pixels: int) -> _Header:
    if "PixelData" not in dataset or not dataset["PixelData"].value:
        raise UnreadablePixels(PixelFault.NO_PIXELS, "The data set has no pixel data.")
    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    if syntax is None:
        raise UnreadablePixels(PixelFault.TRANSFER_SYNTAX, "The data set does not say its transfer syntax.")
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        if not isinstance(dataset.get(keyword), int):
            raise UnreadablePixels(PixelFault.PIXEL_HEADER, f"The data set has no {keyword} that can be read.")
    header = _Header(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        samples=int(dataset.get("SamplesPerPixel") or 1),
        allocated=int(dataset.BitsAllocated),
        stored=int(dataset.get("BitsStored") or dataset.BitsAllocated),
        high_bit=int(dataset.get("HighBit") or 0),
        signed=int(dataset.get("PixelRepresentation") or 0) == 1,
        photometric=str(dataset.get("PhotometricInterpretation") or "").strip().upper(),
        transfer_syntax=str(syntax),
    )
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnreadablePixels(PixelFault.MULTI_FRAME, f"The image has {frames} frames; one is expected.")
    _check(header, maximum_pixels)
    return header


def _check(header: _Header, maximum_pixels: int) -> None:
    size = f"{header.rows} x {header.columns}"
    if header.rows < 1 or header.columns < 1:
        raise UnreadablePixels(PixelFault.PIXEL_HEADER, f"The image has {size} pixels.")
    if header.rows * header.columns > maximum_pixels:
        sentence = f"The image has {size} pixels, more than the {maximum_pixels} that are decoded here."
        raise UnreadablePixels(PixelFault.TOO_LARGE, sentence)
    if header.samples not in (1, 3) or header.allocated not in (8, 16) or not 1 <= header.stored <= header.allocated:
        words = f"{header.samples} samples of {header.stored} bits in {header.allocated}"
        raise UnreadablePixels(PixelFault.PIXEL_HEADER, f"A pixel has {words}; one or three of 8 or 16 can be read.")
    if header.high_bit >= header.allocated:
        sentence = f"The highest bit of a pixel is said to be {header.high_bit}, of {header.allocated}."
        raise UnreadablePixels(PixelFault.PIXEL_HEADER, sentence)


def _native_samples(dataset: Dataset, header: _Header, _threads: int) -> tuple[Samples, int]:
    expected = header.rows * header.columns * header.samples * header.allocated // 8
    if header.photometric == "YBR_FULL_422":
        expected = expected // 3 * 2
    little = header.transfer_syntax != ExplicitVRBigEndian
    element = dataset["PixelData"]
    is_long = len(element.value) > expected + _LONGEST_PADDING and element.value.startswith(_ITEM[little])
    if element.is_undefined_length or is_long:
        dataset.add_new(element.tag, element.VR, _one_item(element.value, expected, little))
    found = len(dataset.PixelData)
    if not expected <= found <= expected + _LONGEST_PADDING:
        sentence = f"There are {found} bytes of pixel data where {expected} are needed."
        raise UnreadablePixels(PixelFault.WRONG_LENGTH, sentence)
    return _pydicom_samples(dataset, header)


def _one_item(value: bytes, expected: int, little: bool) -> bytes:
    """The native frame that somebody has put into an item (PS3.5 A.4), if that is exactly what there is."""
    items = list(islice(generate_fragments(value, endianness="<" if little else ">"), 3))
    if len(items) == 2 and expected <= len(items[1]) <= expected + 1:
        return items[1]
    sentence = "The pixel data is encapsulated, but the transfer syntax is not, and it is not one whole frame."
    raise UnreadablePixels(PixelFault.WRONG_LENGTH, sentence)


def _rle_samples(dataset: Dataset, header: _Header, _threads: int) -> tuple[Samples, int]:
    return _pydicom_samples(dataset, header)


def _pydicom_samples(dataset: Dataset, header: _Header) -> tuple[Samples, int]:
    decoder = get_decoder(UID(header.transfer_syntax))
    # The unused bits are cut in this module, where High Bit is looked at and what is lost is told.
    options: dict[str, Any] = {"correct_unused_bits": False}
    plugin = "pydicom" if decoder.is_encapsulated else ""
    samples, _ = decoder.as_array(dataset, raw=True, index=0, decoding_plugin=plugin, **options)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    return samples, header.allocated


def _jpeg_samples(dataset: Dataset, header: _Header, _threads: int) -> tuple[Samples, int]:
    frame = _frame(dataset)
    found = _matching(jpeg_header(frame), header)
    if header.samples == 3:
        untold = b"JFIF" not in frame[:32] and b"Adobe" not in frame[:256]
        space = "RGB" if untold and header.photometric == "RGB" else None
        return imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace="RGB"), found.precision
    return imagecodecs.jpeg8_decode(frame), found.precision


def _jpeg_ls_samples(dataset: Dataset, header: _Header, _threads: int) -> tuple[Samples, int]:
    frame = _frame(dataset)
    found = _matching(jpeg_header(frame), header)
    return imagecodecs.jpegls_decode(frame), found.precision


def _jpeg_2000_samples(dataset: Dataset, header: _Header, threads: int) -> tuple[Samples, int]:
    frame = _frame(dataset)
    found = _matching(jpeg_2000_header(frame), header)
    samples = imagecodecs.jpeg2k_decode(frame, numthreads=threads)
    return samples, header.allocated if samples.dtype.kind == "i" else found.precision


_SAMPLES: Mapping[PixelDecoder, Callable[[Dataset, _Header, int], tuple[Samples, int]]] = {
    PixelDecoder.NATIVE: _native_samples,
    PixelDecoder.RLE: _rle_samples,
    PixelDecoder.JPEG: _jpeg_samples,
    PixelDecoder.JPEG_LS: _jpeg_ls_samples,
    PixelDecoder.JPEG_2000: _jpeg_2000_samples,
}


def _frame(dataset: Dataset) -> bytes:
    return bytes(get_frame(dataset.PixelData, 0, number_of_frames=1))


def _matching(found: FrameHeader, header: _Header) -> FrameHeader:
    if (found.rows, found.columns, found.samples) != (header.rows, header.columns, header.samples):
        sentence = (
            f"The data set promises {header.rows} x {header.columns} pixels of {header.samples} samples, "
            f"its pixel data {found.rows} x {found.columns} of {found.samples}."
        )
        raise UnreadablePixels(PixelFault.SIZE_MISMATCH, sentence)
    if found.precision > header.allocated:
        sentence = f"The pixel data has {found.precision} bits a sample, the data set allocates {header.allocated}."
        raise UnreadablePixels(PixelFault.SIZE_MISMATCH, sentence)
    return found


def _stored_bits(samples: Samples, header: _Header, precision: int) -> tuple[Codes, tuple[str, ...]]:
    """Cut samples to the stored bits (PS3.5 8.1.1): others may hold overlays, or nothing that may be looked at."""
    kind = np.dtype(np.uint8 if header.allocated == 8 else np.uint16)
    mask = (1 << header.stored) - 1
    shift = max(header.high_bit + 1 - header.stored, 0)
    if header.transfer_syntax in LOSSY and not shift and not header.signed and samples.dtype.kind == "u":
        limited: Codes = np.minimum(samples, mask).astype(kind, copy=False)
        return limited, _beyond(limited, samples, "limited to")
    raw: Samples = samples.view(f"u{samples.dtype.itemsize}").astype(kind, copy=False)
    if header.signed and precision < header.stored:
        raw = _extended(raw, precision).astype(kind)
    drifted = np.right_shift(raw, shift)
    codes: Codes = np.bitwise_and(drifted, mask).astype(kind, copy=False)
    signs = header.signed and _is_sign_extension(raw, codes, header, shift)
    return codes, () if signs else _beyond(codes, drifted, "masked to")


def _is_sign_extension(raw: Samples, codes: Codes, header: _Header, shift: int) -> bool:
    extended = _extended(codes, header.stored) << shift
    return bool(np.array_equal(extended.astype(raw.dtype), raw))


def _extended(codes: Samples, bits: int) -> Samples:
    """Two's complement numbers of so many bits as ``int32``."""
    sign = 1 << (bits - 1)
    return (codes.astype(np.int32) ^ sign) - sign


def _beyond(codes: Samples, samples: Samples, words: str) -> tuple[str, ...]:
    count = int(np.count_nonzero(codes != samples))
    return (f"{count} values beyond the stored bits were {words} them.",) if count else ()


def _grey(dataset: Dataset, header: _Header, samples: Samples, decoder: PixelDecoder) -> Codes:
    """One channel of a colour image whose three are alike.

    Raises:
        UnreadablePixels: It has colours.
    """
    rgb = _rgb(dataset, header, samples, decoder)
    limit = max(_GREY_TOLERANCE * float(rgb.max()), _GREY_ROUNDING)
    spread = rgb.max(axis=2).astype(np.int32) - rgb.min(axis=2)
    if np.count_nonzero(spread > limit) > _COLOUR_FRACTION * spread.size:
        raise UnreadablePixels(PixelFault.COLOUR, "The image is in colour; radiographs are grey.")
    grey: Codes = np.ascontiguousarray(rgb[..., 1])
    return grey


def _rgb(dataset: Dataset, header: _Header, samples: Samples, decoder: PixelDecoder) -> Samples:
    if header.photometric == "PALETTE COLOR":
        return apply_color_lut(samples, dataset)
    if header.photometric.startswith("YBR_FULL") and decoder in (PixelDecoder.NATIVE, PixelDecoder.RLE):
        return convert_color_space(samples, header.photometric, "RGB")
    return samples
