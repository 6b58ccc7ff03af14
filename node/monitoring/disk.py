"""When the disk of the store will be full."""

from __future__ import annotations

from config.settings import Store
from db.queries.system import Growth
from node.monitoring.check import Check

_SOON_DAYS = 7


def days_left(free: float, growth: Growth, keep_days: int) -> float | None:
    """Days until ``free`` bytes are full at this pace; None where that is not known or never happens.

    Files are removed ``keep_days`` after they came (0: never). From that age of the node on as much goes as comes.
    """
    if not growth.bytes_per_day:
        return None
    days = max(0.0, free) / growth.bytes_per_day
    return None if keep_days and days > max(0.0, keep_days - growth.age_days) else days


def check_room(free: int, growth: Growth, store: Store) -> Check | None:
    """How long the disk will do at the pace of the last week; None while a node is too young to tell."""
    if growth.bytes_per_day is None:
        return None
    pace = f"{growth.bytes_per_day / 1e9:.2g} GB a day"
    days = days_left(free - store.minimum_free_bytes, growth, store.keep_days)
    if days is None:
        kept = f"; files are removed after {store.keep_days} days" if store.keep_days else ""
        return Check("room", True, f"{pace}{kept}: the disk will do")
    found = f"{pace}: images are refused with 0xA700 in {days:.0f} days"
    return Check("room", days >= _SOON_DAYS, found, "give the store a larger disk, or lower store.keep_days")
