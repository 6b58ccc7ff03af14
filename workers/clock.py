"""The node's only clocks: composition roots pass them on, and tests pass their own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo

Clock = Callable[[], datetime]
"""Says what time it is: an aware ``datetime`` in UTC."""

Elapsed = Callable[[], float]
"""Seconds since some fixed moment, never running backwards; only differences mean something."""


def utc_now() -> datetime:
    """The time of day, aware and in UTC."""
    return datetime.now(UTC)


def for_people(at: datetime, zone: tzinfo, *, seconds: bool = False) -> str:
    """A time in the site's time zone, which it names: ``2026-01-31 14:05 CET``."""
    return f"{at.astimezone(zone):{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'} %Z}"
