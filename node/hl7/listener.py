"""The HL7 listener: MLLP connections with one message after the other, and TLS if a certificate is configured.

A connection that sends no message is closed after ``hl7.first_message_timeout_seconds``, one that has sent messages
after ``hl7.idle_timeout_seconds``, and a message must be complete within ``hl7.message_timeout_seconds``.
:mod:`node.hl7.connection_limits` decides which connection is closed at a limit. Bytes that are not MLLP close the
connection; the log gets the address and never the content.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from config.hl7 import HL7
from config.settings import Settings
from db import orders
from db.audit import AuditEntry, write_entry
from db.audit_events import CLOSED
from db.database import Database
from db.engine import connect, migrate
from node.hl7.connection_limits import ConnectionState, Limits, connection_to_close
from node.hl7.receiver import Receiver
from node.listener_metrics import open_instruments
from workers.audit.alerts import AlertLimit
from workers.clock import utc_now
from workers.hl7.mllp import Deframer, FramingError, frame
from workers.open_database import database_of
from workers.tls import ServerContexts, load_authorities, load_identity
from workers.worker_id import at_place

log = logging.getLogger(__name__)

_CHUNK = 65536
_DAY_SECONDS = 24 * 3600.0
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""A peer that has vanished is detected after two minutes (tcp(7)); not every system has all three options."""

Answer = Callable[[bytes], bytes]


@dataclass(eq=False, slots=True)
class _Connection:
    """A connection with its state and the deadline of its current message."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: ConnectionState
    deframer: Deframer
    message_deadline: float | None = None

    def deadline(self, hl7: HL7) -> float:
        """When it is closed if no complete message arrives. Single bytes do not extend it."""
        seconds = hl7.idle_timeout_seconds if self.state.has_sent else hl7.first_message_timeout_seconds
        idle_until = self.state.since + seconds
        return idle_until if self.message_deadline is None else min(self.message_deadline, idle_until)


class Listener:
    """Accepts connections and answers every message with ``answer``, which runs in a thread. ``rejected`` gets the
    address of each peer that may not connect, also in a thread."""

    def __init__(self, hl7: HL7, answer: Answer, rejected: Callable[[str], None] = lambda _: None) -> None:
        self._hl7 = hl7
        self._rejected = rejected
        self._answer = answer
        self._limits = Limits(hl7.maximum_waiting, hl7.maximum_connections, hl7.maximum_connections_per_address)
        self._open: dict[asyncio.Task[None], _Connection] = {}

    async def serve(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Listen until ``stop`` is set; a message that is being processed is answered first.

        Raises:
            OSError: the port is in use, or a file for TLS cannot be read.
        """
        hl7, tls = self._hl7, tls_front(self._hl7)
        # A connection is counted only after its TLS handshake, so one that hangs there blocks no other.
        seconds = hl7.first_message_timeout_seconds if tls is not None else None
        server = await asyncio.start_server(self._connected, hl7.host, hl7.port, ssl=tls, ssl_handshake_timeout=seconds)
        async with server:
            ready(int(server.sockets[0].getsockname()[1]))
            await stop.wait()
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        address = str((writer.get_extra_info("peername") or ("",))[0])
        try:
            if not may_connect(address, self._hl7):
                log.warning("a connection from %s was closed: it is not in hl7.addresses", address)
                _close(writer)
                await asyncio.to_thread(self._rejected, address)
                return
            _keep_alive(writer)
            state = ConnectionState(address, _now())
            connection = _Connection(reader, writer, state, Deframer(self._hl7.maximum_message_bytes))
            self._open[task] = connection
            self._enforce_limits(state)
            await self._receive(connection)
        except asyncio.CancelledError:
            log.info("the connection from %s is closed: the listener stops", address)
        except FramingError as error:
            log.warning("the connection from %s was closed: %s", address, error)
        except TimeoutError:
            log.warning("the connection from %s was closed: no complete message arrived in time", address)
        except OSError as error:
            log.info("the connection from %s has ended (%s)", address, type(error).__name__)
        finally:
            self._open.pop(task, None)
            _close(writer)

    def _enforce_limits(self, newest: ConnectionState) -> None:
        """Close a connection if ``newest`` exceeds a limit."""
        victim = connection_to_close([each.state for each in self._open.values()], newest, self._limits)
        for connection in self._open.values():
            if connection.state is victim:
                log.warning(
                    "a connection from %s was closed: a limit on connections is reached", connection.state.address
                )
                connection.writer.transport.abort()

    async def _receive(self, connection: _Connection) -> None:
        deframer = connection.deframer
        while not connection.writer.is_closing():
            seconds = connection.deadline(self._hl7) - _now()
            chunk = await asyncio.wait_for(connection.reader.read(_CHUNK), max(seconds, 0.0))
            if not chunk:
                if deframer.unfinished and not connection.writer.is_closing():
                    raise FramingError("it ended within a message")
                return
            for message in deframer.feed(chunk):
                await self._take(message, connection)
            if not deframer.unfinished:
                connection.message_deadline = None
            elif connection.message_deadline is None:
                connection.message_deadline = _now() + self._hl7.message_timeout_seconds

    async def _take(self, message: bytes, connection: _Connection) -> None:
        """Process a message and answer it. From now on the connection counts as one that has sent a message."""
        state, connection.message_deadline = connection.state, None
        first, state.has_sent, state.busy = not state.has_sent, True, True
        try:
            await self._finish(message, connection.writer)
        finally:
            state.busy, state.since = False, _now()
        if first:
            self._enforce_limits(state)

    async def _finish(self, message: bytes, writer: asyncio.StreamWriter) -> None:
        """Process a message and answer it, even while the listener is being stopped."""
        work = asyncio.ensure_future(self._answered(message, writer))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work
            raise

    async def _answered(self, message: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(await asyncio.to_thread(self._answer, message)))
        # Otherwise the answers to a peer that never reads would stay in memory.
        await asyncio.wait_for(writer.drain(), self._hl7.message_timeout_seconds)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _close(writer: asyncio.StreamWriter) -> None:
    """Close without waiting for a peer that does not read: a large unsent rest is dropped."""
    if writer.transport.get_write_buffer_size() > _CHUNK:
        writer.transport.abort()
    writer.close()


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Let the system detect a peer that has vanished."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def may_connect(address: str, hl7: HL7) -> bool:
    """Whether a peer at ``address`` may connect: it is in ``hl7.addresses`` or, if that is empty, on this machine."""
    if not address:
        return False  # it has disconnected already
    peer = ip_address(address.partition("%")[0])
    peer = getattr(peer, "ipv4_mapped", None) or peer
    if not hl7.addresses:
        return peer.is_loopback
    return any(peer in ip_network(network, strict=False) for network in hl7.addresses)


def tls_front(hl7: HL7) -> ssl.SSLContext | None:
    """The configured TLS context, which goes on with renewed files; None if there is no certificate.

    Raises:
        OSError: a file cannot be read or is invalid.
    """
    certificate = hl7.tls_certificate
    if certificate is None:
        return None
    files = (certificate, hl7.tls_key, hl7.tls_client_ca)
    return ServerContexts("HL7 listener", files, lambda: _tls_context(hl7, certificate)).front()


def _tls_context(hl7: HL7, certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_identity(context, certificate, hl7.tls_key)
    if hl7.tls_client_ca is not None:
        load_authorities(context, hl7.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def run_hl7(settings: Settings, ready: Callable[[int], None], stop: threading.Event) -> None:
    """Listen until ``stop`` is set.

    Raises:
        OSError: the port is in use, or a file for TLS cannot be read.
    """
    engine = connect(settings.database_url)
    migrate(engine)
    database = database_of(settings, engine)

    def clean_up() -> None:
        database.write(orders.forget, utc_now() - timedelta(days=settings.hl7.keep_days))

    settings.store.folder.mkdir(parents=True, exist_ok=True)
    with at_place(settings.store.folder, "hl7") as place:
        count = open_instruments(settings.store.folder, place).count_acknowledgement
        receiver = Receiver(settings, database, utc_now, lambda: uuid.uuid4().hex[:20], count)
        rejected = partial(_record_rejected, database, AlertLimit())
        asyncio.run(_run(Listener(settings.hl7, receiver.answer, rejected), clean_up, ready, stop))


def _record_rejected(database: Database, limit: AlertLimit, address: str) -> None:
    """Leave an entry in the audit trail, as far as ``limit`` lets it through."""
    if not (times := limit.admit(address, 1)):
        return
    detail = "HL7: it is not in hl7.addresses" + (f" ({times} times)" if times > 1 else "")
    entry = AuditEntry(utc_now(), "unknown", CLOSED, address=address, detail=detail, failed=True)
    try:
        database.write(write_entry, entry)
    except SQLAlchemyError as error:
        log.warning("the audit trail has no entry of it: %s", type(error).__name__)


async def _run(
    listener: Listener, clean_up: Callable[[], None], ready: Callable[[int], None], stop: threading.Event
) -> None:
    stopped = asyncio.Event()

    async def wait_for_stop() -> None:
        await asyncio.to_thread(stop.wait)
        stopped.set()

    waiting = asyncio.create_task(wait_for_stop())
    cleaning = asyncio.create_task(_every_day(clean_up))
    try:
        await listener.serve(ready, stopped)
    finally:
        cleaning.cancel()
        stop.set()
        await asyncio.gather(waiting, cleaning, return_exceptions=True)


async def _every_day(clean_up: Callable[[], None]) -> None:
    while True:
        try:
            await asyncio.to_thread(clean_up)
        except SQLAlchemyError as error:
            log.warning("old messages could not be deleted (%s); next attempt tomorrow", type(error).__name__)
        await asyncio.sleep(_DAY_SECONDS)
