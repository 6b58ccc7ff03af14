"""Throughput and latency over a chosen span, for the system page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from node.web.formatting import Formatting
from node.web.middleware import RequestContext
from node.web.time_charts import (
    DEFAULT,
    RANGES,
    CountChart,
    LatencyChart,
    Range,
    Row,
    counts,
    label_times,
    latencies,
    table,
)


@dataclass(frozen=True, slots=True)
class ShownTrends:
    """What the page draws; ``names`` are the intervals in words, ``labels`` stand below the charts."""

    shown: Range
    ranges: tuple[str, ...]
    step: float
    names: tuple[str, ...]
    labels: tuple[str, ...]
    images: CountChart
    jobs: CountChart
    results: LatencyChart
    sendings: LatencyChart
    rows: tuple[Row, ...]


def shown_trends(context: RequestContext) -> ShownTrends:
    """The charts of the range that the request names, those of a day where it names none."""
    shown, written = RANGES.get(context.query("range"), DEFAULT), context.formatting
    found = context.services.trends.of(shown)
    starts = [found.intervals.first + number * found.intervals.step for number in range(found.intervals.count)]
    return ShownTrends(
        shown,
        tuple(RANGES),
        shown.step.total_seconds(),
        tuple(_name(start, shown, written) for start in starts),
        tuple(_name(at, shown, written, short=True) for at in label_times(found.intervals, shown)),
        counts(found.images),
        counts(found.analysed, found.failed),
        latencies(found.waited),
        latencies(found.sent),
        table(found),
    )


def _name(at: datetime, shown: Range, written: Formatting, *, short: bool = False) -> str:
    """A moment as far as it matters in a range: the time in a day, the day in a month."""
    if shown.days <= 1:
        return written.plain_clock(at)
    day = written.short_day(at)
    return day if short or shown.in_days else f"{day} {written.plain_clock(at)}"
