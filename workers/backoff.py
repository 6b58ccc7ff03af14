"""How long to wait before something is tried again."""

from __future__ import annotations

from datetime import timedelta

from config.settings import Settings


def growing_wait(waited: timedelta, settings: Settings) -> timedelta:
    """Wait before the next try of what has ``waited`` for something that may be away for long: half as long again.

    Bounded like :func:`backoff`; nothing has to count the tries.
    """
    workers = settings.workers
    seconds = max(workers.backoff_seconds, waited.total_seconds() / 2)
    return timedelta(seconds=min(seconds, workers.maximum_backoff_seconds))


def backoff(attempts: int, settings: Settings) -> timedelta:
    """Wait after the attempt with number ``attempts`` (from 1): doubling, up to a limit."""
    workers = settings.workers
    # The exponent is bounded so that a large number of attempts does not overflow.
    seconds = workers.backoff_seconds * 2.0 ** min(attempts - 1, 32)
    return timedelta(seconds=min(seconds, workers.maximum_backoff_seconds))
