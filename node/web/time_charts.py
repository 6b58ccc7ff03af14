"""Charts over time for inline SVG: what to draw of :class:`db.queries.trends.Trends`, with axes in round numbers.

Bars and lines are in units of the viewBox. Labels stand at equal distances, so that a page can set them as text beside
the picture, in its own size, without a style of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from db.queries.trends import Intervals, Trends
from node.web.charts import HEIGHT, WIDTH, height_of, nice_top, quantile

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Range:
    """A span that the system page can show: ``count`` intervals of ``step``, with ``labels`` spaces below them."""

    name: str
    step: timedelta
    count: int
    labels: int

    @property
    def days(self) -> float:
        """Its length in days."""
        return self.step * self.count / _DAY

    @property
    def in_days(self) -> bool:
        """Whether its intervals are whole days."""
        return self.step >= _DAY


RANGES = {
    one.name: one
    for one in (
        Range("1h", 2 * _MINUTE, 30, 6),
        Range("24h", 30 * _MINUTE, 48, 6),
        Range("7d", 4 * _HOUR, 42, 7),
        Range("30d", _DAY, 30, 6),
        Range("90d", _DAY, 90, 6),
    )
}
DEFAULT = RANGES["24h"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A bar, or a point without width and height, in units of the viewBox, with its interval and its value."""

    x: float
    y: float
    index: int
    value: float
    width: float = 0
    height: float = 0


@dataclass(frozen=True, slots=True)
class Axis:
    """The vertical axis: its upper end, its labels from top to bottom with their unit, and where gridlines are."""

    top: float
    labels: tuple[float, ...]
    unit: str
    lines: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CountChart:
    """Numbers an interval as bars: all, and on top of each, in another look, the ``worse`` part of it."""

    axis: Axis
    bars: tuple[Mark, ...]
    worse: tuple[Mark, ...]
    total: int
    worse_total: int


@dataclass(frozen=True, slots=True)
class LatencyChart:
    """Median and 95th percentile an interval, as paths with gaps where nothing happened; both of the whole span."""

    axis: Axis
    median_path: str
    p95_path: str
    points: tuple[Mark, ...]
    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class Row:
    """One interval of the table behind the charts; latencies are in seconds, None where nothing happened."""

    begins_at: datetime
    images: int
    analysed: int
    failed: int
    result_median: float | None
    result_p95: float | None
    delivery_median: float | None
    delivery_p95: float | None


def intervals_of(shown: Range, now: datetime, zone: tzinfo = UTC) -> Intervals:
    """The intervals of a range up to ``now``: they begin at round times of ``zone``, days at its midnight.

    The last one is not over yet. A day on which the clocks change is taken as 24 hours.
    """
    local = now.astimezone(zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    passed = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second)
    begun = midnight + shown.step * int(passed // shown.step)
    return Intervals(begun.astimezone(UTC) - shown.step * (shown.count - 1), shown.step, shown.count)


def label_times(intervals: Intervals, shown: Range) -> tuple[datetime, ...]:
    """The moments that are written below a chart, at equal distances from its left edge to its right."""
    span = intervals.step * intervals.count
    return tuple(intervals.first + span * place / shown.labels for place in range(shown.labels + 1))


def counts(values: Sequence[int], worse: Sequence[int] = ()) -> CountChart:
    """Draw ``values``, with ``worse`` on top of them."""
    worse = worse or (0,) * len(values)
    axis = _axis(max((one + other for one, other in zip(values, worse, strict=True)), default=0), whole=True)
    width = WIDTH / max(len(values), 1)

    def bar(index: int, below: int, count: int) -> Mark:
        height, base = HEIGHT * count / axis.top, HEIGHT * (1 - below / axis.top)
        return Mark(
            round((index + 0.12) * width, 2),
            round(base - height, 2),
            index,
            count,
            round(width * 0.76, 2),
            round(height, 2),
        )

    return CountChart(
        axis,
        tuple(bar(index, 0, count) for index, count in enumerate(values)),
        tuple(bar(index, values[index], count) for index, count in enumerate(worse) if count),
        sum(values),
        sum(worse),
    )


def latencies(seconds: Sequence[Sequence[float]]) -> LatencyChart:
    """Draw sorted ``seconds`` of each interval; the axis ends at the highest 95th percentile."""
    every = sorted(value for values in seconds for value in values)
    medians = [quantile(values, 0.5) if values else None for values in seconds]
    highs = [quantile(values, 0.95) if values else None for values in seconds]
    axis = _seconds_axis(max((value for value in highs if value is not None), default=0.0))
    top = axis.top * _UNITS[axis.unit]
    return LatencyChart(
        axis,
        _path(medians, top),
        _path(highs, top),
        tuple(_points(medians, top)),
        quantile(every, 0.5),
        quantile(every, 0.95),
    )


def table(found: Trends) -> tuple[Row, ...]:
    """The figures of the charts, an interval a row, the latest first."""

    def at(values: Sequence[float], share: float) -> float | None:
        return quantile(values, share) if values else None

    rows = tuple(
        Row(
            found.intervals.first + number * found.intervals.step,
            found.images[number],
            found.analysed[number],
            found.failed[number],
            at(found.waited[number], 0.5),
            at(found.waited[number], 0.95),
            at(found.sent[number], 0.5),
            at(found.sent[number], 0.95),
        )
        for number in range(found.intervals.count)
    )
    return rows[::-1]


_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def _seconds_axis(highest: float) -> Axis:
    """An axis in seconds, minutes or hours, whichever gives numbers below about two hundred."""
    name, unit = next(((name, unit) for name, unit in _UNITS.items() if highest < 120 * unit), ("h", 3600.0))
    return _axis(highest / unit, unit=name)


def _axis(highest: float, *, whole: bool = False, unit: str = "") -> Axis:
    """Up to the next 1, 2 or 5 times a power of ten, in four or five equal parts; fewer where these would be halves."""
    top = nice_top(highest)
    leading = int(f"{top:e}"[0])
    parts = 4 if leading == 2 else 5
    if whole and top < parts:
        parts = int(top)
    places = tuple(round(HEIGHT * part / parts, 2) for part in range(parts + 1))
    numbers = tuple(top * (parts - part) / parts for part in range(parts + 1))
    return Axis(top, numbers, unit, places)


def _place(index: int, count: int, value: float, top: float) -> tuple[float, float]:
    return round(WIDTH * (index + 0.5) / count, 2), height_of(value, top)


def _points(values: Sequence[float | None], top: float) -> list[Mark]:
    """A mark for each interval with a value: an interval between two empty ones has no line."""
    return [
        Mark(*_place(index, len(values), value, top), index, value)
        for index, value in enumerate(values)
        if value is not None
    ]


def _path(values: Sequence[float | None], top: float) -> str:
    """An SVG path through the values that are there; each gap begins a new line."""
    steps, drawing = [], False
    for index, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        x, y = _place(index, len(values), value, top)
        steps.append(f"{'L' if drawing else 'M'}{x:g} {y:g}")
        drawing = True
    return " ".join(steps)
