"""How a node did over a span of time, in equal intervals: images, jobs and deliveries, and how long these took.

Each query reads a range of an index, by the time at which something happened, and no more than that range. Latencies
are of a sample of it where there are more than :data:`SAMPLE`: every n-th row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Integer, Row, cast, extract, func, select

from db.states import JobState
from db.tables import Delivery, Instance, Job

SAMPLE = 10_000


@dataclass(frozen=True, slots=True)
class Intervals:
    """``count`` intervals of ``step``, the first of which begins at ``first`` (aware)."""

    first: datetime
    step: timedelta
    count: int

    @property
    def end(self) -> datetime:
        """Where the last one ends."""
        return self.first + self.count * self.step

    def index(self, moment: datetime) -> int:
        """The interval of a moment between ``first`` and ``end``."""
        return int((moment - self.first) // self.step)


@dataclass(frozen=True, slots=True)
class Trends:
    """Figures an interval. ``waited`` (jobs from arrival) and ``sent`` (deliveries from result) are sorted seconds."""

    intervals: Intervals
    images: tuple[int, ...]
    analysed: tuple[int, ...]
    failed: tuple[int, ...]
    waited: tuple[tuple[float, ...], ...]
    sent: tuple[tuple[float, ...], ...]


def trends(connection: Connection, intervals: Intervals) -> Trends:
    """What happened in ``intervals``."""
    images = _counts(connection, intervals, Instance.received_at)
    ended = _counts(connection, intervals, Job.finished_at, Job.state)
    delivered = _counts(connection, intervals, Delivery.sent_at)
    analysed, failed = (_numbers(intervals, ended, state) for state in (JobState.DONE, JobState.FAILED))
    jobs_step, deliveries_step = _every(sum(analysed)), _every(sum(delivered.values()))
    jobs = _sample(connection, intervals, Job, Job.finished_at, jobs_step, Job.state)
    sent = _sample(connection, intervals, Delivery, Delivery.sent_at, deliveries_step)
    return Trends(
        intervals,
        _numbers(intervals, images),
        analysed,
        failed,
        _seconds(intervals, (row for row in jobs if row.state is JobState.DONE)),
        _seconds(intervals, sent),
    )


def _every(count: int) -> int:
    return -(-count // SAMPLE) or 1


def _within(intervals: Intervals, at: Any) -> tuple[Any, Any]:
    return at >= intervals.first, at < intervals.end


def _counts(connection: Connection, intervals: Intervals, at: Any, *by: Any) -> dict[tuple[Any, ...], int]:
    """How many rows each interval has, ``by`` something else, too.

    It is no condition: SQLite would rather look up all rows of a state than those of a span.
    """
    seconds = (extract("epoch", at) - int(intervals.first.timestamp())) / int(intervals.step.total_seconds())
    # SQLite casts by cutting off, and may have no floor(); PostgreSQL casts by rounding.
    whole = seconds if connection.dialect.name == "sqlite" else func.floor(seconds)
    index = cast(whole, Integer).label("interval")
    query = select(index, *by, func.count()).where(*_within(intervals, at)).group_by(index, *by)
    return {tuple(key): number for *key, number in connection.execute(query)}


def _numbers(intervals: Intervals, counts: Mapping[tuple[Any, ...], int], *by: Any) -> tuple[int, ...]:
    return tuple(counts.get((number, *by), 0) for number in range(intervals.count))


def _sample(
    connection: Connection, intervals: Intervals, table: Any, at: Any, step: int, *more: Any
) -> Sequence[Row[Any]]:
    """Every ``step``-th row of the span, with when it was made and when it ended."""
    columns = (at.label("ended"), table.created_at.label("began"), *more)
    return connection.execute(select(*columns).where(*_within(intervals, at), table.id % step == 0)).all()


def _seconds(intervals: Intervals, rows: Iterable[Row[Any]]) -> tuple[tuple[float, ...], ...]:
    """How long the rows of each interval took, sorted."""
    found: list[list[float]] = [[] for _ in range(intervals.count)]
    for row in rows:
        found[intervals.index(row.ended)].append(max(0.0, (row.ended - row.began).total_seconds()))
    return tuple(tuple(sorted(values)) for values in found)
