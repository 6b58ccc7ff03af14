"""Who may keep a connection to the admin page open, and for how long: nobody can shut the others out.

A connection costs its opener nothing, so those that have not asked for anything yet have a small limit of their own,
and one address may hold only so many. Where a limit is reached, the connection that has waited longest makes room: a
browser asks within milliseconds, so it is never that one. A request has a hard deadline for its header, and afterwards
each direction must move so many bytes in a span, not just some byte.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
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
_TELL_SECONDS = 60.0
_NO_REQUEST = "no request came in time"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be; ``waiting`` ones have not sent a whole request header yet.

    ``unlimited`` addresses or networks (trusted proxies, which speak for many people) may hold any number of the total.
    """

    total: int
    of_one_address: int
    waiting: int
    waiting_of_one_address: int
    unlimited: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a peer is waited for, in seconds: a whole header, each 16 KiB of a body, room for more of an answer.

    asyncio pauses a writer at 64 KiB in its buffer and lets it go on at 16 KiB: that much must leave within ``answer``.
    """

    header: float
    body: float = 20.0
    answer: float = 30.0


def limits_of(settings: Admin) -> Limits:
    """The limits that the settings ask for."""
    per_address = settings.connections_per_address
    return Limits(
        _TOTAL, per_address, _WAITING, min(per_address, _WAITING_OF_ONE_ADDRESS), tuple(settings.trusted_proxies)
    )


@dataclass(slots=True, eq=False)
class Held:
    """One open connection: whose it is, and whether it waits for a request."""

    group: str
    limited: bool
    waiting: bool = True


def group_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 network that one IPv6 customer is given."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def who_makes_room(on_hold: Sequence[Held], newcomer: Held, limits: Limits) -> Held | None:
    """The connection to close when ``newcomer`` opens one beside those ``on_hold``, the longest waiting first; None:
    none.

    It is the newcomer itself only where all that count against the limit are being answered.
    """
    waiting = [one for one in on_hold if one.waiting]
    if newcomer.limited:
        own = [one for one in waiting if one.group == newcomer.group]
        if sum(one.group == newcomer.group for one in on_hold) >= limits.of_one_address:
            return own[0] if own else newcomer
        if len(own) >= limits.waiting_of_one_address:
            return own[0]
    if len(waiting) < limits.waiting and len(on_hold) < limits.total:
        return None
    if not waiting:
        return newcomer
    most = Counter(one.group for one in waiting).most_common(1)[0][0]
    return next(one for one in waiting if one.group == most)


class Door:
    """Keeps the open connections, and closes one where a limit asks for it."""

    def __init__(self, limits: Limits, patience: Patience, clock: Callable[[], float]) -> None:
        """``clock`` gives monotonic seconds; it only says when the log is written again."""
        self._limits = limits
        self.patience = patience
        self._clock = clock
        self._open: dict[Held, Callable[[], None]] = {}
        self._closed: Counter[str] = Counter()
        self._told_at = -_TELL_SECONDS

    def enter(self, address: str, close: Callable[[], None]) -> Held:
        """Note a new connection; ``close`` ends it at once. It may be ended before this returns."""
        group = group_of(address)
        newcomer = Held(group, limited=not is_within(address, self._limits.unlimited))
        victim = who_makes_room(list(self._open), newcomer, self._limits)
        self._open[newcomer] = close
        if victim is not None:
            self._turn_out(victim, "a limit on connections is reached")
        return newcomer

    def wait(self, on_hold: Held) -> None:
        """A request of this connection is answered: it waits for another, behind those that wait already."""
        close = self._open.pop(on_hold, None)
        on_hold.waiting = True
        if close is not None:
            self._open[on_hold] = close

    def leave(self, on_hold: Held) -> None:
        """A connection has ended."""
        self._open.pop(on_hold, None)

    def turn_out(self, on_hold: Held, reason: str) -> None:
        """End a connection that is too slow."""
        if on_hold in self._open:
            self._turn_out(on_hold, reason)

    def _turn_out(self, on_hold: Held, reason: str) -> None:
        self._open.pop(on_hold)()
        self._closed[on_hold.group] += 1
        if self._clock() - self._told_at < _TELL_SECONDS:
            return
        group, count = self._closed.most_common(1)[0]
        log.warning("closed %d connections, %d of them from %s: %s", self._closed.total(), count, group, reason)
        self._told_at = self._clock()
        self._closed.clear()


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, behind a :class:`Door`, with a deadline for whatever the peer has to do next."""

    door: Door

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn makes it for each connection."""
        super().__init__(config, server_state, app_state, _loop)
        self._on_hold: Held | None = None
        self._received = self._asked = 0
        self._request: object = None
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the door, then wait for a header."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._on_hold = self.door.enter(self.client[0] if self.client else "", self.transport.abort)
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and its deadlines."""
        super().connection_lost(exc)
        _cancel(self._reading, self._writing)
        if self._on_hold is not None:
            self.door.leave(self._on_hold)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a header that is whole begins the deadline of the body, or ends deadlines where there is none."""
        self._received += len(data)
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is here already."""
        super().on_response_complete()
        if self.cycle.response_complete and self._on_hold is not None:
            self.door.wait(self._on_hold)
            self._await_header()
        else:
            self._look()

    def pause_writing(self) -> None:
        """The peer reads slower than we answer."""
        super().pause_writing()
        _cancel(self._writing)
        self._writing = self.loop.call_later(self.door.patience.answer, self._give_up, "an answer was not read")

    def resume_writing(self) -> None:
        """The peer has read enough for now."""
        super().resume_writing()
        _cancel(self._writing)

    def _look(self) -> None:
        """See whether another request has begun, and whether all of its body is here."""
        if self._on_hold is None or self.cycle is None or self.cycle.response_complete:
            return
        begun, self._request = self._request is not self.cycle, self.cycle
        self._on_hold.waiting = False
        if begun or not self.cycle.more_body:
            _cancel(self._reading)
        if begun and self.cycle.more_body:
            self._reading = self.loop.call_later(self.door.patience.body, self._weigh, self._received)

    def _await_header(self) -> None:
        _cancel(self._reading)
        self._asked = self._received
        self._reading = self.loop.call_later(self.door.patience.header, self._give_up, _NO_REQUEST)

    def _weigh(self, before: int) -> None:
        """A body must bring so many bytes in each span, unless it is we who do not read."""
        if not self.flow.read_paused and self._received - before < _BODY_BYTES:
            self._give_up("a request came too slowly")
            return
        self._reading = self.loop.call_later(self.door.patience.body, self._weigh, self._received)

    def _give_up(self, reason: str) -> None:
        if self._on_hold is None:
            return
        if reason is _NO_REQUEST and self._received == self._asked:
            self.door.leave(self._on_hold)  # a browser opens a connection in advance: nothing to tell
            self.transport.abort()
            return
        self.door.turn_out(self._on_hold, reason)


def guarded(door: Door) -> type[H11Protocol]:
    """The protocol for :class:`uvicorn.Config`, with ``door`` in front."""
    return type("GuardedProtocol", (GuardedProtocol,), {"door": door})


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
