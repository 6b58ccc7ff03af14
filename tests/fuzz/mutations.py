"""Data sets of radiographs with one or several things wrong, made from a seed: what peers, gateways and attackers send.

A data set is taken apart into its top-level elements, changed as a list (another value representation, a value that no
parser likes, an element twice, not at all or in another place, sequences within sequences), put together in some
encoding, and then often damaged as bytes as well.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from random import Random

import imagecodecs
import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.encaps import encapsulate

from tests.workers.results.sources import source

IMPLICIT, EXPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
JPEG, LOSSLESS, JPEG_LS, JPEG_2000, HTJ2K, RLE = (
    f"1.2.840.10008.1.2.{end}" for end in ("4.50", "4.70", "4.80", "4.90", "4.201", "5")
)
SYNTAXES = (IMPLICIT, EXPLICIT, DEFLATED, JPEG, LOSSLESS, JPEG_LS, JPEG_2000, HTJ2K, RLE)
ROWS, COLUMNS = 40, 36

_LONG = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OF", b"OD", b"OL", b"OV", b"SV", b"UV"})
_VRS = (b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OW PN SH SL SQ SS ST TM UC UI UL UN UR US UT XX ??").split()
_PIXEL_DATA = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Element:
    """One element as it is to be written; ``length`` is what it says of its value, None says the truth."""

    tag: int
    vr: bytes
    value: bytes
    length: int | None = None


def data_set(seed: int) -> tuple[str, bytes]:
    """The transfer syntax and the bytes of the data set with this seed; one in ten is as it should be."""
    random = Random(seed)
    syntax = random.choice(SYNTAXES)
    elements = _elements(_radiograph(random, syntax))
    body = _encoded(elements, syntax)
    if seed % 10 == 0:
        return syntax, _wrapped(body, syntax)
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        elements = random.choice(_CHANGES)(elements, random)
    body = _encoded(elements, syntax)
    if random.random() < 0.5:
        body = random.choice(_DAMAGES)(body, random)
    body = _wrapped(body, syntax)
    if syntax == DEFLATED and random.random() < 0.3:
        body = random.choice(_DAMAGES)(body, random)
    if random.random() < 0.03:
        syntax = random.choice(SYNTAXES)
    return syntax, body


def broken_image(seed: int) -> tuple[str, bytes]:
    """The transfer syntax and the bytes of an image whose header is sound and whose code stream is not."""
    random = Random(f"code stream {seed}")
    syntax = random.choice((*_FRAMES, DEFLATED))
    damages = random.choices(_DAMAGES, k=random.choice((1, 1, 2, 5)))

    def damaged(data: bytes) -> bytes:
        for damage in damages:
            data = damage(data, random) or data
        return data

    if syntax == DEFLATED:
        return syntax, damaged(_wrapped(_encoded(_elements(_radiograph(random, syntax)), syntax), syntax))
    return syntax, _encoded(_elements(_radiograph(random, syntax, damaged)), syntax)


def code_stream(seed: int) -> bytes:
    """One sound code stream of the corpus, of a size and an encoder of its own."""
    random = Random(seed)
    pixels = np.frombuffer(random.randbytes(16 * 12), np.uint8).reshape(16, 12)
    return bytes(random.choice((*_FRAMES.values(),))(pixels))


def _radiograph(random: Random, syntax: str, change: Callable[[bytes], bytes] = bytes) -> Dataset:
    """A sound data set with as many of the attributes as anything of ours looks at; ``change`` gets its code stream."""
    bits = 8 if syntax == JPEG else random.choice((8, 10, 12, 16))
    dataset = source("dx", (ROWS, COLUMNS), **_OPTIONS[random.randrange(len(_OPTIONS))])
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    pixels = ((x * 29 + y * 13) % (1 << bits)).astype("<u1" if bits == 8 else "<u2")
    dataset.SamplesPerPixel, dataset.BitsAllocated = 1, pixels.itemsize * 8
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    dataset.WindowCenter, dataset.WindowWidth = str(1 << (bits - 1)), str(1 << bits)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "0", "US"
    frame = change(bytes(_FRAMES[syntax](pixels))) if syntax in _FRAMES else pixels.tobytes()
    dataset.add_new(_PIXEL_DATA, "OB" if bits == 8 else "OW", encapsulate([frame]) if syntax in _FRAMES else frame)
    dataset["PixelData"].is_undefined_length = syntax in _FRAMES
    return dataset


def _rle(pixels: np.ndarray) -> bytes:
    planes = [plane.tobytes() for plane in np.ascontiguousarray(pixels).view("u1").reshape(-1, pixels.itemsize).T][::-1]
    packed = [imagecodecs.packbits_encode(plane) for plane in planes]
    packed = [plane + b"\0" * (len(plane) % 2) for plane in packed]
    starts = [64 + sum(map(len, packed[:number])) for number in range(len(packed))]
    return struct.pack("<16L", len(packed), *starts, *[0] * (15 - len(starts))) + b"".join(packed)


_FRAMES: dict[str, Callable[[np.ndarray], bytes | bytearray]] = {
    JPEG: imagecodecs.jpeg8_encode,
    LOSSLESS: lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=8 * pixels.itemsize),
    JPEG_LS: imagecodecs.jpegls_encode,
    JPEG_2000: lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2"),
    HTJ2K: imagecodecs.htj2k_encode,
    RLE: _rle,
}


def _table(entries: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, 0, bits])
    item.add_new("LUTData", "OW", np.linspace(0, (1 << bits) - 1, entries).astype("<u2").tobytes())
    item.ModalityLUTType = "US"
    return item


def _code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "Something"
    return item


def _other_id(value: str) -> Dataset:
    item = Dataset()
    item.PatientID, item.TypeOfPatientID = value, "TEXT"
    return item


_OPTIONS: tuple[dict[str, object], ...] = (
    {},
    {"VOILUTSequence": [_table(256, 10)], "ProcedureCodeSequence": [_code("399208008")]},
    {"ModalityLUTSequence": [_table(4096, 12)], "OtherPatientIDsSequence": [_other_id("A"), _other_id("B")]},
    {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Ünlü^Ä", "BurnedInAnnotation": "NO"},
    {"SpecificCharacterSet": ["ISO 2022 IR 6", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
    {
        "ShutterShape": ["RECTANGULAR", "CIRCULAR"],
        "ShutterLeftVerticalEdge": 2,
        "ShutterRightVerticalEdge": 30,
        "ShutterUpperHorizontalEdge": 2,
        "ShutterLowerHorizontalEdge": 30,
        "CenterOfCircularShutter": [20, 18],
        "RadiusOfCircularShutter": 15,
    },
    {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 1, 30, 30, 30]},
    {"TimezoneOffsetFromUTC": "+0100", "PixelAspectRatio": [2, 1], "ImagerPixelSpacing": None},
    {"DeidentificationMethodCodeSequence": [_code("113100")], "PatientIdentityRemoved": "YES", "PatientAge": "065Y"},
    {"PixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL", "PhotometricInterpretation": "MONOCHROME1"},
    {"EstimatedRadiographicMagnificationFactor": 1.1, "LossyImageCompression": "01", "LossyImageCompressionRatio": "9"},
    {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 3, "VOILUTFunction": "SIGMOID"},
)


def _elements(dataset: Dataset) -> list[Element]:
    """The top-level elements in explicit VR little endian."""
    buffer = BytesIO()
    del dataset.file_meta
    dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    body, at, found = buffer.getvalue(), 0, []
    while at < len(body):
        group, number, vr, short = struct.unpack_from("<HH2sH", body, at)
        head, length = (12, struct.unpack_from("<L", body, at + 8)[0]) if vr in _LONG else (8, short)
        end = len(body) - 8 if length == _UNDEFINED else at + head + length
        undefined = _UNDEFINED if length == _UNDEFINED else None
        found.append(Element(group << 16 | number, vr, body[at + head : end], undefined))
        at = end + 8 if undefined else end
    return found


def _encoded(elements: Sequence[Element], syntax: str) -> bytes:
    return b"".join(_implicit(each) if syntax == IMPLICIT else _explicit(each) for each in elements)


def _explicit(element: Element) -> bytes:
    length = len(element.value) if element.length is None else element.length
    tag = struct.pack("<HH", element.tag >> 16, element.tag & 0xFFFF)
    if element.vr in _LONG or length == _UNDEFINED:
        head = tag + element.vr + struct.pack("<HL", 0, length)
    else:
        head = tag + element.vr + struct.pack("<H", length & 0xFFFF)
    return head + element.value + _delimiter(length)


def _implicit(element: Element) -> bytes:
    length = len(element.value) if element.length is None else element.length
    head = struct.pack("<HHL", element.tag >> 16, element.tag & 0xFFFF, length)
    return head + element.value + _delimiter(length)


def _delimiter(length: int) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) if length == _UNDEFINED else b""


def _wrapped(body: bytes, syntax: str) -> bytes:
    if syntax != DEFLATED:
        return body
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


Change = Callable[[list[Element], Random], list[Element]]


def _one(elements: list[Element], random: Random, make: Callable[[Element], Element]) -> list[Element]:
    at = random.randrange(len(elements))
    return [*elements[:at], make(elements[at]), *elements[at + 1 :]]


def _other_vr(elements: list[Element], random: Random) -> list[Element]:
    return _one(elements, random, lambda each: replace(each, vr=random.choice(_VRS)))


_VALUES = (
    b"",
    b"\0",
    b"0 ",
    b"-1",
    b"nan ",
    b"inf\\-inf",
    b"1e308 ",
    b"1e-308",
    b"9" * 64,
    b"\\",
    b"a\\b ",
    b"1\\2\\3 ",
    b"\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"M\xfcller",
    b"\x1b$B;3ED",
    b"\x1b",
    b"^^^^^^====",
    b"\xef\xbf\xbd ",
    b"x" * 70,
    b"19991399",
    b"../../etc/passwd",
    b"YES ",
    b"WINDOWS1252 ",
    b"ISO_IR 192",
    b"GB18030 ",
    b"hex ",
    b"\xfe\xff\x00\xe0\x00\x00\x00\x00",
)


def _other_value(elements: list[Element], random: Random) -> list[Element]:
    return _one(elements, random, lambda each: replace(each, value=random.choice(_VALUES), length=None))


def _other_number(elements: list[Element], random: Random) -> list[Element]:
    """Put another number where a short one stands."""
    at = random.choice([at for at, each in enumerate(elements) if each.vr == b"US"] or [0])
    value = struct.pack("<H", random.choice((0, 1, 2, 7, 8, 9, 12, 15, 17, 255, 256, 32768, 65535)))
    return [*elements[:at], replace(elements[at], value=value), *elements[at + 1 :]]


def _other_length(elements: list[Element], random: Random) -> list[Element]:
    length = random.choice((0, 1, 2, 7, 255, 65535, 1 << 20, 0x7FFFFFFF, _UNDEFINED - 1, _UNDEFINED))
    return _one(elements, random, lambda each: replace(each, length=length))


def _twice(elements: list[Element], random: Random) -> list[Element]:
    again = random.choice(elements)
    at = random.randrange(len(elements) + 1)
    return [*elements[:at], replace(again, value=random.choice((again.value, *_VALUES))), *elements[at:]]


def _without(elements: list[Element], random: Random) -> list[Element]:
    at = random.randrange(len(elements))
    return [*elements[:at], *elements[at + 1 :]] or elements


def _elsewhere(elements: list[Element], random: Random) -> list[Element]:
    mixed = list(elements)
    random.shuffle(mixed)
    return mixed


_STRAY = (0x00091001, 0x01F11026, 0x00020010, 0x00020000, 0x00880200, 0x00120064, 0x00081032, 0x54000100)


def _more(elements: list[Element], random: Random) -> list[Element]:
    """An element that has no business here: private, of the file meta, a sequence without end or as text."""
    tag = random.choice(_STRAY)
    value = random.choice((_nested(random.choice((1, 3, 40, 3000))), *_VALUES))
    more = Element(tag, random.choice((b"SQ", b"UN", b"LO", *_VRS)), value, random.choice((None, None, _UNDEFINED)))
    return sorted([*elements, more], key=lambda each: each.tag)


def _nested(depth: int) -> bytes:
    """A sequence within a sequence within a sequence, as the value of another, all of undefined length."""
    opening = struct.pack("<HHLHH2sHL", 0xFFFE, 0xE000, _UNDEFINED, 0x0008, 0x1140, b"SQ", 0, _UNDEFINED)
    closing = struct.pack("<HHLHHL", 0xFFFE, 0xE0DD, 0, 0xFFFE, 0xE00D, 0)
    return opening * depth + closing * depth


def _in_an_item(elements: list[Element], random: Random) -> list[Element]:
    """Pixel data with items too many, or none where there should be some."""
    pixels = next((each for each in elements if each.tag == _PIXEL_DATA), None)
    if pixels is None:
        return elements
    rest = [each for each in elements if each.tag != _PIXEL_DATA]
    value = encapsulate([pixels.value]) if random.random() < 0.7 else pixels.value[random.randrange(1, 40) :]
    return [*rest, replace(pixels, value=value, length=random.choice((None, _UNDEFINED)))]


_CHANGES: tuple[Change, ...] = (
    _other_vr,
    _other_value,
    _other_value,
    _other_value,
    _other_number,
    _other_number,
    _other_length,
    _twice,
    _without,
    _elsewhere,
    _more,
    _in_an_item,
)

Damage = Callable[[bytes, Random], bytes]


def _flip(body: bytes, random: Random) -> bytes:
    made = bytearray(body)
    for _ in range(random.choice((1, 3, 20))):
        # Half of them in the header: pixels make up most of the bytes, and least of the trouble.
        most = len(made) if random.random() < 0.5 else min(len(made), 1500)
        made[random.randrange(most)] = random.randrange(256)
    return bytes(made)


def _cut(body: bytes, random: Random) -> bytes:
    return body[: random.randrange(1, max(len(body), 2))]


def _leave_out(body: bytes, random: Random) -> bytes:
    at = random.randrange(len(body))
    return body[:at] + body[at + random.choice((1, 2, 8, 100)) :]


def _put_in(body: bytes, random: Random) -> bytes:
    at = random.randrange(len(body))
    return body[:at] + random.randbytes(random.choice((1, 2, 8, 300))) + body[at:]


_DAMAGES: tuple[Damage, ...] = (_flip, _flip, _flip, _cut, _leave_out, _put_in)
