"""Data sets that something is wrong with: a small radiograph or document, changed by chance as in the trade."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
from pydicom import Dataset, uid
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.fuzz.peer import CR, DEFLATED, EXPLICIT

DX = "1.2.840.10008.5.1.4.1.1.1.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
JPEG = "1.2.840.10008.1.2.4.50"
RLE = "1.2.840.10008.1.2.5"

CLASSES = (
    CR,
    DX,
    str(uid.BasicTextSRStorage),
    str(uid.ComprehensiveSRStorage),
    str(uid.KeyObjectSelectionDocumentStorage),
    str(uid.EncapsulatedPDFStorage),
    "1.2.840.10008.5.1.4.1.1.6",
)
SYNTAXES = (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED, JPEG_2000, JPEG, RLE)
CONTEXTS = tuple((sop_class, syntax) for sop_class in CLASSES for syntax in SYNTAXES)

_LONG = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR"})
_VRS = (b"LO", b"US", b"SQ", b"UN", b"OW", b"PN", b"DS", b"IS", b"ZZ", b"??", b"\0\0", b"UI", b"AT", b"FD")
_TEXTS = (
    b"",
    b"\\",
    b"\0\n\x1b[2J",
    b"2026-01-31T12:00:00.000Z ERROR forged\n",
    b"\xff\xfe\xc3",
    b"1e400",
    b"-1",
    b"9" * 70,
    b"x" * 70_000,
)


@dataclass(frozen=True, slots=True)
class Wire:
    """One object as it goes over the wire, and what its command says of it."""

    sop_class: str
    sop_instance: str
    syntax: str
    data_set: bytes


@dataclass(slots=True)
class _Draft:
    """A data set in explicit VR little endian, by element, before its bytes are made."""

    random: Random
    parts: list[bytes]

    def pick(self) -> int:
        return self.random.randrange(len(self.parts))


def wire(random: Random, number: int) -> Wire:
    """Make one object; the same again from the same generator state."""
    sop_class = random.choices(CLASSES, (60, 10, 8, 8, 6, 4, 4))[0]
    syntax = random.choices(SYNTAXES, (60, 8, 6, 10, 6, 5, 5))[0]
    root = f"1.2.826.0.1.3680043.10.1.{random.getrandbits(48)}.{number}"
    draft = _Draft(random, _sound(root, sop_class))
    for change in random.choices(_CHANGES, k=random.choice((1, 1, 1, 2, 3))):
        change(draft)
    data = b"".join(draft.parts)
    if syntax in (IMPLICIT, BIG_ENDIAN) and random.random() < 0.8:
        data = _damaged(random, _encoded(_made(root, sop_class), syntax))
    elif syntax == DEFLATED:
        data = _deflated(random, data)
    return Wire(sop_class, f"{root}.1", syntax, data)


def _sound(root: str, sop_class: str) -> list[bytes]:
    """The elements of a sound object in explicit VR little endian."""
    names = {0x00080018: f"{root}.1", 0x0020000D: f"{root}.2", 0x0020000E: f"{root}.3"}
    own = {struct.pack("<HH", tag >> 16, tag & 0xFFFF): element(tag, b"UI", _even(uid)) for tag, uid in names.items()}
    return [own.get(part[:4], part) for part in _template(sop_class)]


@cache
def _template(sop_class: str) -> tuple[bytes, ...]:
    return tuple(elements(_encoded(_made("1.2.3", sop_class), EXPLICIT)))


def _even(value: str) -> bytes:
    return value.encode() + b"\0" * (len(value) % 2)


def _made(root: str, sop_class: str) -> Dataset:
    return _image(root, sop_class) if sop_class in (CR, DX) else _document(root, sop_class)


def _image(root: str, sop_class: str) -> Dataset:
    made = _document(root, sop_class)
    made.Modality = "DX" if sop_class == DX else "CR"
    made.BodyPartExamined, made.ViewPosition, made.PatientOrientation = "CHEST", "PA", ["L", "F"]
    made.PresentationIntentType = "FOR PRESENTATION"
    made.ImagerPixelSpacing = [0.6, 0.6]
    made.Rows = made.Columns = 64
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.WindowCenter, made.WindowWidth = "2048", "4096"
    made.PixelData = _pixels()
    made["PixelData"].VR = "OW"
    return made


@cache
def _pixels() -> bytes:
    return np.random.default_rng(7).integers(0, 4096, (64, 64)).astype("<u2").tobytes()


def _document(root: str, sop_class: str) -> Dataset:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = sop_class, f"{root}.1"
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{root}.2", f"{root}.3"
    made.SpecificCharacterSet, made.Modality = "ISO_IR 100", "SR"
    made.PatientID, made.PatientName, made.PatientAge, made.PatientSex = "FUZZ-1", "Test^Fuzz", "050Y", "F"
    made.StudyDate, made.StudyTime, made.AccessionNumber = "20260301", "101500", "A1"
    made.CompletionFlag, made.VerificationFlag, made.ValueType = "COMPLETE", "VERIFIED", "CONTAINER"
    made.ConceptNameCodeSequence = [_code("113001", "DCM", "Rejected for Quality Reasons")]
    item = Dataset()
    item.ValueType, item.TextValue = "TEXT", "text"
    item.ConceptNameCodeSequence = [_code("1", "99X", "Assessment")]
    made.ContentSequence = [item, item]
    return made


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made


def _encoded(made: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != BIG_ENDIAN, syntax == IMPLICIT
    write_dataset(buffer, made)
    return buffer.getvalue()


def elements(data: bytes) -> list[bytes]:
    """The elements of a data set in explicit VR little endian whose lengths are true."""
    found, at = [], 0
    while at < len(data):
        vr = data[at + 4 : at + 6]
        head, length = (
            (12, struct.unpack_from("<L", data, at + 8)[0])
            if vr in _LONG
            else (8, struct.unpack_from("<H", data, at + 6)[0])
        )
        found.append(data[at : at + head + length])
        at += head + length
    return found


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One element in explicit VR little endian, whose length may be a lie."""
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return head + (struct.pack("<HL", 0, size) if vr in _LONG else struct.pack("<H", size & 0xFFFF)) + value


def _flip(draft: _Draft) -> None:
    at = draft.pick()
    draft.parts[at] = _damaged(draft.random, draft.parts[at])


def _damaged(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        if changed:
            changed[random.randrange(min(len(changed), random.choice((300, 2000, 10_000))))] = random.randrange(256)
    return bytes(changed)


def _lie_about_length(draft: _Draft) -> None:
    at, random = draft.pick(), draft.random
    part = bytearray(draft.parts[at])
    if len(part) < 12:
        return  # a piece of an element
    if bytes(part[4:6]) in _LONG:
        struct.pack_into("<L", part, 8, random.choice((0, 1, 7, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, len(part))))
    else:
        struct.pack_into("<H", part, 6, random.choice((0, 1, 7, 0xFFFF, 0x8000, min(len(part), 0xFFFF))))
    draft.parts[at] = bytes(part)


def _change_vr(draft: _Draft) -> None:
    at = draft.pick()
    part = draft.parts[at]
    draft.parts[at] = part[:4] + draft.random.choice(_VRS) + part[6:]


def _change_value(draft: _Draft) -> None:
    at = draft.pick()
    part = draft.parts[at]
    tag = int.from_bytes(part[:2], "little") << 16 | int.from_bytes(part[2:4], "little")
    value = draft.random.choice((*_TEXTS, draft.random.randbytes(draft.random.choice((1, 2, 4, 64)))))
    draft.parts[at] = element(tag, part[4:6], value)


def _shuffle(draft: _Draft) -> None:
    first, second = draft.pick(), draft.pick()
    draft.parts[first], draft.parts[second] = draft.parts[second], draft.parts[first]


def _repeat(draft: _Draft) -> None:
    draft.parts.insert(draft.pick(), draft.parts[draft.pick()])


def _leave_out(draft: _Draft) -> None:
    del draft.parts[draft.pick()]
    if not draft.parts:
        draft.parts.append(b"")


def _cut_off(draft: _Draft) -> None:
    at = draft.pick()
    draft.parts[at:] = [draft.parts[at][: draft.random.randrange(len(draft.parts[at]) + 1)]]


def _nest(draft: _Draft) -> None:
    endless, inner = draft.random.random() < 0.5, b""
    tag = draft.random.choice((0x00081140, 0x0040A730, 0x00091010, 0x00880200))
    for _ in range(draft.random.choice((1, 10, 100, 400))):
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
        inner = element(tag, b"SQ", item, 0xFFFFFFFF if endless else None)
        inner += struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) if endless else b""
    draft.parts.insert(draft.pick(), inner)


def _flood(draft: _Draft) -> None:
    draft.parts.insert(draft.pick(), element(0x00091001, b"LO", b"") * draft.random.choice((100, 5_000, 30_000)))


def _insert_odd(draft: _Draft) -> None:
    tag = draft.random.choice((0x00020010, 0x70150010, 0xFFFEE00D, 0xFFFEE000, 0x00080005, 0x00283010, 0x00280301))
    value = draft.random.choice(_TEXTS[:-1])
    draft.parts.insert(draft.pick(), element(tag, draft.random.choice(_VRS), value))


def _change_number(draft: _Draft) -> None:
    numbers = [at for at, part in enumerate(draft.parts) if part[4:6] == b"US"]
    if numbers:
        at = draft.random.choice(numbers)
        value = draft.random.choice((0, 1, 3, 7, 8, 16, 32, 63, 65, 4096, 40_000, 0xFFFF))
        draft.parts[at] = draft.parts[at][:8] + struct.pack("<H", value)


def _encapsulate(draft: _Draft) -> None:
    """Fragments of chance in the place of pixels; of no meaning where there are none."""
    random = draft.random
    start = random.choice((b"\xff\x4f\xff\x51", b"\xff\xd8\xff\xc0", b"\xff\xd8\xff\xc3", b"\0\0\0\1"))
    fragment = start + random.randbytes(random.choice((2, 60, 600)))
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) + struct.pack("<HHL", 0xFFFE, 0xE000, len(fragment)) + fragment
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) if random.random() < 0.8 else b""
    draft.parts = [part for part in draft.parts if part[:4] != b"\xe0\x7f\x10\x00"]
    draft.parts.append(element(0x7FE00010, b"OB", items, 0xFFFFFFFF) + end)


def _deflated(random: Random, data: bytes) -> bytes:
    deflater = zlib.compressobj(6, wbits=-zlib.MAX_WBITS)
    packed = deflater.compress(data)
    if random.random() < 0.1:
        packed += deflater.compress(element(0x00420011, b"OB", b"", 64 << 20) + bytes(64 << 20))
    packed += deflater.flush()
    return _damaged(random, packed) if random.random() < 0.3 else packed


_CHANGES: tuple[Callable[[_Draft], None], ...] = (
    _flip,
    _lie_about_length,
    _change_vr,
    _change_value,
    _shuffle,
    _repeat,
    _leave_out,
    _cut_off,
    _nest,
    _flood,
    _insert_odd,
    _change_number,
    _encapsulate,
)
