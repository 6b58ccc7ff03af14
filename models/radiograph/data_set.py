"""Parser of data sets (PS3.5 7 and annex A) from untrusted bytes, within limits on size, depth and time.

A peer's bytes determine the length of a value, the depth of sequences, the number of elements and, deflated, the whole
size. pydicom has no limit on them: 3 MB can become 3 GB, and 4 MB can take half a minute. So everything from a peer is
read here, forward and once, under :class:`Limits`. The results are data sets of pydicom, which converts an element when
it is accessed. Elements that nobody asks for are skipped, and a sequence whose items contradict its length is left out:
a broken icon says nothing about an image.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import Dataset, uid
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from models.radiograph.bounded_source import (
    IMAGE_LIMITS,
    DataSetLimitError,
    InflatedSource,
    InvalidDataSetError,
    Limits,
    PlainSource,
    Source,
)

DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""Transfer syntaxes whose whole data set is deflated (PS3.5 A.5; Supplement 119 for JPIP)."""

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CHARACTER_SET = 0x00080005
_PIXEL_DATA = 0x7FE00010
_PIXEL_GROUP = 0x7FE0
_ITEM_GROUP = 0xFFFE
_META_GROUP = 0x0002
_VRS = {str(vr).encode(): str(vr) for vr in VR if len(str(vr)) == 2}
# Explicit value representations with a length of four bytes (PS3.5 7.1.2); of these the second line holds no items.
_LONG = frozenset({"SQ", "UN", "UC", "UR", "UT", "SV", "UV", "OB", "OD", "OF", "OL", "OV", "OW"})
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
_LONG_CODES = frozenset(code for code, vr in _VRS.items() if vr in _LONG)
_LAYOUTS = {order: tuple(struct.Struct(order + kind) for kind in ("HH2sH", "HHL", "L")) for order in "<>"}
_raw_element = partial(tuple.__new__, RawDataElement)  # without the function in Python that its class has for it
# How many elements are read between two looks at the clock.
_STEPS = 512
_PREAMBLE = 128


MALFORMED = (ValueError, TypeError, AttributeError, LookupError, NotImplementedError, OverflowError)
"""What pydicom raises when it converts an element whose bytes contradict its value representation."""


_META_LIMITS = Limits(inflated_bytes=0, elements=100, depth=1)


@dataclass(slots=True)
class _Level:
    """A data set while it is read: top level or item."""

    implicit: bool | None
    depth: int
    encoding: Any = default_encoding
    wanted: bool = True
    # By plain numbers: pydicom's tags take long to compare.
    elements: dict[int, Any] = field(default_factory=dict)


Enough = Callable[[int], bool]
"""Asked at each tag of the top level, before its element is read; True ends the reading."""


class Reader:
    """Reads one data set from where ``file`` stands; with ``tags`` only these are kept, on every level.

    ``elements`` are those of the top level so far, also when an error ended the reading; ``length`` is how many bytes
    (inflated) they and what was passed over take, up to the tag at which ``enough`` said so. ``in_order``: the tags of
    the top level, with the one that ``enough`` is asked about, come in the order of PS3.5 7.1.
    """

    def __init__(
        self, file: BinaryIO, transfer_syntax: str, limits: Limits, tags: Collection[int] | None = None
    ) -> None:
        self._source: Source
        self._bound: int | None = None
        if transfer_syntax in DEFLATED:
            self._source = InflatedSource(file, limits.inflated_bytes)
        else:
            self._source = PlainSource(file)
            self._bound = self._source.left
        self._little = transfer_syntax != uid.ExplicitVRBigEndian
        short, wide, long = _LAYOUTS["<" if self._little else ">"]
        self._short, self._wide, self._long = short.unpack, wide.unpack, long.unpack
        self._short_at, self._long_at = short.unpack_from, long.unpack_from
        self._limits = limits
        self._tags = None if tags is None else frozenset(tags) | {_CHARACTER_SET}
        self._steps_left = limits.elements
        self._look_at = max(limits.elements - _STEPS, 0)
        self._end_of_time: float | None = None
        self._at = 0
        self._asked_after = -1
        self._tag_before = -1
        self.in_order = True
        self._top = _Level(None, 0)
        self.elements = self._top.elements
        self.length = 0

    def read(self, enough: Enough | None = None, asked_after: int = -1) -> Reader:
        """Read to the end, or as far as is ``enough``, which is not asked at tags up to ``asked_after``.

        What was read before an error stays in ``elements``.

        Raises:
            InvalidDataSetError: the bytes are no data set, or (:class:`DataSetLimitError`) one that is too much.
        """
        self._asked_after = sys.maxsize if enough is None else asked_after
        self._data_set(self._top, self._bound, enough)
        return self

    def data_set(self, kind: type[Dataset] = Dataset) -> Dataset:
        """What was read so far, as a data set of some kind."""
        return self._made(self._top, default_encoding, kind)

    def _data_set(self, level: _Level, bound: int | None, enough: Enough | None, delimited: bool = False) -> None:
        """Read elements up to ``bound`` (where that is known), or to the delimiter where there is to be one."""
        in_memory = bool(self._source.memory) and not level.depth
        while bound is None or self._at < bound:
            if in_memory and (self._read_plain(level, enough) or self._at == bound):
                return
            head = self._head(bound)
            if len(head) < 8:
                if level.depth:
                    raise InvalidDataSetError("an item is cut off")
                break  # padding behind the last element
            group, number, code, short = self._short(head)
            tag = group << 16 | number
            if group == _ITEM_GROUP:
                if tag != _ITEM_END:
                    raise InvalidDataSetError(f"{_name(tag)} stands where an element is expected")
                if delimited:
                    return
                continue
            if not level.depth and self._is_enough(tag, enough):
                self.length = self._at - 8
                return
            if level.implicit is None and group != _META_GROUP:
                level.implicit = not _is_printable(code)
            vr, length = self._kind(level, head, code, short)
            self._element(level, tag, vr, length, bound)
        self.length = self._at

    def _is_enough(self, tag: int, enough: Enough | None) -> bool:
        self.in_order &= tag > self._tag_before
        self._tag_before = tag
        return tag > self._asked_after and enough is not None and enough(tag)

    def _read_plain(self, level: _Level, enough: Enough | None) -> bool:
        """Read what lies in memory, up to an element that needs more than a look; True if ``enough`` ends it.

        Nearly all of a header are no such: in explicit VR, of no undefined length, no sequence that is asked for. One
        loop, with nothing called for most of them, takes half of the time, and a peer waits for its answer meanwhile.
        """
        data, begin = self._source.memory, self._source.begin
        at, end, steps = begin + self._at, len(data), self._steps_left - self._look_at
        tags, kinds, kept, longest = self._tags, _VRS, level.elements, self._limits.value_bytes
        short_at, before, asked_after, over = self._short_at, self._tag_before, self._asked_after, False
        while steps > 0 and at + 8 <= end:
            group, number, code, length = short_at(data, at)
            vr = kinds.get(code)
            if vr is None or group == _META_GROUP or group >= _PIXEL_GROUP or level.implicit:
                break
            tag, value_at = group << 16 | number, at + 8
            wanted = tags is None or tag in tags
            if code in _LONG_CODES:
                if wanted or value_at + 4 > end:
                    break
                (length,) = self._long_at(data, value_at)
                value_at += 4
            if value_at + length > end or (wanted and length > longest):
                break
            if tag <= before:
                self.in_order = False
            before, level.implicit = tag, False
            if tag > asked_after and enough is not None and enough(tag):
                over = True
                break
            steps -= 1
            at = value_at + length
            if wanted:
                if tag == _CHARACTER_SET:
                    level.encoding = _encodings(data[value_at:at])
                value = data[value_at:at] or empty_value_for_VR(vr, raw=True)
                kept[tag] = _raw_element((BaseTag(tag), vr, length, value, 0, False, self._little, True, False))
        self._tag_before, self._steps_left = before, self._look_at + steps
        self._source.skip(at - begin - self._at)
        self._at = self.length = at - begin
        return over

    def _kind(self, level: _Level, head: bytes, code: bytes, short: int) -> tuple[str | None, int]:
        """Value representation and length of an element, as the two ways of PS3.5 7.1 say them, and some others.

        A value representation that is not known yet has a length of four bytes behind two that are zero, as all new
        ones have (PS3.5 6.2.2); one that is no letters at all is somebody's mistake, with a length of two. Others
        write single elements in implicit VR: no text then, but the length, which is short.
        """
        if level.implicit:
            return None, self._wide(head)[2]
        vr = _VRS.get(code)
        if vr is None and not _are_letters(code):
            return ("UN", short) if _is_printable(code) else (None, self._wide(head)[2])
        if vr in _LONG or (vr is None and not short):
            size = self._read(4)
            if len(size) < 4:
                raise InvalidDataSetError("a length is cut off")
            return vr or "UN", self._long(size)[0]
        return vr or "UN", short

    def _element(self, level: _Level, tag: int, vr: str | None, length: int, bound: int | None) -> None:
        wanted = level.wanted and (self._tags is None or tag in self._tags)
        is_bulk = tag >> 16 == _PIXEL_GROUP or vr in _BULK
        if length == _UNDEFINED and is_bulk:
            self._keep(level, tag, vr, length, self._fragments(tag, bound, wanted), wanted)
            return
        if length != _UNDEFINED:
            length = self._believed(level, tag, length, bound)
        if length == _UNDEFINED or (wanted and not is_bulk and _is_sequence(tag, vr)):
            self._sequence(level, tag, length, bound, wanted)
        elif wanted and length <= self._limits.value_bytes:
            self._keep(level, tag, vr, length, self._value(level, tag, length), wanted)
        elif not self._skip(length) and not self._may_be_cut_off(level, tag):
            raise InvalidDataSetError(f"{_name(tag)} is cut off")

    def _believed(self, level: _Level, tag: int, length: int, bound: int | None) -> int:
        """The length of a value, where there are so many bytes; of pixels that are cut off what there is."""
        if bound is None or length <= bound - self._at:
            return length
        if self._may_be_cut_off(level, tag):
            return bound - self._at
        raise InvalidDataSetError(f"{_name(tag)} says {length} bytes where {bound - self._at} are left")

    @staticmethod
    def _may_be_cut_off(level: _Level, tag: int) -> bool:
        return level.depth == 0 and tag >> 16 == _PIXEL_GROUP

    def _value(self, level: _Level, tag: int, length: int) -> bytes:
        value = self._read(length)
        if len(value) < length and not self._may_be_cut_off(level, tag):
            raise InvalidDataSetError(f"{_name(tag)} is cut off")
        return value

    def _keep(self, level: _Level, tag: int, vr: str | None, length: int, value: bytes, wanted: bool) -> None:
        if not wanted:
            return
        if tag == _CHARACTER_SET:
            level.encoding = _encodings(value)
        held: Any = value or empty_value_for_VR(vr, raw=True)
        kept = length if length == _UNDEFINED else len(value)
        level.elements[tag] = RawDataElement(BaseTag(tag), vr, kept, held, 0, vr is None, self._little)

    def _fragments(self, tag: int, bound: int | None, wanted: bool) -> bytes:
        """The items of encapsulated pixels (PS3.5 A.4) as they lie there, without the delimiter behind them."""
        kept = bytearray()
        while bound is None or self._at < bound:
            head = self._head(bound)
            if len(head) < 8:
                break  # a missing delimiter takes nothing away
            group, number, length = self._wide(head)
            found = group << 16 | number
            if found == _SEQUENCE_END:
                break
            if found != _ITEM:
                raise InvalidDataSetError(f"the fragments of {_name(tag)} contradict their lengths")
            length = length if bound is None else min(length, bound - self._at)
            if wanted and len(kept) + length <= self._limits.value_bytes:
                kept += head + self._read(length)
            else:
                self._skip(length)
        return bytes(kept)

    def _sequence(self, level: _Level, tag: int, length: int, bound: int | None, wanted: bool) -> None:
        """Read a sequence (PS3.5 7.5). One that knows its length, but contradicts it or is too deep, is left out."""
        if level.depth >= self._limits.depth:
            if length != _UNDEFINED:
                self._skip(length)
                return
            raise DataSetLimitError(f"sequences are nested more than {self._limits.depth} deep")
        end = bound if length == _UNDEFINED else self._at + length
        try:
            items = self._items(level, tag, end, wanted, delimited=length == _UNDEFINED)
        except DataSetLimitError:
            raise
        except InvalidDataSetError:
            if length == _UNDEFINED or end is None:
                raise
            self._skip(end - self._at)
            return
        if wanted:
            sequence = DataElement(BaseTag(tag), "SQ", Sequence(items), is_undefined_length=length == _UNDEFINED)
            level.elements[tag] = sequence

    def _items(self, level: _Level, tag: int, bound: int | None, wanted: bool, *, delimited: bool) -> list[Dataset]:
        items = []
        while bound is None or self._at < bound:
            head = self._head(bound)
            group, number, length = self._wide(head) if len(head) == 8 else (0, 0, 0)
            found = group << 16 | number
            if found == _SEQUENCE_END and delimited:
                break
            if found != _ITEM:
                raise InvalidDataSetError(f"the items of {_name(tag)} contradict their lengths")
            inner = _Level(True if level.implicit else None, level.depth + 1, level.encoding, wanted)
            endless = length == _UNDEFINED
            end = bound if endless else self._at + self._believed(inner, tag, length, bound)
            self._data_set(inner, end, None, delimited=endless)
            if wanted:
                items.append(self._made(inner, level.encoding))
        return items

    def _made(self, level: _Level, encoding: Any, kind: type[Dataset] = Dataset) -> Dataset:
        made = kind({BaseTag(tag): held for tag, held in level.elements.items()}, parent_encoding=encoding)
        made.set_original_encoding(bool(level.implicit), self._little, level.encoding)
        return made

    def _head(self, bound: int | None) -> bytes:
        """The next eight bytes, of which every element and item has so many; fewer where there are fewer."""
        self._steps_left -= 1
        if self._steps_left < self._look_at:
            self._look_around()
        if bound is not None and bound - self._at < 8:
            return self._read(bound - self._at)
        data = self._source.read(8)
        self._at += len(data)
        return data

    def _look_around(self) -> None:
        if self._steps_left < 0:
            raise DataSetLimitError(f"there are more than {self._limits.elements} elements")
        self._look_at = max(self._steps_left - _STEPS, 0)
        # The first look starts the clock: for a short header nobody asks the system for the time.
        now = time.thread_time()
        if self._end_of_time is None:
            self._end_of_time = now + self._limits.seconds
        if now > self._end_of_time:
            raise DataSetLimitError(f"reading takes more than {self._limits.seconds:.0f} s")

    def _read(self, count: int) -> bytes:
        data = self._source.read(count)
        self._at += len(data)
        return data

    def _skip(self, count: int) -> bool:
        self._at += count
        return self._source.skip(count)


def read_part_10(
    file: BinaryIO, limits: Limits = IMAGE_LIMITS, tags: Collection[int] | None = None, *, pixels: bool = True
) -> Dataset:
    """Read a DICOM file (PS3.10 7) with its file meta information; without ``pixels`` only what stands before them.

    Raises:
        InvalidDataSetError: it is none, or (:class:`DataSetLimitError`) one that is too much.
        OSError: the file cannot be read.
    """
    file.seek(0)
    if file.read(_PREAMBLE + 4)[_PREAMBLE:] != b"DICM":
        raise InvalidDataSetError("there is no DICOM prefix")
    meta = Reader(file, uid.ExplicitVRLittleEndian, _META_LIMITS)
    # A tag that was there already belongs to the data set, into which somebody has left the meta of another file.
    found = meta.read(lambda tag: tag >> 16 != _META_GROUP or tag in meta.elements).data_set()
    file.seek(_PREAMBLE + 4 + meta.length)
    syntax = str(found.get("TransferSyntaxUID") or "").strip(" \0")
    reader = Reader(file, syntax, limits, tags)
    data_set = reader.read(None if pixels else _is_pixels).data_set()
    data_set.file_meta = FileMetaDataset(found)
    return data_set


def _is_pixels(tag: int) -> bool:
    return tag in (_PIXEL_DATA, 0x7FE00008, 0x7FE00009)


def read_path(
    path: Path, limits: Limits = IMAGE_LIMITS, tags: Collection[int] | None = None, *, pixels: bool = True
) -> Dataset:
    """Read the DICOM file at ``path``; see :func:`read_part_10`."""
    with path.open("rb") as file:
        return read_part_10(file, limits, tags, pixels=pixels)


def _are_letters(code: bytes) -> bool:
    return code.isalpha() and code.isupper()


def _is_printable(code: bytes) -> bool:
    return code.isascii() and code.decode("ascii").isprintable()


def _is_sequence(tag: int, vr: str | None) -> bool:
    if vr not in (None, "UN"):
        return vr == "SQ"
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _encodings(value: bytes) -> Any:
    """Python's codecs for the terms of Specific Character Set (PS3.3 C.12.1.1.2); the default where one is unknown."""
    terms = value.decode("ascii", "replace").strip(" \0").split("\\")
    try:
        return convert_encodings([term.strip() for term in terms])
    except (LookupError, ValueError):
        return default_encoding


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
