"""Limits on the number of connections and associations, in total and for each address.

Opening a connection costs a peer nothing, so a connection without an association request does not count as an
association. The number of such connections is limited and each has a deadline. If there are too many, the oldest one of
the address with most of them is closed: a real sender requests an association at once.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from config.listener import Listener
from node.dicom.association_policy import LIMIT, LIMIT_OF_ADDRESS, Rejection

Close = Callable[[str], None]
"""Closes a connection for a reason. Must not wait and must not raise."""


@dataclass(slots=True)
class _Connection:
    address: str
    deadline: float
    close: Close
    associated: bool = False


class Connections:
    """The connections of one listener. Safe to share between threads."""

    def __init__(self, limits: Listener, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[Hashable, _Connection] = {}

    def opened(self, key: Hashable, address: str, close: Close, before: Hashable = None) -> None:
        """Add a new connection; if too many have not requested an association, one of them is closed.

        ``before`` is the key under which it was counted until now, during a TLS handshake: its deadline stays.
        """
        with self._lock:
            known = self._open.pop(before, None)
            deadline = self._clock() + self._limits.request_timeout_seconds if known is None else known.deadline
            self._open[key] = _Connection(address, deadline, close)
            surplus = self._surplus()
        if surplus is not None:
            surplus.close("too many connections without an association request")

    def associate(self, key: Hashable) -> Rejection | None:
        """Count a connection as an association; returns a rejection if the limit is reached."""
        with self._lock:
            connection = self._open.get(key)
            addresses = Counter(each.address for each in self._open.values() if each.associated)
            if addresses.total() >= self._limits.maximum_associations:
                return LIMIT
            if connection is None:
                return None
            if addresses[connection.address] >= self._limits.maximum_associations_per_address:
                return LIMIT_OF_ADDRESS
            connection.associated = True
            return None

    def ended(self, key: Hashable) -> None:
        """Remove a connection."""
        with self._lock:
            self._open.pop(key, None)

    def expire(self) -> None:
        """Close every connection that has not requested an association in time."""
        now = self._clock()
        with self._lock:
            late = [key for key, each in self._open.items() if not each.associated and each.deadline <= now]
            closing = [self._open.pop(key) for key in late]
        for connection in closing:
            connection.close(f"no association request within {self._limits.request_timeout_seconds:g} s")

    @property
    def association_count(self) -> int:
        """Number of open associations."""
        with self._lock:
            return sum(each.associated for each in self._open.values())

    def _surplus(self) -> _Connection | None:
        """Remove the oldest unassociated connection of the address with most of them, if there are too many."""
        unassociated = [(key, each) for key, each in self._open.items() if not each.associated]
        if len(unassociated) <= self._limits.maximum_unassociated:
            return None
        [(busiest, _)] = Counter(each.address for _, each in unassociated).most_common(1)
        key = next(key for key, each in unassociated if each.address == busiest)
        return self._open.pop(key)
