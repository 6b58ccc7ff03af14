"""Which connection is closed when a limit is reached: pure decisions about the open connections.

Idle connections cannot block active senders. Connections that have not sent a message have a small limit of their own,
and a new one replaces the oldest. The others are limited in total and for each address, and the one that has been idle
longest is closed first: an HL7 sender connects again when it has a message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class ConnectionState:
    """A connection. ``since``: when it was opened or sent its last complete message, in seconds of any clock.

    ``has_sent``: it has sent a message. ``busy``: one of its messages is being processed.
    """

    address: str
    since: float
    has_sent: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum numbers of connections that have not sent a message, that have, and that have from one address."""

    waiting: int
    active: int
    per_address: int


def connection_to_close(
    connections: Collection[ConnectionState], newest: ConnectionState, limits: Limits
) -> ConnectionState | None:
    """The connection to close because ``newest``, one of ``connections``, was opened or sent its first message.

    It is one of the same kind; among those without a message it is one of the address with most of them. It is
    ``newest`` itself if all others are busy. None: no limit is reached.
    """
    same = [connection for connection in connections if connection.has_sent == newest.has_sent]
    same_address = [connection for connection in same if connection.address == newest.address]
    if newest.has_sent and len(same_address) > limits.per_address:
        return _longest_idle(same_address, newest)
    if len(same) <= (limits.active if newest.has_sent else limits.waiting):
        return None
    if newest.has_sent:
        return _longest_idle(same, newest)
    counts = Counter(connection.address for connection in same)
    return _longest_idle(
        [connection for connection in same if counts[connection.address] == max(counts.values())], newest
    )


def _longest_idle(connections: Collection[ConnectionState], newest: ConnectionState) -> ConnectionState:
    idle = [connection for connection in connections if not connection.busy and connection is not newest]
    return min(idle, key=lambda connection: connection.since, default=newest)
