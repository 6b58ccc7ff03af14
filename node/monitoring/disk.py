"""How long the disk of the store will do."""

from __future__ import annotations

from db.queries.system import Growth


def days_left(free: float, growth: Growth, keep_days: int) -> float | None:
    """Days until ``free`` bytes are full at this pace; None where that is not known or never happens.

    Files are removed ``keep_days`` after they came (0: never). From that age of the node on as much goes as comes.
    """
    if not growth.bytes_per_day:
        return None
    days = max(0.0, free) / growth.bytes_per_day
    return None if keep_days and days > max(0.0, keep_days - growth.age_days) else days
