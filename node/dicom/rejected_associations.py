"""Counts rejected associations for the admin, and limits how many of them are logged.

Rejecting costs a caller nothing, so neither memory, database nor log grow with what is rejected: callers are counted
here and written every few seconds, and one caller is one line a minute, all of them :data:`LINES_A_MINUTE`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from db.rejected_associations import RejectedAssociation

LINES_A_MINUTE = 60
_MOST_BETWEEN_WRITES = 1000
_MINUTE = 60.0
_PAUSE_SECONDS = 2.0
_LONGEST = 64

Write = Callable[[Sequence[RejectedAssociation]], None]
"""Writes what was counted. Where it raises an SQLAlchemyError it is called again with it later."""

log = logging.getLogger(__name__)


class RejectedAssociations:
    """What was rejected since it was last written. Safe to share between threads."""

    def __init__(
        self,
        write: Write,
        now: Callable[[], datetime],
        elapsed: Callable[[], float] = time.monotonic,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._write = write
        self._now = now
        self._elapsed = elapsed
        self._pause = pause_seconds
        self._lock = threading.Lock()
        self._counted: dict[tuple[str, str, str, str], RejectedAssociation] = {}
        self._logged: set[tuple[str, str, str, str]] = set()
        self._left_out = 0
        self._minute = -_MINUTE
        self._some = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rejected associations", daemon=True)
        self._thread.start()

    def add(self, calling: str, called: str, address: str, reason: str) -> bool:
        """Count a rejection; whether it is to be logged. Titles are printable text."""
        key = (calling[:_LONGEST], called[:_LONGEST], address[:_LONGEST], reason)
        now = self._now()
        with self._lock:
            known = self._counted.get(key)
            if known is not None:
                self._counted[key] = replace(known, count=known.count + 1, last_at=now)
            elif len(self._counted) < _MOST_BETWEEN_WRITES:
                self._counted[key] = RejectedAssociation(*key, 1, now, now)
            logged = self._is_logged(key)
        self._some.set()
        return logged

    def _is_logged(self, key: tuple[str, str, str, str]) -> bool:
        if self._elapsed() - self._minute >= _MINUTE:
            if self._left_out:
                log.warning("%d more rejected associations; the system page lists the callers", self._left_out)
            self._minute, self._left_out = self._elapsed(), 0
            self._logged.clear()
        if key in self._logged or len(self._logged) >= LINES_A_MINUTE:
            self._left_out += 1
            return False
        self._logged.add(key)
        return True

    def write(self) -> None:
        """Write what was counted now; it is kept where that fails."""
        with self._lock:
            counted, self._counted = self._counted, {}
        if not counted:
            return
        try:
            self._write(tuple(counted.values()))
        except SQLAlchemyError as error:
            # A database that does not answer is reported by what cannot do without it; these figures can wait.
            log.debug("rejected associations are not written: %s", type(error).__name__)
            with self._lock:
                for key, one in counted.items():
                    newer = self._counted.get(key)
                    count, last_at = (newer.count, newer.last_at) if newer else (0, one.last_at)
                    self._counted[key] = replace(one, count=one.count + count, last_at=last_at)

    def close(self, seconds: float = 2.0) -> None:
        """Write the rest and end."""
        self._closing.set()
        self._some.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._closing.wait(self._pause)
            self._some.clear()
            self.write()
