"""A storage SCU (PS3.4 Annex B) for files, used by ``pleura send`` and the demonstration.

Files are sent as they are on the disk: each in its own transfer syntax, never re-encoded.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from config.tls import Tls
from models.radiograph.data_set import MALFORMED
from workers.association import is_stored, open_association, status_text
from workers.tls import ClientContext, TlsError, client_context

# PS3.8 9.3.2.2: presentation context identifiers are the odd numbers from 1 to 255.
_CONNECT_SECONDS = 2.0
_CONTEXTS_PER_ASSOCIATION = 128


class SendError(RuntimeError):
    """The peer cannot be reached or rejects the association; the message says which and what to check."""


class FailedTlsError(SendError):
    """The peer answers, but there is no TLS with it."""


class RejectedError(SendError):
    """The peer rejected the association (A-ASSOCIATE-RJ, PS3.8 9.3.4)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Address and AE titles of an association. With ``tls`` it is called by TLS, and shows one of ``certificates`` or,
    where there are none, one that is valid for ``host``."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    timeout_seconds: float = 30
    tls: Tls | None = None
    certificates: tuple[str, ...] = ()

    def context(self) -> ClientContext | None:
        """The TLS context of one association; None without TLS.

        Raises:
            TlsError: a file of [tls] cannot be used.
        """
        return None if self.tls is None else client_context(self.tls, self.certificates)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A readable DICOM file and the presentation context that it needs."""

    path: Path
    sop_class_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class Sent:
    """Outcome of one file: the DIMSE status, or ``None`` with a reason if there was no response."""

    path: Path
    status: int | None
    reason: str = ""

    @property
    def accepted(self) -> bool:
        """Success or a warning (PS3.7 Annex C): the peer has the object."""
        return self.status is not None and is_stored(self.status)


def find_files(paths: Iterable[Path]) -> tuple[list[Outgoing], list[Sent]]:
    """Find DICOM files in ``paths``; folders are searched. Returns the files to send, and the others with a reason.

    A file that is named must be DICOM; other files in a folder are skipped.
    """
    good: list[Outgoing] = []
    bad: list[Sent] = []
    for path in paths:
        for candidate in _files(path):
            found = _inspect(candidate)
            if isinstance(found, Outgoing):
                good.append(found)
            elif path.is_file() or not path.exists():
                bad.append(found)
    return good, bad


def _files(path: Path) -> Sequence[Path]:
    return sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]


def _inspect(path: Path) -> Outgoing | Sent:
    try:
        meta = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"]).file_meta
        return Outgoing(path, str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
    except (OSError, InvalidDicomError, *MALFORMED) as error:
        return Sent(path, None, f"not a DICOM file: {error}")


def associations(files: Sequence[Outgoing]) -> list[list[Outgoing]]:
    """Split ``files`` so that each part needs no more presentation contexts than one association can have."""
    parts: list[list[Outgoing]] = [[]]
    contexts: set[tuple[str, str]] = set()
    for file in files:
        context = (file.sop_class_uid, file.transfer_syntax_uid)
        if context not in contexts and len(contexts) == _CONTEXTS_PER_ASSOCIATION:
            parts.append([])
            contexts = set()
        contexts.add(context)
        parts[-1].append(file)
    return [part for part in parts if part]


def send_files(files: Sequence[Outgoing], peer: Peer, *, urgent: bool = False) -> Iterator[Sent]:
    """Send ``files`` in order and yield the outcome of each. ``urgent`` requests DIMSE priority HIGH.

    Raises:
        SendError: there is no association.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True
    for part in associations(files):
        association = _associate(peer, {(file.sop_class_uid, file.transfer_syntax_uid) for file in part})
        try:
            for number, file in enumerate(part, start=1):
                yield _store(association, file, number, urgent=urgent)
        finally:
            association.release() if association.is_established else association.abort()


def _store(association: Association, file: Outgoing, number: int, *, urgent: bool) -> Sent:
    try:
        status = association.send_c_store(file.path, msg_id=(number % 65535) + 1, priority=1 if urgent else 0)
    except ValueError:
        return Sent(file.path, None, "the peer does not accept this SOP class in this transfer syntax")
    except RuntimeError:
        return Sent(file.path, None, "the peer has closed the association")
    code = status.get("Status")
    comment = str(status.get("ErrorComment", ""))
    return Sent(file.path, code, comment) if code is not None else Sent(file.path, None, "the peer did not respond")


def echo(peer: Peer) -> None:
    """Verify ``peer`` by C-ECHO (PS3.4 Annex A).

    Raises:
        SendError: no association, or a response that is not success.
    """
    association = _associate(peer, {("1.2.840.10008.1.1", "1.2.840.10008.1.2")})
    try:
        status = association.send_c_echo().get("Status")
    finally:
        association.release()
    if status != 0:
        raise SendError(f"{peer.called_ae_title} answered C-ECHO with {status_text(status)}")


def _associate(peer: Peer, contexts: set[tuple[str, str]]) -> Association:
    where = f"{peer.called_ae_title} on {peer.host}:{peer.port}"
    try:
        association = open_association(
            (peer.host, peer.port),
            called=peer.called_ae_title,
            calling=peer.calling_ae_title,
            contexts=[build_context(*context) for context in sorted(contexts)],
            seconds=peer.timeout_seconds,
            connect_seconds=peer.timeout_seconds,
            tls=peer.context(),
        )
    except OSError as error:
        raise SendError(f"{where} cannot be reached: the host name cannot be resolved ({error})") from error
    except TlsError as error:
        raise FailedTlsError(f"{where}: {error}") from error
    if association.is_established:
        return association
    if association.is_rejected:
        raise RejectedError(f"{where} rejects the association: {association.acceptor.primitive.reason_str}")
    raise SendError(f"{where} {_silence(peer)}")


def _silence(peer: Peer) -> str:
    """Why no association came about, which the library does not tell: nothing listens, or a program says nothing."""
    try:
        socket.create_connection((peer.host, peer.port), timeout=min(peer.timeout_seconds, _CONNECT_SECONDS)).close()
    except OSError:
        return "cannot be reached: is it running, and are address and port right?"
    return "accepts connections and answers no association request: it hangs, or speaks no DICOM on this port"
