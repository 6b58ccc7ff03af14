"""Trends for the system page: each range is counted once a minute at most, by one caller at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from functools import partial

from db.database import Database
from db.queries.statistics import TABLE_REST, Remembered
from db.queries.trends import Trends, trends
from node.web.time_charts import RANGES, Range, intervals_of


class TrendCache:
    """Counts a range when it is requested; intervals begin at round times of ``zone``."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        zone: tzinfo,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._clock, self._zone = database, clock, zone
        self._known = {
            name: Remembered(partial(self._count, shown), elapsed, rest=TABLE_REST) for name, shown in RANGES.items()
        }

    def of(self, shown: Range) -> Trends:
        """The figures of a range, a minute old at most, or twenty times as long as counting took."""
        return self._known[shown.name].get()

    def _count(self, shown: Range) -> Trends:
        return self._database.read(trends, intervals_of(shown, self._clock(), self._zone))
