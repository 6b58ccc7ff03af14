"""Studies that a user has viewed lately: a request for an image or the history of one is no further view in the audit
trail.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

_SPAN = timedelta(minutes=30)
_MOST = 2000


class RecentViews:
    """Views that the audit trail has already. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int], datetime] = {}

    def note(self, actor: str, study_id: int, now: datetime) -> bool:
        """Note a view; whether the last one of this user is so long ago that it is another one."""
        key = (actor, study_id)
        with self._lock:
            last = self._seen.pop(key, None)
            self._seen[key] = now
            while len(self._seen) > _MOST:
                del self._seen[next(iter(self._seen))]
        return last is None or abs(now - last) > _SPAN
