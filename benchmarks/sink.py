"""A storage SCP that costs next to nothing: it stands for the PACS of a hospital, which has a machine of its own.

It accepts what is proposed, answers each C-STORE with success and keeps the objects as they came; nothing is decoded
while it receives but the UID of the image that a SEG belongs to. :meth:`Sink.objects` decodes every one afterwards.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import SegmentationStorage

from benchmarks.replay import IMPLEMENTATION, element, item, pdv, read_pdu

_ASSOCIATE, _ACCEPT, _DATA, _RELEASE, _RELEASED = 1, 2, 4, 5, 6  # PS3.8 9.3.1
_LONGEST_PDU = 131072
_COMMAND, _LAST = 0x01, 0x02  # PS3.8 E.2
_CLASS, _FIELD, _MESSAGE, _NO_DATA_SET, _STATUS, _INSTANCE = 0x0002, 0x0100, 0x0110, 0x0800, 0x0900, 0x1000  # PS3.7 E.1
_STORE = 0x0001
_IMPLICIT_VR = b"1.2.840.10008.1.2"
_REFERENCED_INSTANCE = b"\x08\x00\x55\x11UI"


@dataclass(frozen=True)
class Stored:
    """One object as it came."""

    sop_class: str
    sop_instance: str
    transfer_syntax: bytes
    data: bytes


@dataclass
class Sink:
    """Notes when each SEG arrives, by the UID of its source; ``stored`` has every object."""

    port: int
    arrived: dict[str, float] = field(default_factory=dict)
    stored: list[Stored] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> socket.socket:
        """Listen in threads of its own; closing what is given back ends it."""
        listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return listening

    def wait_for(self, uid: str, seconds: float) -> bool:
        """Wait until the SEG of an image has come; False where it does not come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: uid in self.arrived, seconds)

    def objects(self) -> Iterator[Dataset]:
        """Every object, decoded."""
        for each in self.stored:
            dataset = read_dataset(BytesIO(each.data), each.transfer_syntax == _IMPLICIT_VR, True)
            assert (dataset.SOPClassUID, dataset.SOPInstanceUID) == (each.sop_class, each.sop_instance)
            yield dataset

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            contexts: dict[int, bytes] = {}
            parts: dict[bool, list[bytes]] = {True: [], False: []}
            while True:
                kind, body = read_pdu(connection)
                if kind == _ASSOCIATE:
                    contexts = _proposed(body)
                    connection.sendall(_acceptance(body, contexts))
                elif kind == _DATA:
                    for context, control, data in _values(body):
                        parts[bool(control & _COMMAND)].append(data)
                        if control == _LAST:
                            command = _command(b"".join(parts[True]))
                            self._keep(command, contexts[context], b"".join(parts[False]))
                            parts = {True: [], False: []}
                            connection.sendall(_response(command, context))
                else:
                    if kind == _RELEASE:
                        connection.sendall(struct.pack(">BBLL", _RELEASED, 0, 4, 0))
                    return

    def _keep(self, command: Mapping[int, bytes], transfer_syntax: bytes, data: bytes) -> None:
        now = time.monotonic()
        if command[_FIELD] != struct.pack("<H", _STORE):
            raise ConnectionError("this benchmark receives C-STORE alone")
        stored = Stored(_text(command[_CLASS]), _text(command[_INSTANCE]), transfer_syntax, data)
        with self._changed:
            self.stored.append(stored)
            if stored.sop_class == SegmentationStorage:
                self.arrived[_source(data)] = now
            self._changed.notify_all()


def _source(seg: bytes) -> str:
    """The first Referenced SOP Instance UID of a SEG in Explicit VR: that of its only source."""
    place = seg.index(_REFERENCED_INSTANCE) + len(_REFERENCED_INSTANCE)
    (length,) = struct.unpack_from("<H", seg, place)
    return _text(seg[place + 2 : place + 2 + length])


def _text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii")


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Items and sub-items (PS3.8 9.3.2) one after the other: kind and value."""
    place = 0
    while place < len(body):
        kind, length = struct.unpack_from(">BxH", body, place)
        yield kind, body[place + 4 : place + 4 + length]
        place += 4 + length


def _proposed(request: bytes) -> dict[int, bytes]:
    """The first transfer syntax of each presentation context that is proposed."""
    found = {}
    for kind, value in _items(request[68:]):
        if kind == 0x20:
            found[value[0]] = next(syntax for sub, syntax in _items(value[4:]) if sub == 0x40)
    return found


def _acceptance(request: bytes, contexts: Mapping[int, bytes]) -> bytes:
    accepted = (item(0x21, bytes((number, 0, 0, 0)) + item(0x40, syntax)) for number, syntax in contexts.items())
    user = item(0x51, struct.pack(">L", _LONGEST_PDU)) + item(0x52, IMPLEMENTATION)
    body = request[:68] + item(0x10, b"1.2.840.10008.3.1.1.1") + b"".join(accepted) + item(0x50, user)
    return struct.pack(">BBL", _ACCEPT, 0, len(body)) + body


def _values(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Presentation context, control and data of each presentation data value (PS3.8 9.3.5.1)."""
    place = 0
    while place < len(body):
        length, context, control = struct.unpack_from(">LBB", body, place)
        yield context, control, body[place + 6 : place + 4 + length]
        place += 4 + length


def _command(data: bytes) -> dict[int, bytes]:
    """A command set (PS3.7 6.3.1) by element number."""
    found, place = {}, 0
    while place < len(data):
        _, number, length = struct.unpack_from("<HHL", data, place)
        found[number] = data[place + 8 : place + 8 + length]
        place += 8 + length
    return found


def _response(command: Mapping[int, bytes], context: int) -> bytes:
    """C-STORE-RSP (PS3.7 9.3.1.2) with success."""
    rest = (
        element(_CLASS, command[_CLASS])
        + element(_FIELD, struct.pack("<H", _STORE | 0x8000))
        + element(0x0120, command[_MESSAGE])
        + element(_NO_DATA_SET, struct.pack("<H", 0x0101))
        + element(_STATUS, struct.pack("<H", 0))
        + element(_INSTANCE, command[_INSTANCE])
    )
    return pdv(element(0, struct.pack("<L", len(rest))) + rest, _COMMAND | _LAST, context)
