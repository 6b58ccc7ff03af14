"""The HL7 listener: MLLP connections, one message after the other on each, TLS where a certificate is configured.

A connection may stay open and silent for days; only a message that has begun must end in time. What is no MLLP closes
its connection with a line in the log, which names the address and never what came.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address, ip_network

from sqlalchemy.exc import SQLAlchemyError

from config.messaging import HL7
from config.settings import Settings
from db.engine import connect, migrate
from node.hl7.receiver import Receiver
from workers.clock import utc_now
from workers.hl7.mllp import Deframer, FramingError, frame
from workers.worklist import worklist_of

log = logging.getLogger(__name__)

_CHUNK = 65536
_DAY_SECONDS = 24 * 3600.0
_LONGEST_SILENCE_SECONDS = 7 * _DAY_SECONDS

Answer = Callable[[bytes], bytes]


class Listener:
    """Takes connections and has every message answered by ``answer``, in a thread of its own."""

    def __init__(self, rules: HL7, answer: Answer) -> None:
        self._rules = rules
        self._answer = answer
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Listen until ``stop`` is set; a message that is being worked on is answered first.

        Raises:
            OSError: the port is taken, or a file for TLS cannot be read.
        """
        rules = self._rules
        tls = tls_context(rules)
        patience = rules.message_seconds if tls is not None else None
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
            elif len(self._open) >= self._rules.maximum_connections:
                log.warning("a connection from %s was closed: there are as many as hl7.maximum_connections", address)
            else:
                self._open.add(task)
                await self._converse(reader, writer)
        except asyncio.CancelledError:
            log.info("the connection from %s is closed: this listener ends", address)
        except FramingError as error:
            log.warning("the connection from %s was closed: %s", address, error)
        except TimeoutError:
            log.warning("the connection from %s was closed: a message did not end in time", address)
        except OSError as error:
            log.info("the connection from %s has ended (%s)", address, type(error).__name__)
        finally:
            self._open.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deframer = Deframer(self._rules.maximum_message_bytes)
        clock = asyncio.get_running_loop().time
        deadline: float | None = None
        while True:
            patience = _LONGEST_SILENCE_SECONDS if deadline is None else max(deadline - clock(), 0.0)
            chunk = await asyncio.wait_for(reader.read(_CHUNK), patience)
            if not chunk:
                if deframer.unfinished:
                    raise FramingError("it ended in the middle of a message")
                return
            for message in deframer.feed(chunk):
                deadline = None
                await self._to_its_end(message, writer)
            if not deframer.unfinished:
                deadline = None
            elif deadline is None:
                deadline = clock() + self._rules.message_seconds

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
        await writer.drain()


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
