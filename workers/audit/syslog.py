"""Audit messages on their way: syslog (RFC 5424) over TLS (RFC 5425) or UDP (RFC 5426), by PS3.15 A.6 and A.7.

Syslog knows no answer. Over TLS the receiver must answer ``close_notify`` with its own (RFC 5425 4.4), which it can
only when it has read all that came before. Without that answer nothing counts as sent: with TLS 1.3 a receiver that
refuses our certificate says so only after our handshake, and a connection that just ends may have lost what it carried.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Sequence
from datetime import UTC

from config.audit import AuditRepository
from db.audit import RecordedEntry

_FACILITY = 10  # security/authorization
_NOTICE, _WARNING = 5, 4
_MESSAGE_ID = "DICOM+RFC3881"
_BOM = b"\xef\xbb\xbf"
_UDP_PAUSE_SECONDS = 0.002
_SEQUENCE = 2**31 - 1  # RFC 5424 7.3.1


class NotSentError(Exception):
    """The repository did not take the messages; the message says why."""


def syslog_message(entry: RecordedEntry, xml: bytes, host: str) -> bytes:
    """``xml`` in a syslog message. ``sequenceId`` is the entry's place in the trail: what is missing shows by it."""
    priority = _FACILITY * 8 + (_WARNING if entry.failed else _NOTICE)
    at = entry.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    number = (entry.position - 1) % _SEQUENCE + 1
    name = re.sub(r"[^!-~]", "-", host)[:255] or "-"
    header = f'<{priority}>1 {at} {name} pleura - {_MESSAGE_ID} [meta sequenceId="{number}"] '
    return header.encode("ascii") + _BOM + xml


def octet_counted(message: bytes) -> bytes:
    """A frame of RFC 5425 4.3."""
    return f"{len(message)} ".encode("ascii") + message


def send(repository: AuditRepository, messages: Sequence[bytes]) -> None:
    """Send ``messages``; over UDP nobody knows whether they arrive.

    Raises:
        NotSentError: no connection, no trust, or the receiver broke it off; any of the messages may have arrived.
    """
    try:
        if repository.transport == "udp":
            _send_datagrams(repository, messages)
        else:
            _send_stream(repository, b"".join(map(octet_counted, messages)))
    except ssl.SSLCertVerificationError as error:
        raise NotSentError(f"its certificate is not trusted: {error.verify_message}") from error
    except ssl.SSLEOFError as error:
        raise NotSentError(
            "it closed the connection without close_notify (TLS); does it trust our certificate?"
        ) from error
    except ssl.SSLError as error:
        raise NotSentError(f"TLS failed: {error.reason or type(error).__name__}") from error
    except OSError as error:
        raise NotSentError(error.strerror or str(error) or type(error).__name__) from error


def verify(repository: AuditRepository) -> None:
    """Connect and send nothing; over UDP only the name is looked up.

    Raises:
        NotSentError: as :func:`send` does.
    """
    send(repository, ())


def _send_datagrams(repository: AuditRepository, messages: Sequence[bytes]) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(repository.host, repository.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sending:
        for message in messages:
            sending.sendto(message, address)
            # A receiver whose buffer is full drops what comes, and nobody is told.
            time.sleep(_UDP_PAUSE_SECONDS)


def _send_stream(repository: AuditRepository, frames: bytes) -> None:
    where = (repository.host, repository.port)
    with (
        socket.create_connection(where, timeout=repository.timeout_seconds) as plain,
        _context(repository).wrap_socket(plain, server_hostname=repository.host) as secured,
    ):
        secured.sendall(frames)
        secured.unwrap()


def _context(repository: AuditRepository) -> ssl.SSLContext:
    # Made anew each time: certificates are renewed while the node runs.
    context = ssl.create_default_context(cafile=str(repository.ca_file) if repository.ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if repository.certificate is not None:
        password = repository.key_password.get_secret_value() if repository.key_password else None
        context.load_cert_chain(repository.certificate, repository.key, password)
    return context
