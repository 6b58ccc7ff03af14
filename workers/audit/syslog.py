"""Audit messages on their way: syslog (RFC 5424) over TLS (RFC 5425) or UDP (RFC 5426), by PS3.15 A.6 and A.7.

Syslog knows no answer. What can be known over TLS is asked for: a receiver that refuses our certificate says so only
after our handshake (TLS 1.3), so it is given a moment before anything is sent; at the end it must answer
``close_notify`` with its own (RFC 5425 4.4), and must not reset the connection, as who has not read all does. Without
that nothing counts as sent; where the settings say that it never answers, it must at least close the connection.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC

from config.audit import AuditRepository
from config.tls import Tls
from db.audit import RecordedEntry
from workers.tls import ended_without_notice, load_authorities, load_identity, tls_problem, trust_authorities

_FACILITY = 10  # security/authorization
_NOTICE, _WARNING = 5, 4
_MESSAGE_ID = "DICOM+RFC3881"
_BOM = b"\xef\xbb\xbf"
_UDP_PAUSE_SECONDS = 0.002
_REFUSAL_SECONDS, _RESET_SECONDS, _CLOSING_SECONDS = 0.5, 0.1, 1.0
_ENDED = "TLS: it ended the connection before it had read all; does it accept our certificate (tls.certificate)?"
_UNANSWERED = (
    "TLS: it did not answer the end of the connection (RFC 5425 4.4), so nobody knows what it has read; if it never "
    "does, set answers_close_notify = false"
)
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


def send(repository: AuditRepository, messages: Sequence[bytes], tls: Tls) -> None:
    """Send ``messages``, with the node's certificate of ``tls``; over UDP their arrival is unknown.

    Raises:
        NotSentError: no connection, no trust, or the receiver broke it off; any of the messages may have arrived.
    """
    try:
        if repository.transport == "udp":
            _send_datagrams(repository, messages)
        else:
            _send_stream(repository, b"".join(map(octet_counted, messages)), tls)
    except ssl.SSLError as error:
        raise NotSentError(f"{tls_problem(error).why} ({error.reason or error.strerror})") from error
    except OSError as error:
        raise NotSentError(error.strerror or str(error) or type(error).__name__) from error


def verify(repository: AuditRepository, tls: Tls) -> None:
    """Connect and send nothing; over UDP only the name is looked up.

    Raises:
        NotSentError: as :func:`send` does.
    """
    send(repository, (), tls)


def _send_datagrams(repository: AuditRepository, messages: Sequence[bytes]) -> None:
    where = (repository.host, repository.port)
    family, kind, protocol, _, address = socket.getaddrinfo(*where, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sending:
        for message in messages:
            sending.sendto(message, address)
            # A receiver whose buffer is full drops what comes, and nobody is told.
            time.sleep(_UDP_PAUSE_SECONDS)


def _send_stream(repository: AuditRepository, frames: bytes, tls: Tls) -> None:
    where = (repository.host, repository.port)
    with (
        socket.create_connection(where, timeout=repository.timeout_seconds) as plain,
        _context(repository, tls).wrap_socket(plain, server_hostname=repository.host) as secured,
    ):
        try:
            secured.settimeout(_REFUSAL_SECONDS)
            with suppress(TimeoutError):
                if not secured.recv(1):
                    raise NotSentError(_ENDED)
            secured.settimeout(repository.timeout_seconds)
            secured.sendall(frames)
            if not _is_closed(secured, repository):
                raise NotSentError(_ENDED)
        except (ssl.SSLError, ConnectionError) as error:
            if isinstance(error, ConnectionError) or ended_without_notice(error):
                raise NotSentError(_ENDED) from error
            raise


def _is_closed(secured: ssl.SSLSocket, repository: AuditRepository) -> bool:
    """End the connection; whether the receiver has read all of it and ended it in good order.

    Raises:
        OSError: it did not.
    """
    polling = select.poll()
    if repository.answers_close_notify:
        plain = _unwrapped(secured)
        if plain is None:
            raise NotSentError(_UNANSWERED)
        polling.register(plain, 0)  # errors are always told
        return not polling.poll(_RESET_SECONDS * 1000)
    secured.settimeout(_CLOSING_SECONDS)
    _unwrapped(secured)
    socket.socket.shutdown(secured, socket.SHUT_WR)
    polling.register(secured, select.POLLRDHUP)
    events = polling.poll(repository.timeout_seconds * 1000)
    return bool(events) and not any(what & select.POLLERR for _, what in events)


def _unwrapped(secured: ssl.SSLSocket) -> socket.socket | None:
    """The connection without TLS, whose end both sides have told; None where the receiver has not."""
    try:
        return secured.unwrap()
    except TimeoutError:
        return None
    except ssl.SSLError as error:
        if not ended_without_notice(error):
            raise
        return None


def _context(repository: AuditRepository, tls: Tls) -> ssl.SSLContext:
    # Made anew each time: certificates are renewed while the node runs.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.11.2 of Debian 12, for one, would take the end of the connection for the receiver's close_notify.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if repository.ca_file is not None:
        load_authorities(context, repository.ca_file)
    elif tls.ca is not None:
        trust_authorities(context, tls)
    else:
        context.load_default_certs()
    if tls.certificate is not None:
        load_identity(context, tls.certificate, tls.key)
    return context
