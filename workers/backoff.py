"""How long to wait before something is tried again."""

from __future__ import annotations

from datetime import timedelta

from config.settings import Settings


def backoff(attempts: int, settings: Settings) -> timedelta:
    """Wait after the attempt with number ``attempts`` (from 1): doubling, up to a limit."""
    workers = settings.workers
    # The exponent is bounded so that a large number of attempts does not overflow.
    seconds = workers.backoff_seconds * 2.0 ** min(attempts - 1, 32)
    return timedelta(seconds=min(seconds, workers.maximum_backoff_seconds))
