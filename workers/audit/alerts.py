"""Security alerts that any caller of a port can cause: limited in number, since entries of the audit trail are
permanent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

_HOUR = 3600.0
MOST_AN_HOUR = 60


class AlertLimit:
    """Lets the first of a kind through, then one an hour with what has come meanwhile, and 60 an hour in all. Safe to
    share between threads."""

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._since = elapsed()
        self._alerts = 0
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def admit(self, kind: Hashable, count: int) -> int:
        """How many of ``kind`` an alert of this moment has, ``count`` new ones included; 0: no alert yet."""
        with self._lock:
            return self._admit(kind, count)

    def _admit(self, kind: Hashable, count: int) -> int:
        now = self._elapsed()
        if now - self._since >= _HOUR:
            self._since, self._alerts = now, 0
            # What is not waited for any more is forgotten, so that made-up kinds fill no memory.
            self._kinds = {one: kept for one, kept in self._kinds.items() if now - kept[0] < _HOUR or kept[1]}
        last_at, waiting = self._kinds.get(kind, (now - _HOUR, 0))
        waiting += count
        known = kind in self._kinds
        if now - last_at < _HOUR or self._alerts >= MOST_AN_HOUR:
            if known or len(self._kinds) < 10 * MOST_AN_HOUR:
                self._kinds[kind] = (last_at, waiting)
            return 0
        self._kinds[kind] = (now, 0)
        self._alerts += 1
        return waiting
