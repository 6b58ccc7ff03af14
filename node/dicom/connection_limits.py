"""How many connections and associations there may be at a time, and from whom.

A connection costs nothing to open, so one that has not asked for an association yet never counts against the
associations. There are few of those, each has a deadline, and when there are too many the oldest one of the address
that has most of them makes room: a real sender asks at once, so it is the silent ones that go.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from config.settings import Listener
from node.dicom.association_policy import Rejection

# Result 2: transient. Source 3: DICOM UL service-provider, presentation. Reason 2: local limit exceeded (PS3.8 9.3.4).
LIMIT = Rejection(2, 3, 2, "as many associations are open as are allowed")
LIMIT_OF_ADDRESS = Rejection(2, 3, 2, "as many associations are open from this address as are allowed")

Close = Callable[[str], None]
"""Closes a connection; is told why. Must not wait, and must not raise."""


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

    def opened(self, key: Hashable, address: str, close: Close) -> None:
        """Note a new connection; where there are too many that have not asked yet, one of them is closed."""
        with self._lock:
            self._open[key] = _Connection(address, self._clock() + self._limits.request_seconds, close)
            surplus = self._surplus()
        if surplus is not None:
            surplus.close("it made room: too many connections ask for no association")

    def associate(self, key: Hashable) -> Rejection | None:
        """Count a connection as an association; the rejection where there may be no more of them."""
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
        """Forget a connection."""
        with self._lock:
            self._open.pop(key, None)

    def expire(self) -> None:
        """Close every connection that has not asked for an association in time."""
        now = self._clock()
        with self._lock:
            late = [key for key, each in self._open.items() if not each.associated and each.deadline <= now]
            closing = [self._open.pop(key) for key in late]
        for connection in closing:
            connection.close(f"it asked for no association within {self._limits.request_seconds:g} s")

    @property
    def association_count(self) -> int:
        """How many associations are open."""
        with self._lock:
            return sum(each.associated for each in self._open.values())

    def _surplus(self) -> _Connection | None:
        """Take out the oldest silent connection of the address with most of them, where there are too many."""
        silent = [(key, each) for key, each in self._open.items() if not each.associated]
        if len(silent) <= self._limits.maximum_unassociated:
            return None
        [(busiest, _)] = Counter(each.address for _, each in silent).most_common(1)
        key = next(key for key, each in silent if each.address == busiest)
        return self._open.pop(key)
