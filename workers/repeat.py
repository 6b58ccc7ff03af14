"""Doing something again and again, as the scheduler and the senders of notifications do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0


def repeat_until(stop: threading.Event, once: Callable[[], None], seconds: float) -> None:
    """Call ``once`` every ``seconds`` until ``stop`` is set.

    It must outlive whatever it looks after: an error is written to the log, and the next round comes later.
    """
    pause = seconds
    while not stop.wait(pause):
        try:
            once()
        except Exception:
            pause = min(max(pause, seconds) * 2, _LONGEST_PAUSE_SECONDS)
            log.exception("a round failed; again in %.0f s", pause)
        else:
            pause = seconds
