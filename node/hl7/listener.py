"""The HL7 listener: MLLP connections, one message after the other on each, TLS where a certificate is configured.

A connection that sends no message is closed soon, one that has sent some after ``hl7.idle_seconds`` of silence, and a
message that has begun must end in time. Who makes room for whom is decided in :mod:`node.hl7.connection_limits`. What
is no MLLP closes its connection with a line in the log, which names the address and never what came.
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
from ipaddress import ip_address, ip_network

from sqlalchemy.exc import SQLAlchemyError

from config.integrations import HL7
from config.settings import Settings
from db.engine import connect, migrate
from node.hl7.connection_limits import Limits, WorkerId, who_makes_room
from node.hl7.receiver import Receiver
from workers.clock import utc_now
from workers.hl7.mllp import Deframer, FramingError, frame
from workers.open_worklist import worklist_of

log = logging.getLogger(__name__)

_CHUNK = 65536
_DAY_SECONDS = 24 * 3600.0
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""A peer that is gone without a word is noticed after two minutes (tcp(7)); not every system has all three."""

Answer = Callable[[bytes], bytes]


@dataclass(eq=False, slots=True)
class _Connection:
    """A connection, its place among the others, and the deadlines of what it has to send."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    place: WorkerId
    deframer: Deframer
    message_deadline: float | None = None

    def deadline(self, rules: HL7) -> float:
        """When it is closed if nothing whole comes. Single bytes put nothing off, whatever they are."""
        patience = rules.idle_seconds if self.place.verified else rules.first_message_seconds
        silent_until = self.place.since + patience
        return silent_until if self.message_deadline is None else min(self.message_deadline, silent_until)


class Listener:
    """Takes connections and has every message answered by ``answer``, in a thread of its own."""

    def __init__(self, rules: HL7, answer: Answer) -> None:
        self._rules = rules
        self._answer = answer
        self._limits = Limits(rules.maximum_waiting, rules.maximum_connections, rules.maximum_connections_per_address)
        self._open: dict[asyncio.Task[None], _Connection] = {}

    async def serve(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Listen until ``stop`` is set; a message that is being worked on is answered first.

        Raises:
            OSError: the port is taken, or a file for TLS cannot be read.
        """
        rules, tls = self._rules, tls_context(self._rules)
        # A connection has a place only once its handshake is done, so one that hangs there shuts nobody out.
        patience = rules.first_message_seconds if tls is not None else None
        server = await asyncio.start_server(
            self._connected, rules.host, rules.port, ssl=tls, ssl_handshake_timeout=patience
        )
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
            if not may_connect(address, self._rules):
                log.warning("a connection from %s was closed: hl7.addresses does not name it", address)
                return
            _keep_alive(writer)
            place = WorkerId(address, _now())
            connection = _Connection(reader, writer, place, Deframer(self._rules.maximum_message_bytes))
            self._open[task] = connection
            self._make_room(place)
            await self._converse(connection)
        except asyncio.CancelledError:
            log.info("the connection from %s is closed: this listener ends", address)
        except FramingError as error:
            log.warning("the connection from %s was closed: %s", address, error)
        except TimeoutError:
            log.warning("the connection from %s was closed: no whole message came in time", address)
        except OSError as error:
            log.info("the connection from %s has ended (%s)", address, type(error).__name__)
        finally:
            self._open.pop(task, None)
            _close(writer)

    def _make_room(self, newest: WorkerId) -> None:
        """Close the connection that has to go because of ``newest``, if one has."""
        victim = who_makes_room([each.place for each in self._open.values()], newest, self._limits)
        for connection in self._open.values():
            if connection.place is victim:
                log.warning("a connection from %s was closed to make room for others", connection.place.address)
                connection.writer.transport.abort()

    async def _converse(self, connection: _Connection) -> None:
        deframer = connection.deframer
        while not connection.writer.is_closing():
            patience = connection.deadline(self._rules) - _now()
            chunk = await asyncio.wait_for(connection.reader.read(_CHUNK), max(patience, 0.0))
            if not chunk:
                if deframer.unfinished and not connection.writer.is_closing():
                    raise FramingError("it ended in the middle of a message")
                return
            for message in deframer.feed(chunk):
                await self._take(message, connection)
            if not deframer.unfinished:
                connection.message_deadline = None
            elif connection.message_deadline is None:
                connection.message_deadline = _now() + self._rules.message_seconds

    async def _take(self, message: bytes, connection: _Connection) -> None:
        """Work on a message and answer it. Its sender has a place among those that speak from now on."""
        place, connection.message_deadline = connection.place, None
        first, place.verified, place.busy = not place.verified, True, True
        try:
            await self._to_its_end(message, connection.writer)
        finally:
            place.busy, place.since = False, _now()
        if first:
            self._make_room(place)

    async def _to_its_end(self, message: bytes, writer: asyncio.StreamWriter) -> None:
        """Work on a message and answer it, even while the listener is being stopped."""
        work = asyncio.ensure_future(self._answered(message, writer))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work
            raise

    async def _answered(self, message: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(await asyncio.to_thread(self._answer, message)))
        # A peer that sends and never reads would keep its answers here for ever.
        await asyncio.wait_for(writer.drain(), self._rules.message_seconds)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _close(writer: asyncio.StreamWriter) -> None:
    """Close without waiting for a peer that does not read: what is left to send is dropped where there is too much."""
    if writer.transport.get_write_buffer_size() > _CHUNK:
        writer.transport.abort()
    writer.close()


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Have the system notice when the peer is gone."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def may_connect(address: str, rules: HL7) -> bool:
    """Whether a peer at ``address`` may connect: named in ``hl7.addresses`` or, where nobody is, on this machine."""
    if not address:
        return False  # it is gone already
    peer = ip_address(address.partition("%")[0])
    peer = getattr(peer, "ipv4_mapped", None) or peer
    if not rules.addresses:
        return peer.is_loopback
    return any(peer in ip_network(network, strict=False) for network in rules.addresses)


def tls_context(rules: HL7) -> ssl.SSLContext | None:
    """TLS as configured; None where there is no certificate.

    Raises:
        OSError: a file cannot be read, or is not what it should be.
    """
    if rules.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(rules.tls_certificate, rules.tls_key)
    if rules.tls_client_ca is not None:
        context.load_verify_locations(rules.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def run_hl7(settings: Settings, ready: Callable[[int], None], stop: threading.Event) -> None:
    """Listen until ``stop`` is set.

    Raises:
        OSError: the port is taken, or a file for TLS cannot be read.
    """
    engine = connect(settings.database_url)
    migrate(engine)
    worklist = worklist_of(settings, engine)
    receiver = Receiver(settings, worklist, utc_now, lambda: uuid.uuid4().hex[:20])

    def tidy() -> None:
        worklist.forget_messages(utc_now() - timedelta(days=settings.hl7.keep_days))

    asyncio.run(_run(Listener(settings.hl7, receiver.answer), tidy, ready, stop))


async def _run(
    listener: Listener, tidy: Callable[[], None], ready: Callable[[int], None], stop: threading.Event
) -> None:
    stopped = asyncio.Event()

    async def watch() -> None:
        await asyncio.to_thread(stop.wait)
        stopped.set()

    watcher = asyncio.create_task(watch())
    tidier = asyncio.create_task(_every_day(tidy))
    try:
        await listener.serve(ready, stopped)
    finally:
        tidier.cancel()
        stop.set()
        await asyncio.gather(watcher, tidier, return_exceptions=True)


async def _every_day(tidy: Callable[[], None]) -> None:
    while True:
        try:
            await asyncio.to_thread(tidy)
        except SQLAlchemyError as error:
            log.warning("old messages could not be forgotten (%s); again tomorrow", type(error).__name__)
        await asyncio.sleep(_DAY_SECONDS)
