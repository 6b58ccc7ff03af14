"""Limits on the number and duration of connections to the admin page, so that no client can block the others.

Opening a connection costs a client nothing, so connections without a request have a small limit of their own, and the
number of connections from one address is limited. If a limit is reached, the connection that has waited longest is
closed: a browser sends its request within milliseconds, so it is never that one. A request has a deadline for its
header. After that, each direction must move a minimum number of bytes in each interval.

A connection that ends while its request still arrives is not closed at once (RFC 9112 9.6): bytes that nobody reads
make the system reset it, and the client, or a proxy in between, would lose the response: 502 instead of 413.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from config.settings import Admin
from node.web.authentication import is_within

log = logging.getLogger("pleura.admin")

_TOTAL = 500
_WAITING = 64
_WAITING_OF_ONE_ADDRESS = 16
_BODY_BYTES = 16 * 1024
_LOG_SECONDS = 60.0
_LINGER_SECONDS = 5.0
_MAY_STILL_SEND = ("SEND_BODY", "ERROR")  # h11's states of a client
_NO_REQUEST = "no request came in time"


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum numbers of connections; ``waiting`` ones have not sent a complete request header yet.

    ``unlimited`` addresses or networks (trusted proxies, which serve many people) are limited only by the total.
    """

    total: int
    of_one_address: int
    waiting: int
    waiting_of_one_address: int
    unlimited: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Deadlines in seconds: for a complete header, for each 16 KiB of a body, and for reading a part of a response.

    asyncio pauses a writer at 64 KiB in its buffer and resumes it at 16 KiB; the client must read the difference within
    ``answer``.
    """

    header: float
    body: float = 20.0
    answer: float = 30.0


def limits_from(settings: Admin) -> Limits:
    """The limits from the settings."""
    per_address = settings.connections_per_address
    return Limits(
        _TOTAL, per_address, _WAITING, min(per_address, _WAITING_OF_ONE_ADDRESS), tuple(settings.trusted_proxies)
    )


@dataclass(slots=True, eq=False)
class OpenConnection:
    """One open connection: its group of addresses, and whether it waits for a request."""

    group: str
    limited: bool
    waiting: bool = True


def group_of(address: str) -> str:
    """The unit that counts as one address: an IPv4 address, or the /64 network that one IPv6 customer gets."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def connection_to_close(
    open_ones: Sequence[OpenConnection], newcomer: OpenConnection, limits: Limits
) -> OpenConnection | None:
    """The connection to close when ``newcomer`` opens; None if none. ``open_ones`` begin with the longest waiting.

    It is the newcomer itself only if all connections that count against the limit are being answered.
    """
    waiting = [one for one in open_ones if one.waiting]
    if newcomer.limited:
        own = [one for one in waiting if one.group == newcomer.group]
        if sum(one.group == newcomer.group for one in open_ones) >= limits.of_one_address:
            return own[0] if own else newcomer
        if len(own) >= limits.waiting_of_one_address:
            return own[0]
    if len(waiting) < limits.waiting and len(open_ones) < limits.total:
        return None
    if not waiting:
        return newcomer
    most = Counter(one.group for one in waiting).most_common(1)[0][0]
    return next(one for one in waiting if one.group == most)


class ConnectionLimiter:
    """The open connections; closes one when a limit is reached."""

    def __init__(self, limits: Limits, deadlines: Deadlines, clock: Callable[[], float]) -> None:
        """``clock`` returns monotonic seconds; it limits how often the log is written."""
        self._limits = limits
        self.deadlines = deadlines
        self._clock = clock
        self._open: dict[OpenConnection, Callable[[], object]] = {}
        self._closed: Counter[str] = Counter()
        self._logged_at = -_LOG_SECONDS

    def enter(self, address: str, close: Callable[[], object]) -> OpenConnection:
        """Add a new connection; ``close`` closes it at once. It may be closed before this returns."""
        group = group_of(address)
        newcomer = OpenConnection(group, limited=not is_within(address, self._limits.unlimited))
        victim = connection_to_close(list(self._open), newcomer, self._limits)
        self._open[newcomer] = close
        if victim is not None:
            self._close(victim, "a limit on connections is reached")
        return newcomer

    def wait(self, entry: OpenConnection) -> None:
        """Note that a request was answered: the connection waits for another, as the last of those that wait."""
        close = self._open.pop(entry, None)
        entry.waiting = True
        if close is not None:
            self._open[entry] = close

    def leave(self, entry: OpenConnection) -> None:
        """Remove a connection that has ended."""
        self._open.pop(entry, None)

    def close_slow(self, entry: OpenConnection, reason: str) -> None:
        """Close a connection that is too slow."""
        if entry in self._open:
            self._close(entry, reason)

    def _close(self, entry: OpenConnection, reason: str) -> None:
        self._open.pop(entry)()
        self._closed[entry.group] += 1
        if self._clock() - self._logged_at < _LOG_SECONDS:
            return
        group, count = self._closed.most_common(1)[0]
        log.warning("closed %d connections, %d of them from %s: %s", self._closed.total(), count, group, reason)
        self._logged_at = self._clock()
        self._closed.clear()


class LingeringTransport:
    """A transport that asks ``linger`` whether to close later; closed a second time, it closes at once."""

    def __init__(self, transport: asyncio.Transport, linger: Callable[[asyncio.Transport], bool]) -> None:
        self._transport = transport
        self._linger = linger
        self._closing = False

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more is written."""
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        """Write nothing more; close at once, or when the client has had time to read the response."""
        if self.is_closing() or not self._linger(self._transport):
            self._transport.close()
        self._closing = True


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with :class:`ConnectionLimiter` and a deadline for the client's next step."""

    limiter: ConnectionLimiter

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Signature of uvicorn, which makes one for each connection."""
        super().__init__(config, server_state, app_state, _loop)
        self._entry: OpenConnection | None = None
        self._received = self._received_before = 0
        self._request: object = None
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, then wait for a header."""
        lingering = LingeringTransport(cast(asyncio.Transport, transport), self._linger)
        super().connection_made(cast(asyncio.Transport, lingering))
        if self._entry is None:
            self._enter(transport.get_extra_info("peername"), self.transport.abort)
        self._await_header()

    def handshake_begun(
        self, peer: tuple[Any, ...] | None, transport: asyncio.Transport, done: asyncio.Future[object]
    ) -> None:
        """Register a connection whose TLS handshake begins; :meth:`connection_made` follows, unless it fails.

        ``transport`` has no socket before the loop's next round, so nothing would be closed at once.
        """
        entry = self._enter(peer, lambda: self.loop.call_soon(transport.abort))

        def ended(_: asyncio.Future[object]) -> None:
            if done.cancelled() or done.exception() is not None:
                self.limiter.leave(entry)

        done.add_done_callback(ended)

    def _enter(self, peer: tuple[Any, ...] | None, close: Callable[[], object]) -> OpenConnection:
        self._entry = self.limiter.enter(peer[0] if peer else "", close)
        return self._entry

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection and its deadlines."""
        self._lost = True
        super().connection_lost(exc)
        _cancel(self._reading, self._writing, self._lingering)
        if self._entry is not None:
            self.limiter.leave(self._entry)

    def data_received(self, data: bytes) -> None:
        """Handle bytes; a complete header starts the deadline of the body, or ends the deadline if there is no body."""
        self._received += len(data)
        if self._lingering is None:
            super().data_received(data)
            self._check_request()

    def _linger(self, transport: asyncio.Transport) -> bool:
        """Whether the request still arrives after its response: it is read, and forgotten, for some seconds."""
        if self._lost or str(self.conn.their_state) not in _MAY_STILL_SEND:
            return False
        if transport.can_write_eof():
            transport.write_eof()
        self.flow.resume_reading()
        self._lingering = self.loop.call_later(_LINGER_SECONDS, transport.close)
        return True

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has arrived already."""
        super().on_response_complete()
        if self.cycle.response_complete and self._entry is not None:
            self.limiter.wait(self._entry)
            _cancel(self._reading)
            if self._lingering is None:
                self._await_header()
        else:
            self._check_request()

    def pause_writing(self) -> None:
        """Start the deadline: the client reads more slowly than the response is written."""
        super().pause_writing()
        _cancel(self._writing)
        self._writing = self.loop.call_later(self.limiter.deadlines.answer, self._close_late, "a response was not read")

    def resume_writing(self) -> None:
        """End the deadline: the client has read enough."""
        super().resume_writing()
        _cancel(self._writing)

    def _check_request(self) -> None:
        """Check whether another request has started, and whether its body is complete."""
        if self._entry is None or self.cycle is None or self.cycle.response_complete:
            return
        begun, self._request = self._request is not self.cycle, self.cycle
        self._entry.waiting = False
        if begun or not self.cycle.more_body:
            _cancel(self._reading)
        if begun and self.cycle.more_body:
            self._reading = self.loop.call_later(self.limiter.deadlines.body, self._check_body_rate, self._received)

    def _await_header(self) -> None:
        _cancel(self._reading)
        self._received_before = self._received
        self._reading = self.loop.call_later(self.limiter.deadlines.header, self._close_late, _NO_REQUEST)

    def _check_body_rate(self, before: int) -> None:
        """Check that a body has brought the minimum of bytes in this interval, unless reading is paused here."""
        if not self.flow.read_paused and self._received - before < _BODY_BYTES:
            self._close_late("a request arrived too slowly")
            return
        self._reading = self.loop.call_later(self.limiter.deadlines.body, self._check_body_rate, self._received)

    def _close_late(self, reason: str) -> None:
        if self._entry is None:
            return
        if reason is _NO_REQUEST and self._received == self._received_before:
            self.limiter.leave(self._entry)  # browsers open connections in advance: not worth a log line
            self.transport.abort()
            return
        self.limiter.close_slow(self._entry, reason)


class LimitedLoop(asyncio.SelectorEventLoop):
    """An event loop whose servers count connections from before their TLS handshake on, and end one that takes longer
    than the deadline of a header: uvicorn leaves it a minute, and asyncio tells of a connection after it only.
    """

    def __init__(self, limiter: ConnectionLimiter) -> None:
        super().__init__()
        self._limiter = limiter

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        """Make a server; see the base class."""
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = self._limiter.deadlines.header
        return await super().create_server(*arguments, **options)

    def _make_ssl_transport(
        self, rawsock: socket.socket, protocol: Any, sslcontext: ssl.SSLContext, waiter: Any = None, **options: Any
    ) -> asyncio.Transport:
        """asyncio's own, which its servers call for each connection; it has no public place to count them."""
        made: asyncio.Transport = super()._make_ssl_transport(rawsock, protocol, sslcontext, waiter, **options)  # type: ignore[misc]
        if waiter is not None and isinstance(protocol, LimitedProtocol):
            protocol.handshake_begun(_peer_of(rawsock), made, waiter)
        return made


def _peer_of(connection: socket.socket) -> tuple[Any, ...] | None:
    try:
        peer = connection.getpeername()
    except OSError:  # it has ended
        return None
    return peer if isinstance(peer, tuple) else None


def limited_protocol(limiter: ConnectionLimiter) -> type[H11Protocol]:
    """The protocol class for :class:`uvicorn.Config`, which uses ``limiter``."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limiter": limiter})


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
