"""Periodic calls in threads, for the scheduler and the senders of notifications."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError

from workers.errors import database_problem

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0


def repeat_until(stop: threading.Event, once: Callable[[], None], seconds: float, name: str = "") -> None:
    """Call ``once`` every ``seconds`` until ``stop`` is set; ``name`` says whose rounds they are, else the thread does.

    It must outlive whatever it looks after: an error is written to the log, and the next round comes later.
    """
    pause = seconds
    while not stop.wait(pause):
        try:
            once()
        except Exception as error:
            pause = min(max(pause, seconds) * 2, _LONGEST_PAUSE_SECONDS)
            if isinstance(error, OperationalError):  # no fault of this code: a sentence instead of a traceback
                whose, reason = name or threading.current_thread().name, database_problem(error)
                log.error("a round of %s failed: %s; again in %.0f s", whose, reason, pause)
            else:
                log.exception("a round failed; again in %.0f s", pause)
        else:
            pause = seconds


@contextmanager
def repeating(stop: threading.Event, rounds: Mapping[str, Callable[[], None]], seconds: float) -> Iterator[None]:
    """Repeat each of ``rounds`` in a thread of its name until the block ends, which sets ``stop`` and joins them."""
    threads = [
        threading.Thread(target=repeat_until, args=(stop, once, seconds), name=name) for name, once in rounds.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
