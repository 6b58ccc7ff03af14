"""How the node reads what peers send, for campaigns: only what a reader promises to raise is no finding."""

from __future__ import annotations

from pathlib import Path

from config.hl7 import HL7
from node.dicom.received_header import UnreadableDataSetError, describe, read_header
from node.hl7.interpretation import interpret
from tests.fuzz.bench import stored_as
from workers.hl7.message import MessageError, read_message
from workers.hl7.mllp import Deframer, FramingError

_LONGEST_MESSAGE = 1 << 20


def read_received(path: Path, syntax: str, data: bytes) -> None:
    """Read a data set's header as the listener does; it is written to ``path`` first."""
    raw = stored_as(syntax, data)
    path.write_bytes(raw)
    try:
        header = read_header(path, syntax, len(raw) - len(data))
        describe(header, transfer_syntax=syntax, digest="", path="", byte_count=0, calling_ae_title="", stat=False)
    except UnreadableDataSetError:
        return


def read_connection(data: bytes) -> None:
    """Read the bytes of a connection as the HL7 listener does."""
    try:
        for message in Deframer(_LONGEST_MESSAGE).feed(data):
            interpret(read_message(message), message, HL7())
    except (FramingError, MessageError):
        return
