"""A storage SCU (PS3.8 9.3, PS3.7 9.3.1) that sends whatever bytes it is told to, and reads what comes back."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
CR = "1.2.840.10008.5.1.4.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"

_PDU = struct.Struct(">BBL")
Contexts = Sequence[tuple[str, str]]


class BrokenError(Exception):
    """The listener has aborted or closed the connection, or sent what is no answer."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Status and Error Comment of a C-STORE-RSP."""

    status: int
    comment: str


def pdu(kind: int, body: bytes) -> bytes:
    """One PDU."""
    return _PDU.pack(kind, 0, len(body)) + body


def associate_rq(contexts: Contexts, called: str = "PLEURA", calling: str = "PEER", maximum: int = 16384) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2) with one transfer syntax a context."""
    body = struct.pack(">HH", 1, 0) + _title(called) + _title(calling) + bytes(32)
    body += _item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, syntax) in enumerate(contexts):
        proposed = _item(0x30, abstract.encode()) + _item(0x40, syntax.encode())
        body += _item(0x20, struct.pack(">BBBB", 2 * number + 1, 0, 0, 0) + proposed)
    user = _item(0x51, struct.pack(">L", maximum)) + _item(0x52, b"1.2.3.4") + _item(0x55, b"PEER")
    return pdu(1, body + _item(0x50, user))


def _title(text: str) -> bytes:
    return text.encode("latin-1").ljust(16)[:16]


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def p_data(context: int, control: int, data: bytes, piece: int = 16000) -> bytes:
    """The P-DATA-TF PDUs of a message; ``control`` is 1 for a command and 0 for a data set."""
    pdus = []
    for at in range(0, max(len(data), 1), piece):
        part = data[at : at + piece]
        last = 2 if at + piece >= len(data) else 0
        pdus.append(pdu(4, struct.pack(">LBB", len(part) + 2, context, control | last) + part))
    return b"".join(pdus)


def store_rq(sop_class: str, sop_instance: str, message: int = 1) -> bytes:
    """The command set of a C-STORE-RQ."""
    elements = b"".join(
        (
            _element(0x0002, _uid(sop_class)),
            _element(0x0100, struct.pack("<H", 1)),
            _element(0x0110, struct.pack("<H", message)),
            _element(0x0700, struct.pack("<H", 0)),
            _element(0x0800, struct.pack("<H", 1)),
            _element(0x1000, _uid(sop_instance)),
        )
    )
    return _element(0x0000, struct.pack("<L", len(elements))) + elements


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


class Peer:
    """An association. ``kind`` is the type of the PDU that answered the request, ``accepted`` the accepted contexts;
    ``rejection`` is result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4).
    """

    def __init__(
        self,
        port: int,
        contexts: Contexts,
        *,
        called: str = "PLEURA",
        calling: str = "PEER",
        seconds: float = 20,
        host: str = "127.0.0.1",
    ) -> None:
        self.socket = socket.create_connection((host, port), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(associate_rq(contexts, called, calling))
        self.kind, answer = self.receive()
        self.accepted = _accepted(answer) if self.kind == 2 else frozenset()
        self.rejection = tuple(answer[1:4]) if self.kind == 3 else ()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: its type and its body.

        Raises:
            BrokenError: there is none.
        """
        kind, _, length = _PDU.unpack(self._exactly(_PDU.size))
        return kind, self._exactly(length)

    def store(self, data_set: bytes, sop_instance: str, sop_class: str = CR, context: int = 1) -> Answered:
        """Send one object and wait for the answer.

        Raises:
            BrokenError: there is none.
        """
        command = p_data(context, 1, store_rq(sop_class, sop_instance))
        try:
            self.socket.sendall(command + p_data(context, 0, data_set))
        except OSError as error:
            raise BrokenError("the connection was closed") from error
        return self.answer()

    def answer(self) -> Answered:
        """Wait for a C-STORE-RSP.

        Raises:
            BrokenError: something else comes, or nothing.
        """
        kind, body = self.receive()
        if kind != 4:
            raise BrokenError(f"a PDU of type {kind} came for an answer")
        elements, at = {}, 6
        while at + 8 <= len(body):
            _, number, length = struct.unpack_from("<HHL", body, at)
            elements[number] = body[at + 8 : at + 8 + length]
            at += 8 + length
        return Answered(int.from_bytes(elements[0x0900], "little"), elements.get(0x0902, b"").decode().strip())

    def close(self) -> None:
        """Release and close; does no harm twice."""
        try:
            self.socket.sendall(pdu(5, bytes(4)))
            self.receive()
        except (OSError, BrokenError):
            pass
        self.socket.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                chunk = self.socket.recv(count - len(data))
            except OSError as error:
                raise BrokenError("the connection was broken") from error
            if not chunk:
                raise BrokenError("the connection was closed")
            data += chunk
        return data


def _accepted(answer: bytes) -> frozenset[int]:
    accepted, at = set(), 68
    while at + 4 <= len(answer):
        kind, _, length = struct.unpack_from(">BBH", answer, at)
        if kind == 0x21 and answer[at + 6] == 0:
            accepted.add(answer[at + 4])
        at += 4 + length
    return frozenset(accepted)
