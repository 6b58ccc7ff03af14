"""DIMSE (PS3.7) for a storage SCP: handles C-STORE-RQ and C-STORE-RSP, and passes other messages to pynetdicom.

Of the other messages a Storage Commitment report (N-EVENT-REPORT-RQ) and a query or retrieval have a small data set.

A command set is a dozen elements in implicit VR little endian (PS3.7 6.3.1). Reading and writing it as a pydicom data
set takes longer than all other work on it. And pynetdicom collects a data set in memory or in a temporary file without
a limit: a full disk ends the association.
"""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from node.dicom.presentation_contexts import QUERY_CLASSES
from node.dicom.spool import Answer, Begin, SpooledInstance, StoreCommand, plain
from node.dicom.upper_layer.connection import Answering
from node.dicom.upper_layer.waking import NotifyingQueue

# Elements of group 0000 (PS3.7 annex E).
_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000

_C_STORE_RQ = 0x0001
_C_STORE_RSP = 0x8001
_N_EVENT_REPORT_RQ = 0x0100
_QUERIES = frozenset({0x0010, 0x0020, 0x0021})  # C-GET-RQ, C-FIND-RQ, C-MOVE-RQ
_NO_DATA_SET = 0x0101
_HIGH = 0x0001
_CANNOT_UNDERSTAND = 0xC000  # PS3.4 table B.2-1

_IS_COMMAND = 0x01
_IS_LAST = 0x02
_LONGEST_COMMAND = 64 * 1024
_LONGEST_REPORT = 1024 * 1024
_LONGEST_COMMENT = 64
_LONGEST_UID = 64
_UID = re.compile(r"[0-9.]+")


class InvalidMessageError(ValueError):
    """A message that PS3.7 does not allow; the association is aborted."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 9.3.1.1). ``fault`` describes an invalid UID, which is no reason to abort."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    high_priority: bool
    has_data_set: bool
    fault: str = ""


def read_command(encoded: bytes) -> dict[int, bytes]:
    """Parse a command set: values by element number.

    Raises:
        InvalidMessageError: it is cut off, or contains another group than 0000.
    """
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(encoded):
        try:
            group, element, length = struct.unpack_from("<HHL", encoded, at)
        except struct.error as error:
            raise InvalidMessageError("a command set ends within an element") from error
        at += 8
        if group or at + length > len(encoded):
            raise InvalidMessageError("a command set contains an invalid element")
        elements[element] = encoded[at : at + length]
        at += length
    return elements


def read_store_request(elements: Mapping[int, bytes]) -> StoreRequest:
    """Make a C-STORE-RQ from its elements.

    Raises:
        InvalidMessageError: a mandatory element is missing or invalid.
    """
    sop_class = _uid(elements, _AFFECTED_SOP_CLASS_UID)
    sop_instance = _uid(elements, _AFFECTED_SOP_INSTANCE_UID)
    return StoreRequest(
        _number(elements, _MESSAGE_ID),
        sop_class,
        sop_instance,
        _number(elements, _PRIORITY) == _HIGH,
        _number(elements, _COMMAND_DATA_SET_TYPE) != _NO_DATA_SET,
        _fault("SOP Class UID", sop_class) or _fault("SOP Instance UID", sop_instance),
    )


def _fault(name: str, uid: str) -> str:
    if len(uid) > _LONGEST_UID:
        return f"Affected {name} is longer than {_LONGEST_UID} characters"
    return "" if _UID.fullmatch(uid) else f"Affected {name} is not made of digits and dots"


def _number(elements: Mapping[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise InvalidMessageError(f"(0000,{element:04X}) is missing or not a number")
    return int.from_bytes(value, "little")


def _uid(elements: Mapping[int, bytes], element: int) -> str:
    value = elements.get(element, b"").decode("ascii", "replace").strip(" \0")
    if not value:
        raise InvalidMessageError(f"(0000,{element:04X}) is missing")
    return value


def write_store_response(request: StoreRequest, answer: Answer) -> bytes:
    """Encode the C-STORE-RSP (PS3.7 9.3.1.2) to ``request``; invalid UIDs are left out."""
    elements = [] if request.fault else [_element(_AFFECTED_SOP_CLASS_UID, _padded(request.sop_class_uid, b"\0"))]
    elements += [
        _element(_COMMAND_FIELD, struct.pack("<H", _C_STORE_RSP)),
        _element(_MESSAGE_ID_BEING_RESPONDED_TO, struct.pack("<H", request.message_id)),
        _element(_COMMAND_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
        _element(_STATUS, struct.pack("<H", answer.status)),
    ]
    if answer.comment:
        elements.append(_element(_ERROR_COMMENT, _padded(answer.comment[:_LONGEST_COMMENT], b" ")))
    if not request.fault:
        elements.append(_element(_AFFECTED_SOP_INSTANCE_UID, _padded(request.sop_instance_uid, b"\0")))
    command = b"".join(elements)
    return _element(0x0000, struct.pack("<L", len(command))) + command


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def _padded(text: str, padding: bytes) -> bytes:
    encoded = text.encode("ascii", "replace")
    return encoded + padding * (len(encoded) % 2)


def command_pdus(context_id: int, command: bytes, longest: int) -> bytes:
    """Encode a command set as P-DATA-TF PDUs (PS3.8 9.3.5); ``longest`` is the peer's maximum length, 0 for none."""
    piece = longest - 6 if longest else len(command)
    pdus = []
    for start in range(0, len(command), piece):
        part = command[start : start + piece]
        control = _IS_COMMAND | (_IS_LAST if start + piece >= len(command) else 0)
        pdus.append(struct.pack(">BBLLBB", 4, 0, len(part) + 6, len(part) + 2, context_id, control) + part)
    return b"".join(pdus)


class StorageDimse(DIMSEServiceProvider):  # type: ignore[misc]
    """The DIMSE provider of one association. It runs in the thread of its upper layer."""

    def __init__(
        self,
        association: Association,
        begin: Begin,
        longest: int,
        answering: Answering,
        answered: Callable[[], None],
    ) -> None:
        super().__init__(association)
        self.msg_queue = NotifyingQueue(lambda: association.dul.notify_association())
        self._begin_in_store = begin
        self._longest = longest
        self._answering = answering
        self._answered = answered
        self._longest_pdu: int | None = None
        self._negotiated: dict[int, StoreCommand] = {}
        self._broken = False
        self._encoded = bytearray()
        self._context_id = 0
        self._request: StoreRequest | None = None
        self._spooled: SpooledInstance | None = None
        self._report: tuple[int, bytes] | None = None
        self._working = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether a message is arriving or being answered."""
        return bool(self._encoded) or self._working.is_set() or not self.msg_queue.empty()

    @property
    def receiving(self) -> bool:
        """Whether a message has arrived in part."""
        return bool(self._encoded) or self._spooled is not None or self._report is not None

    def take(self, context_id: int, control: int, piece: memoryview, complete: bool) -> None:
        """Handle a piece of a fragment; see :data:`node.dicom.upper_layer.fragments.Take`."""
        last = complete and bool(control & _IS_LAST)
        if self._broken:
            return
        try:
            if control & _IS_COMMAND:
                self._take_command(context_id, piece, last)
            elif self._report is not None:
                self._take_report(self._report, piece, last)
            elif self._spooled is None:
                raise InvalidMessageError("a data set without a C-STORE-RQ")
            else:
                self._spooled.write(piece)
                if last:
                    self._answer()
        except InvalidMessageError as error:
            self._broken = True
            self.discard()
            self.dul.abort_for(str(error))

    def discard(self) -> None:
        """Remove a data set that has arrived only in part, at the end of an association."""
        if self._spooled is not None:
            self._spooled.discard()
        self._reset()

    def _take_command(self, context_id: int, piece: memoryview, last: bool) -> None:
        within = self._request is not None or self._report is not None
        if within or len(self._encoded) + len(piece) > _LONGEST_COMMAND:
            raise InvalidMessageError("a command set within a data set, or one that is too long")
        self._encoded += piece
        if not last:
            return
        command = bytes(self._encoded)
        elements = read_command(command)
        field = _number(elements, _COMMAND_FIELD)
        if field == _C_STORE_RQ:
            self._begin(context_id, read_store_request(elements))
        elif _number(elements, _COMMAND_DATA_SET_TYPE) == _NO_DATA_SET:
            self._pass_on(context_id, command)
        elif field == _N_EVENT_REPORT_RQ or (field in _QUERIES and self._is_for_queries(context_id)):
            self._report = (context_id, command)
            self._encoded.clear()
        else:
            raise InvalidMessageError(f"a message of type 0x{field:04X} with a data set is not supported")

    def _is_for_queries(self, context_id: int) -> bool:
        context = self.assoc._accepted_cx.get(context_id)
        return context is not None and context.abstract_syntax in QUERY_CLASSES

    def _begin(self, context_id: int, request: StoreRequest) -> None:
        command = self._command(context_id, request)
        self._context_id, self._request = context_id, request
        rejection = Answer(_CANNOT_UNDERSTAND, request.fault) if request.fault else None
        self._spooled = SpooledInstance(self._begin_in_store, command, self._longest, rejection)
        if not request.has_data_set:
            self._answer()

    def _take_report(self, report: tuple[int, bytes], piece: memoryview, last: bool) -> None:
        if len(self._encoded) + len(piece) > _LONGEST_REPORT:
            raise InvalidMessageError("a data set that is too long for its message")
        self._encoded += piece
        if last:
            self._pass_on(*report, bytes(self._encoded))

    def _pass_on(self, context_id: int, command: bytes, data_set: bytes = b"") -> None:
        values = [[context_id, bytes((_IS_COMMAND | _IS_LAST,)) + command]]
        if data_set:
            values.append([context_id, bytes((_IS_LAST,)) + data_set])
        primitive = P_DATA()
        primitive.presentation_data_value_list = values
        self._reset()
        self.receive_primitive(primitive)

    def _answer(self) -> None:
        request, spooled = self._request, self._spooled
        if request is None or spooled is None:
            raise InvalidMessageError("a data set without a C-STORE-RQ")
        self._working.set()
        try:
            self._reset()
            answer = self._answering(spooled, spooled.command)
            if self._longest_pdu is None:
                self._longest_pdu = self.maximum_pdu_size
            pdus = command_pdus(self._context_id, write_store_response(request, answer), self._longest_pdu)
            self.dul.socket.send(pdus)
        finally:
            self._working.clear()
            self._answered()

    def _reset(self) -> None:
        self._encoded.clear()
        self._request = self._spooled = self._report = None

    def _command(self, context_id: int, request: StoreRequest) -> StoreCommand:
        negotiated = self._negotiated.get(context_id)
        if negotiated is None:
            negotiated = self._negotiated[context_id] = self._negotiated_for(context_id)
        return replace(
            negotiated,
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            high_priority=request.high_priority,
        )

    def _negotiated_for(self, context_id: int) -> StoreCommand:
        """What all requests in a presentation context have in common."""
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            raise InvalidMessageError("the presentation context was not accepted")
        opening = self.assoc.requestor.primitive
        return StoreCommand(
            sop_class_uid="",
            sop_instance_uid="",
            abstract_syntax=plain(context.abstract_syntax),
            transfer_syntax_uid=plain(context.transfer_syntax[0]),
            calling_ae_title=plain(opening.calling_ae_title),
            called_ae_title=plain(opening.called_ae_title),
            address=str(self.assoc.requestor.address),
        )
