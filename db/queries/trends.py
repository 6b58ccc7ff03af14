"""How a node did over a span of time, in equal intervals: images, jobs and deliveries, and how long these took.

Each query reads a range of an index, by the time at which something happened, and no more than that range. Latencies
are of a sample of it where there are more than :data:`SAMPLE`: every n-th row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Integer, cast, extract, func, select

from db.records import JobState
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
    """Figures an interval. ``waited`` and ``sent`` are sorted seconds: of jobs from arrival, of deliveries from result.

    ``sampled``: how many of the jobs and deliveries each of those stands for.
    """

    intervals: Intervals
    images: tuple[int, ...]
    analysed: tuple[int, ...]
    failed: tuple[int, ...]
    waited: tuple[tuple[float, ...], ...]
    sent: tuple[tuple[float, ...], ...]
    sampled: int = 1


def trends(connection: Connection, intervals: Intervals) -> Trends:
    """What happened in ``intervals``."""
    images = _counts(connection, intervals, Instance.received_at)
    analysed = _counts(connection, intervals, Job.finished_at, Job.state == JobState.DONE)
    failed = _counts(connection, intervals, Job.finished_at, Job.state == JobState.FAILED)
    delivered = _counts(connection, intervals, Delivery.sent_at)
    jobs_step, deliveries_step = _every(sum(analysed)), _every(sum(delivered))
    done = (Job.state == JobState.DONE, Job.id % jobs_step == 0)
    return Trends(
        intervals,
        images,
        analysed,
        failed,
        _seconds(connection, intervals, Job.finished_at, Job.created_at, *done),
        _seconds(connection, intervals, Delivery.sent_at, Delivery.created_at, Delivery.id % deliveries_step == 0),
        max(jobs_step, deliveries_step),
    )


def _every(count: int) -> int:
    return -(-count // SAMPLE) or 1


def _within(intervals: Intervals, at: Any) -> tuple[Any, Any]:
    return at >= intervals.first, at < intervals.end


def _counts(connection: Connection, intervals: Intervals, at: Any, *where: Any) -> tuple[int, ...]:
    """How many rows of each interval."""
    seconds = (extract("epoch", at) - int(intervals.first.timestamp())) / int(intervals.step.total_seconds())
    # SQLite casts by cutting off, and may have no floor(); PostgreSQL casts by rounding.
    whole = seconds if connection.dialect.name == "sqlite" else func.floor(seconds)
    index = cast(whole, Integer).label("interval")
    query = select(index, func.count().label("number")).where(*_within(intervals, at), *where).group_by(index)
    found = {row.interval: row.number for row in connection.execute(query)}
    return tuple(found.get(number, 0) for number in range(intervals.count))


def _seconds(
    connection: Connection, intervals: Intervals, at: Any, since: Any, *where: Any
) -> tuple[tuple[float, ...], ...]:
    """How long rows of each interval took from ``since``, sorted."""
    found: list[list[float]] = [[] for _ in range(intervals.count)]
    rows: Sequence[Any] = connection.execute(select(at, since).where(*_within(intervals, at), *where)).all()
    for ended, began in rows:
        found[intervals.index(ended)].append(max(0.0, (ended - began).total_seconds()))
    return tuple(tuple(sorted(values)) for values in found)
