"""The bytes of an object's file (PS3.10): those of ``pydicom.dcmwrite``, in a quarter of its time.

A report has a thousand small elements. pydicom gives each a buffer of its own, looks its character set up again and
corrects the tree below each item once more. Here one buffer and one character set serve the whole object, and pydicom's
own functions write the values. An object with anything unusual (an element that was read and never looked at, an item
with a character set of its own, a short text of 64 KiB) is left to ``dcmwrite`` as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from struct import Struct
from typing import Any, cast

from pydicom import dcmwrite
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import correct_ambiguous_vr_element, writers
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import AMBIGUOUS_VR, CUSTOMIZABLE_CHARSET_VR, EXPLICIT_VR_LENGTH_32

_SHORT, _LONG = Struct("<HH2sH"), Struct("<HH2s2xL")  # PS3.5 7.1.2
_ITEM = Struct("<HHL")  # PS3.5 7.5
_UNDEFINED = 0xFFFFFFFF
_END_OF_ITEM, _END_OF_SEQUENCE = _ITEM.pack(0xFFFE, 0xE00D, 0), _ITEM.pack(0xFFFE, 0xE0DD, 0)
_LONGEST_SHORT = 0xFFFF
_CHARACTER_SET = 0x00080005


def file_bytes(dataset: Dataset) -> bytes:
    """``dataset`` as ``dcmwrite(…, enforce_file_format=True)`` writes it.

    Raises:
        ValueError, TypeError, AttributeError: it cannot be written.
    """
    try:
        body = _encoded_object(dataset)
    except _UnusualError:
        return _as_pydicom_writes(dataset)
    head = Dataset()
    head.preamble, head.file_meta = getattr(dataset, "preamble", None), dataset.file_meta
    return _as_pydicom_writes(head) + body


class _UnusualError(Exception):
    """Something that this module leaves to pydicom."""


def _as_pydicom_writes(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _encoded_object(dataset: Dataset) -> bytes:
    """All but the file meta information, in Explicit VR Little Endian."""
    meta = dataset.file_meta
    named = meta.get("MediaStorageSOPClassUID"), meta.get("MediaStorageSOPInstanceUID")
    is_named = named == (dataset.SOPClassUID, dataset.SOPInstanceUID)
    if not is_named or meta.get("TransferSyntaxUID") != ExplicitVRLittleEndian:
        raise _UnusualError
    for element in dataset.values():
        if isinstance(element, DataElement) and element.VR in AMBIGUOUS_VR:
            correct_ambiguous_vr_element(element, dataset, True)
    terms = dataset.get("SpecificCharacterSet") or default_encoding
    return b"".join(_Encoder(convert_encodings(terms)).elements(dataset))


class _Encoder:
    """Encodes one object: its character set, and a buffer that takes one value after the other."""

    def __init__(self, encodings: list[str]) -> None:
        self._encodings = encodings
        self._bytes = BytesIO()
        self._buffer = DicomIO(self._bytes)
        self._buffer.is_implicit_VR, self._buffer.is_little_endian = False, True

    def elements(self, dataset: Dataset) -> Iterator[bytes]:
        """Head and value of each element, in the order of the tags."""
        for tag, element in sorted(dataset.items(), key=_number):
            if not isinstance(element, DataElement) or not tag & 0xFFFF:
                raise _UnusualError
            vr: str = element.VR
            if vr == "SQ":
                value = b"".join(part for item in element.value for part in self._item(item))
            else:
                value = self._value(element, vr)
            is_long = vr in EXPLICIT_VR_LENGTH_32
            length = len(value)
            if element.is_undefined_length:
                length, value = _UNDEFINED, value + _END_OF_SEQUENCE
            elif length > _LONGEST_SHORT and not is_long:
                raise _UnusualError
            yield (_LONG if is_long else _SHORT).pack(tag >> 16, tag & 0xFFFF, vr.encode("ascii"), length)
            yield value

    def _item(self, item: Dataset) -> tuple[bytes, ...]:
        if _CHARACTER_SET in item:
            raise _UnusualError
        content = b"".join(self.elements(item))
        if getattr(item, "is_undefined_length_sequence_item", False):
            return _ITEM.pack(0xFFFE, 0xE000, _UNDEFINED), content, _END_OF_ITEM
        return _ITEM.pack(0xFFFE, 0xE000, len(content)), content

    def _value(self, element: DataElement, vr: str) -> bytes:
        if vr not in writers or vr in AMBIGUOUS_VR or element.is_buffered or element.is_undefined_length:
            raise _UnusualError
        if element.is_empty:
            return b""
        write, parameter = cast(tuple[Any, str | None], writers[vr])  # type: ignore[index]
        self._bytes.seek(0)
        self._bytes.truncate()
        if vr in CUSTOMIZABLE_CHARSET_VR:
            write(self._buffer, element, encodings=self._encodings)
        elif parameter is not None:
            write(self._buffer, element, parameter)
        else:
            write(self._buffer, element)
        return self._bytes.getvalue()


def _number(found: tuple[Any, Any]) -> int:
    return int(found[0])  # pydicom compares its tags in Python
