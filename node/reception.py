"""How a C-STORE data set gets from the network to the disk while it arrives, on pynetdicom.

pynetdicom collects a data set in memory, or in a temporary file of its own that it can neither limit nor answer for:
a full disk ends the association. So an association gets a DIMSE provider here that hands each C-STORE message a
:class:`Reception` to collect into. It writes through to the instance store, keeps nothing, and where the store or a
limit says no it swallows the rest of the data set, so that the peer hears 0xA700 and can go on.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from queue import SimpleQueue
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.transport import AssociationSocket

from node.instance_store import Incoming, StoreError

IMPLEMENTATION_CLASS_UID = "2.25.107145334108679434666634330663974283395"
IMPLEMENTATION_VERSION_NAME = "PLEURA"

# An A-ASSOCIATE-RQ with 128 presentation contexts and every transfer syntax is larger than most maximum PDUs.
_LONGEST_REQUEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoreCommand:
    """What a C-STORE-RQ says of its data set (PS3.7 9.3.1.1), and what its association says."""

    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax: str
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    high_priority: bool = False


def file_preface(command: StoreCommand) -> bytes:
    """Make preamble, prefix and file meta information (PS3.10 7.1), always in explicit VR little endian."""
    meta = b"".join(
        (
            struct.pack("<HH2sHI2s", 0x0002, 0x0001, b"OB", 0, 2, b"\x00\x01"),
            _element(0x0002, b"UI", command.sop_class_uid),
            _element(0x0003, b"UI", command.sop_instance_uid),
            _element(0x0010, b"UI", command.transfer_syntax_uid),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _element(0x0017, b"AE", command.calling_ae_title),
            _element(0x0018, b"AE", command.called_ae_title),
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(meta)) + meta


def _element(number: int, vr: bytes, value: str) -> bytes:
    """One element of group 0002 with a short length; values have an even length (PS3.5 6.2)."""
    encoded = value.encode("ascii", "replace")
    encoded += (b"\0" if vr == b"UI" else b" ") * (len(encoded) % 2)
    return struct.pack("<HH2sH", 0x0002, number, vr, len(encoded)) + encoded


class TooLongError(StoreError):
    """The data set is longer than the listener takes."""


Begin = Callable[[StoreCommand], Incoming]
"""Opens the store for a data set; raises StoreError."""


class Reception(BytesIO):
    """Where pynetdicom puts the fragments of one data set: to it a ``BytesIO``, in truth a file in the store.

    ``failure`` says why the data set was not stored; ``incoming`` is there once the first fragment has arrived.
    """

    def __init__(self, begin: Callable[[], Incoming], longest: int) -> None:
        super().__init__()
        self._begin = begin
        self._longest = longest
        self.incoming: Incoming | None = None
        self.failure: StoreError | None = None

    def write(self, data: Any) -> int:
        """Take a fragment. Never raises for the store's sake: that would end the association."""
        if self.failure is None:
            try:
                self._store(data)
            except StoreError as failure:
                self.failure = failure
        return len(data)

    def discard(self) -> None:
        """Remove what has arrived so far."""
        if self.incoming is not None:
            self.incoming.discard()

    def _store(self, data: bytes) -> None:
        if self.incoming is None:
            self.incoming = self._begin()
        if self.incoming.byte_count + len(data) > self._longest:
            self.incoming.discard()
            raise TooLongError(f"the data set is longer than {self._longest} bytes")
        self.incoming.write(data)


Answering = Callable[[Association, C_STORE, int], C_STORE]
"""Answers a C-STORE-RQ that came in a presentation context; never raises."""


class _Inbox(SimpleQueue[Any]):
    """Where complete messages are put for pynetdicom's association thread, which looks for them once a millisecond.

    A C-STORE is answered at once instead, in the thread that has received it: that spares two waits per image.
    """

    def __init__(self, answer: Callable[[C_STORE, int], bool]) -> None:
        self._answer = answer

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Take a message with the identifier of its presentation context."""
        context_id, message = item
        if not (isinstance(message, C_STORE) and self._answer(message, context_id)):
            super().put(item, block, timeout)

    @property
    def queue(self) -> list[Any]:
        """Nothing to peek at; only a requestor peeks."""
        return []


class StreamingDimse(DIMSEServiceProvider):  # type: ignore[misc]
    """A DIMSE provider whose messages collect their data sets in the store, and that answers C-STORE itself."""

    def __init__(self, association: Association, begin: Begin, longest: int, answering: Answering) -> None:
        super().__init__(association)
        self._begin_in_store = begin
        self._longest = longest
        self._answering = answering
        self.msg_queue = _Inbox(self._answer)
        self._reception: Reception | None = None
        self.message: DIMSEMessage | None = None
        self.working = threading.Event()

    def receive_primitive(self, primitive: Any) -> None:
        """Take a P-DATA primitive; see the base class."""
        if self.message is None:
            message = DIMSEMessage()
            self._reception = Reception(lambda: self._begin_in_store(self._command(message)), self._longest)
            message.data_set = self._reception
            self.message = message
        super().receive_primitive(primitive)

    @property
    def busy(self) -> bool:
        """A message is arriving or being answered."""
        return self.message is not None or self.working.is_set() or not self.msg_queue.empty()

    def discard(self) -> None:
        """Remove a data set that has not arrived as a whole; for the end of an association."""
        if self.message is not None and self._reception is not None:
            self._reception.discard()

    def _answer(self, request: C_STORE, context_id: int) -> bool:
        """Answer a valid request in an accepted context; anything else is left to pynetdicom to complain about."""
        if not request.is_valid_request or context_id not in {one.context_id for one in self.assoc.accepted_contexts}:
            return False
        self.working.set()
        try:
            self.send_msg(self._answering(self.assoc, request, context_id), context_id)
        finally:
            self.working.clear()
        return True

    def _command(self, message: DIMSEMessage) -> StoreCommand:
        return command_of(self.assoc, message.command_set, message.context_id)


def command_of(association: Association, request: Any, context_id: int) -> StoreCommand:
    """Gather a :class:`StoreCommand` from a C-STORE-RQ and its association.

    Raises:
        StoreError: the request uses a presentation context that was not accepted.
    """
    contexts = {context.context_id: context for context in association.accepted_contexts}
    if context_id not in contexts:
        raise StoreError("the presentation context was not accepted")
    context = contexts[context_id]
    opening = association.requestor.primitive
    return StoreCommand(
        sop_class_uid=_plain(request.AffectedSOPClassUID),
        sop_instance_uid=_plain(request.AffectedSOPInstanceUID),
        abstract_syntax=_plain(context.abstract_syntax),
        transfer_syntax_uid=_plain(context.transfer_syntax[0]),
        calling_ae_title=_plain(opening.calling_ae_title),
        called_ae_title=_plain(opening.called_ae_title),
        high_priority=getattr(request, "Priority", None) == 1,
    )


def _plain(value: Any) -> str:
    return str(value or "").strip(" \0")


class BoundedSocket(AssociationSocket):  # type: ignore[misc]
    """An association's socket that takes no PDU longer than was negotiated, and reads a PDU in as few steps as it can.

    The length of a PDU is the peer's word (PS3.8 9.3.1): believed blindly, six bytes could ask for 4 GiB of memory.
    """

    longest: int

    @classmethod
    def adopt(cls, plain: AssociationSocket, maximum_pdu: int) -> BoundedSocket:
        """Take over a connected socket; making a second one would announce the connection twice."""
        bounded: BoundedSocket = cls.__new__(cls)
        bounded.__dict__.update(plain.__dict__)
        bounded.longest = maximum_pdu + _LONGEST_REQUEST
        return bounded

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, or fewer where the peer closes the connection.

        Raises:
            OSError: the PDU is too long, the connection is broken or was idle for too long.
        """
        if nr_bytes > self.longest:
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than was agreed")
        if self.socket is None:
            raise OSError("the connection is closed")
        data = bytearray(nr_bytes)
        view = memoryview(data)
        received = 0
        while received < nr_bytes:
            count = self.socket.recv_into(view[received:])
            if not count:
                break
            received += count
        view.release()
        del data[received:]
        return data
