"""What a monitor asks every few seconds: what waits, and what has ended since. No query reads a whole table.

Rows of the last minutes come again each time, because one transaction may commit later than another that began after
it, and clocks of machines differ. :class:`node.monitoring.metrics.Follower` counts each once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from db.order_tables import NotificationRow, NotificationState
from db.states import JOBS, WAITS_FOR_SERVER, DeliveryState, JobState
from db.tables import Delivery, Instance, Job

_LATEST_INSTANCES = 20_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many rows of a queue wait, and since when the oldest does."""

    count: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Arrived:
    """An instance that was received. ``code`` is empty if it is eligible."""

    key: int
    at: datetime
    code: str


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that ended. ``code`` is empty if the image was analysed; a revision is an end of its own."""

    key: tuple[int, int]
    at: datetime
    state: JobState
    code: str
    queued_at: datetime
    started_at: datetime
    timings: dict[str, float]


@dataclass(frozen=True, slots=True)
class SentObject:
    """A delivery that its destination has taken; sent again, it is taken again."""

    key: tuple[int, datetime]
    at: datetime
    destination: str
    created_at: datetime


def waiting(connection: Connection, analysis: Iterable[str] = (JOBS,)) -> dict[str, Waiting]:
    """What waits in each queue: those of the ``analysis``, every other one in which jobs wait, and the rest."""
    count, oldest = func.count(), func.min(Job.created_at)
    jobs = select(Job.queue, count, oldest).where(Job.state.in_((JobState.QUEUED, JobState.RETRYING)))
    found = dict.fromkeys(analysis, Waiting(0, None))
    found |= {name: Waiting(number, since) for name, number, since in connection.execute(jobs.group_by(Job.queue))}
    queues: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "deliveries": (Delivery, (DeliveryState.PENDING,)),
        "notifications": (NotificationRow, (NotificationState.PENDING,)),
    }
    for name, (table, states) in queues.items():
        row = connection.execute(select(func.count(), func.min(table.created_at)).where(table.state.in_(states))).one()
        found[name] = Waiting(*row)
    return found


def waiting_for_model_server(connection: Connection) -> int:
    """How many jobs wait because the server of a network cannot be asked."""
    retrying = Job.state == JobState.RETRYING
    query = select(func.count()).select_from(Job).where(retrying, Job.error.startswith(WAITS_FOR_SERVER))
    return int(connection.scalar(query) or 0)


def arrived(connection: Connection, since: datetime) -> tuple[Arrived, ...]:
    """Instances received after ``since``, looked for among the latest ones, as rows go by time."""
    latest = select(func.max(Instance.id) - _LATEST_INSTANCES).scalar_subquery()
    query = select(Instance.id, Instance.received_at, Instance.not_eligible_code)
    rows = connection.execute(query.where(Instance.id > latest, Instance.received_at > since))
    return tuple(Arrived(*row) for row in rows)


def ended_jobs(connection: Connection, since: datetime) -> tuple[EndedJob, ...]:
    """Jobs that were done or failed after ``since``."""
    query = select(
        Job.id,
        Job.revision,
        Job.finished_at,
        Job.state,
        Job.not_analysed_code,
        Job.queued_at,
        func.coalesce(Job.started_at, Job.queued_at),
        Job.timings,
    ).where(Job.finished_at > since)
    # The state is no condition: SQLite would rather look up every job that was ever done.
    rows: Iterable[Any] = connection.execute(query)
    ended = (EndedJob((key, revision), *rest) for key, revision, *rest in rows)
    return tuple(one for one in ended if one.state in (JobState.DONE, JobState.FAILED))


def sent_objects(connection: Connection, since: datetime) -> tuple[SentObject, ...]:
    """Deliveries that were sent after ``since``."""
    query = select(Delivery.id, Delivery.sent_at, Delivery.destination, Delivery.created_at)
    rows: Iterable[Any] = connection.execute(query.where(Delivery.sent_at > since))
    return tuple(SentObject((key, at), at, *rest) for key, at, *rest in rows)
