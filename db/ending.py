"""That a process is to end: from then on it waits no longer for a database than for a few seconds.

A server that hangs would hold up each of the last statements for as long as any other, and whoever looks after the
process kills it before they are through.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

LAST_SECONDS = 5.0
"""So long a statement may take that runs when the process is to end, or begins afterwards."""


@dataclass
class Ending:
    """Of one process, by its monotonic clock; set by its handlers of signals."""

    since: float | None = None

    def begin(self) -> None:
        """The process is to end now."""
        if self.since is None:
            self.since = time.monotonic()

    def is_over(self, begun: float, seconds: float) -> bool:
        """Whether a wait that has ``begun`` then and may take so many ``seconds`` has taken too long."""
        if self.since is not None:
            seconds = min(seconds, max(self.since - begun, 0.0) + LAST_SECONDS)
        return time.monotonic() - begun > seconds


OF_THIS_PROCESS = Ending()
