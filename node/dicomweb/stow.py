"""STOW-RS (PS3.18 10.5): the parts of a request are stored one after the other while they arrive.

Each part is a file (PS3.10 7). What stands in front of its data set is parsed here, the data set goes to the spool like
that of a C-STORE, and :class:`node.dicom.receiving.InstanceReceiver` decides what becomes of it. So an instance is
durable and recorded before its part is followed by the next, and the memory of a request does not depend on its size.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom.uid import ExplicitVRLittleEndian
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from models.radiograph.bounded_source import InvalidDataSetError, Limits
from models.radiograph.data_set import Reader
from node.dicom.instance_store import SpoolFile
from node.dicom.presentation_contexts import transfer_syntaxes_for
from node.dicom.receiving import CANNOT_UNDERSTAND
from node.dicom.spool import Answer, SpooledInstance, StoreCommand, TooLongError, plain

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# PS3.18 table I.2-2.
CLASS_NOT_SUPPORTED = 0x0122
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122

MOST_PARTS = 5000
"""Instances of one request: what became of each is in the answer."""

_PREAMBLE = 128
_FIRST = _PREAMBLE + 4 + 12  # preamble, "DICM", and the element with the length of the rest of group 0002
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_LONGEST_META = 64 * 1024
_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x00020002, 0x00020003, 0x00020010
_META = frozenset({_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX})
_META_LIMITS = Limits(inflated_bytes=0, elements=200, depth=4)
_UID = re.compile(r"[0-9.]{1,64}")
_LONGEST_BOUNDARY = 200  # RFC 2046 5.1.1 says 70, Orthanc sends 73
_LONGEST_PREAMBLE = 64 * 1024

# It quotes what it cannot read, and that is a patient's.
logging.getLogger("python_multipart.multipart").setLevel(logging.CRITICAL)


class BrokenBodyError(ValueError):
    """The body is no multipart message, or it ends within a part."""


class TooManyPartsError(ValueError):
    """The request has more parts than one may have."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one part. The UIDs are empty where the part has none; ``too_long``: it is over the limit."""

    sop_class_uid: str
    sop_instance_uid: str
    answer: Answer
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose request it is: ``name`` stands where the calling AE title of a C-STORE does."""

    name: str
    address: str
    study_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class Storing:
    """How parts are stored. ``begin`` opens a file, ``answer`` handles a data set that is there, ``answered`` is told
    what became of it."""

    begin: Callable[[StoreCommand], SpoolFile]
    answer: Callable[[SpooledInstance], Answer]
    answered: Callable[[StoreCommand, Answer], None]
    ae_title: str
    longest: int
    other_classes: bool


class _Preamble:
    """What stands before the first boundary of a multipart body, to be ignored (RFC 2046 5.1.1)."""

    def __init__(self, boundary: str) -> None:
        # A boundary begins a line, and the body begins with one.
        self._delimiter, self._skipped = b"\n--" + boundary.encode("ascii"), bytearray(b"\n")
        self.is_over = False

    def behind(self, data: bytes) -> bytes:
        """The part of the next bytes of the body, and of those before them, that begins with the first boundary.

        Raises:
            BrokenBodyError: there is no boundary where one must be.
        """
        looked_at = max(len(self._skipped) - len(self._delimiter), 0)
        self._skipped += data
        start = self._skipped.find(self._delimiter, looked_at)
        if start < 0 and len(self._skipped) > _LONGEST_PREAMBLE:
            raise BrokenBodyError("the boundary of the Content-Type is not in the body")
        self.is_over = start >= 0
        return bytes(self._skipped[start + 1 :]) if self.is_over else b""


class Parts:
    """Stores the parts of one request, by one thread at a time. ``outcomes`` are those of the parts so far."""

    def __init__(self, boundary: str, sender: Sender, storing: Storing) -> None:
        """Wait for the first boundary.

        Raises:
            BrokenBodyError: there can be no such boundary.
        """
        if not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
            raise BrokenBodyError("the boundary of the Content-Type is empty or too long")
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._part.write(memoryview(data)[start:end]),
            "on_part_end": self._end,
            "on_end": self._complete,
        }
        self._preamble, self._parser = _Preamble(boundary), MultipartParser(boundary, callbacks)
        self._sender, self._storing = sender, storing
        self._part = _Part(sender, storing)
        self._headers: dict[str, str] = {}
        self._name, self._value = bytearray(), bytearray()
        self.complete = False
        self.outcomes: list[Outcome] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            BrokenBodyError: they are not multipart.
            TooManyPartsError: there are more parts than are taken.
        """
        if not self._preamble.is_over:
            data = self._preamble.behind(data)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BrokenBodyError("the body is not multipart with the boundary of the Content-Type") from error

    def end(self) -> None:
        """The body has ended.

        Raises:
            BrokenBodyError: the last boundary is missing, so it was cut off.
        """
        if not self._preamble.is_over:
            raise BrokenBodyError("the boundary of the Content-Type is not in the body")
        if not self.complete:
            raise BrokenBodyError("the body ends without its last boundary")

    def discard(self) -> None:
        """Remove what has arrived of a part that did not come to its end."""
        self._part.discard()

    def _begin(self) -> None:
        if len(self.outcomes) >= MOST_PARTS:
            raise TooManyPartsError(f"a request has at most {MOST_PARTS} parts")
        self._headers, self._part = {}, _Part(self._sender, self._storing)

    def _end_header(self) -> None:
        name, value = self._name.decode("latin-1").lower(), self._value.decode("latin-1").strip()
        self._headers[name] = value
        self._name, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        self.outcomes.append(self._part.end(self._headers))

    def _complete(self) -> None:
        self.complete = True


class _Part:
    """One part: a file whose data set is written to the spool while it arrives."""

    def __init__(self, sender: Sender, storing: Storing) -> None:
        self._sender, self._storing = sender, storing
        self._beginning = bytearray()
        self._command = StoreCommand("", "", "", "", sender.name, storing.ae_title, address=sender.address)
        self._spooled: SpooledInstance | None = None
        self._problem: Answer | None = None

    def write(self, data: memoryview) -> None:
        """Take the next bytes of the file."""
        if self._problem is not None:
            return
        if self._spooled is not None:
            self._spooled.write(data)
            return
        self._beginning += data
        try:
            length = _meta_length(self._beginning)
            if length is None or len(self._beginning) < _FIRST + length:
                return
            self._command = self._read_command(bytes(self._beginning[_PREAMBLE + 4 : _FIRST + length]))
        except ValueError as error:
            self._problem = Answer(CANNOT_UNDERSTAND, str(error))
            return
        rest, self._beginning = memoryview(self._beginning)[_FIRST + length :], bytearray()
        storing = self._storing
        rejection = _not_supported(self._command, other_classes=storing.other_classes)
        self._spooled = SpooledInstance(storing.begin, self._command, storing.longest, rejection)
        if rest:
            self._spooled.write(rest)

    def end(self, headers: Mapping[str, str]) -> Outcome:
        """The file has arrived: store it, and give its outcome."""
        kind = headers.get("content-type", "application/dicom").partition(";")[0].strip().lower()
        problem = self._problem
        if kind != "application/dicom":
            problem = Answer(CANNOT_UNDERSTAND, "a part is not application/dicom")
        elif self._spooled is None and problem is None:
            problem = Answer(CANNOT_UNDERSTAND, "a part is no file of PS3.10")
        if problem is not None:
            self.discard()
        answer = problem or self._storing.answer(self._given)
        self._storing.answered(self._command, answer)
        too_long = self._spooled is not None and isinstance(self._spooled.failure, TooLongError)
        return Outcome(self._command.sop_class_uid, self._command.sop_instance_uid, answer, too_long)

    def discard(self) -> None:
        """Remove what has arrived."""
        if self._spooled is not None:
            self._spooled.discard()

    @property
    def _given(self) -> SpooledInstance:
        assert self._spooled is not None
        return self._spooled

    def _read_command(self, meta: bytes) -> StoreCommand:
        """What the file meta information says.

        Raises:
            ValueError: it is malformed, or lacks one of the three UIDs.
        """
        try:
            elements = Reader(BytesIO(meta), ExplicitVRLittleEndian, _META_LIMITS, _META).read().elements
        except InvalidDataSetError as error:
            raise ValueError("the file meta information cannot be read") from error
        sop_class, sop_instance, transfer_syntax = (
            _uid(elements.get(tag)) for tag in (_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX)
        )
        return StoreCommand(
            sop_class_uid=sop_class,
            sop_instance_uid=sop_instance,
            abstract_syntax=sop_class,
            transfer_syntax_uid=transfer_syntax,
            calling_ae_title=self._sender.name,
            called_ae_title=self._storing.ae_title,
            address=self._sender.address,
            study_instance_uid=self._sender.study_instance_uid,
        )


def _meta_length(beginning: bytearray) -> int | None:
    """Length of the file meta information behind its first element; None where that has not arrived yet.

    Raises:
        ValueError: this is no file of PS3.10, or its meta information is too long.
    """
    if len(beginning) < _FIRST:
        return None
    if beginning[_PREAMBLE : _PREAMBLE + 4] != b"DICM" or beginning[_PREAMBLE + 4 : _FIRST - 4] != _GROUP_LENGTH:
        raise ValueError("a part is no file of PS3.10 with a group length")
    length = int.from_bytes(beginning[_FIRST - 4 : _FIRST], "little")
    if length > _LONGEST_META:
        raise ValueError("the file meta information is too long")
    return length


def _uid(element: object) -> str:
    value = getattr(element, "value", None)
    uid = plain(value.decode("ascii", "replace")) if isinstance(value, bytes) else ""
    if not _UID.fullmatch(uid):
        raise ValueError("the file meta information lacks a UID, or one is not made of up to 64 digits and dots")
    return uid


def _not_supported(command: StoreCommand, *, other_classes: bool) -> Answer | None:
    """Why an instance of this class and transfer syntax is not taken; a C-STORE would have no presentation context."""
    accepted = transfer_syntaxes_for(command.sop_class_uid, other_classes=other_classes)
    if not accepted:
        return Answer(CLASS_NOT_SUPPORTED, "this SOP class is not supported")
    if command.transfer_syntax_uid not in accepted:
        return Answer(TRANSFER_SYNTAX_NOT_SUPPORTED, "this transfer syntax is not supported")
    return None
