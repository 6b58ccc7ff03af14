"""A C-STORE request and its data set, which is written to the spool while it arrives."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from config.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.dicom.instance_store import SpoolFile, StoreError

_PREAMBLE = bytes(128) + b"DICM"
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class StoreCommand:
    """Parameters of a C-STORE-RQ (PS3.7 9.3.1.1) and of its association, or of a part of a STOW-RS request.

    ``study_instance_uid`` is the study that a STOW-RS request names; empty: any.
    """

    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax: str
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    high_priority: bool = False
    address: str = ""
    study_instance_uid: str = ""


def file_preface(command: StoreCommand) -> bytes:
    """Encode preamble, prefix and file meta information (PS3.10 7.1), always in explicit VR little endian."""
    before, after = _of_all(
        command.sop_class_uid, command.transfer_syntax_uid, command.calling_ae_title, command.called_ae_title
    )
    meta = b"".join((before, _element(0x0003, b"UI", command.sop_instance_uid), after))
    return _PREAMBLE + struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(meta)) + meta


@lru_cache(_REMEMBERED)
def _of_all(sop_class: str, transfer_syntax: str, calling: str, called: str) -> tuple[bytes, bytes]:
    """The elements before and after the SOP Instance UID: the same for all images that a modality sends."""
    before = struct.pack("<HH2sHI2s", 0x0002, 0x0001, b"OB", 0, 2, b"\x00\x01") + _element(0x0002, b"UI", sop_class)
    after = (
        _element(0x0010, b"UI", transfer_syntax),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        _element(0x0017, b"AE", calling),
        _element(0x0018, b"AE", called),
    )
    return before, b"".join(after)


def _element(number: int, vr: bytes, value: str) -> bytes:
    """Encode one element of group 0002 with a short length; values have an even length (PS3.5 6.2)."""
    encoded = value.encode("ascii", "replace")
    encoded += (b"\0" if vr == b"UI" else b" ") * (len(encoded) % 2)
    return struct.pack("<HH2sH", 0x0002, number, vr, len(encoded)) + encoded


class TooLongError(StoreError):
    """The data set is longer than the listener accepts."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status (0000,0900) and Error Comment (0000,0902) of a C-STORE-RSP."""

    status: int
    comment: str = ""


Begin = Callable[[StoreCommand], SpoolFile]
"""Opens a spool file for a data set; raises StoreError."""


class SpooledInstance:
    """Writes the fragments of one data set to a spool file while they arrive.

    If the store fails or a limit is exceeded, the rest of the data set is read and dropped, so that the peer gets
    0xA700 and the association goes on; ``failure`` is the reason. ``spool`` is set when the first bytes have arrived.
    ``rejection`` is the response if the command alone is wrong; the data set is then dropped.
    """

    def __init__(self, begin: Begin, command: StoreCommand, longest: int, rejection: Answer | None = None) -> None:
        self._begin = begin
        self._longest = longest
        self.command = command
        self.rejection = rejection
        self.spool: SpoolFile | None = None
        self.failure: StoreError | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Write bytes of the data set. Never raises StoreError: that would end the association."""
        if self.failure is None and self.rejection is None:
            try:
                self._store(data)
            except StoreError as failure:
                self.failure = failure

    def discard(self) -> None:
        """Remove the bytes that have arrived so far."""
        if self.spool is not None:
            self.spool.discard()

    def _store(self, data: bytes | memoryview) -> None:
        if self.spool is None:
            self.spool = self._begin(self.command)
        if self.spool.byte_count + len(data) > self._longest:
            self.spool.discard()
            raise TooLongError(f"the data set is longer than {self._longest} bytes")
        self.spool.write(data)


def plain(value: object) -> str:
    """Text without padding; control characters are replaced, so that it can go to a database, a file and a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value or "").strip(" \0"))
