"""What the system page alone asks: the database server, how deliveries go, and how the store grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, text

from db.states import DeliveryState
from db.tables import Delivery, Instance, Result

_ON_THE_WAY = (DeliveryState.PENDING, DeliveryState.SENDING)
_LATEST_SENT = 5000
_LATEST_STORED = 200_000
_DAY, _WEEK = timedelta(days=1), 7.0
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """The database that runs. ``started_at``: None for SQLite, which is no process of its own."""

    version: str
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryPace:
    """How deliveries to a destination went: objects that it took, attempts for that, and the seconds each needed.

    ``attempts`` includes those of deliveries that it has not taken yet. ``seconds`` count from result to acceptance, in
    rising order.
    """

    sent: int
    attempts: int
    seconds: tuple[float, ...]

    @property
    def success(self) -> float | None:
        """The share of attempts that succeeded; None without an attempt."""
        return min(1.0, self.sent / self.attempts) if self.attempts else None


@dataclass(frozen=True, slots=True)
class OpenDelivery:
    """A delivery that waits or is being sent. ``due_at``: its next attempt, None where that is at once."""

    id: int
    study_id: int
    kind: str
    state: DeliveryState
    attempts: int
    due_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryQueue:
    """What is on its way to a destination: how many, since when the oldest, and the first of them."""

    count: int
    oldest: datetime | None
    first: tuple[OpenDelivery, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """What came into the store: bytes a day, None in the first day of a node, and how many days it has been there."""

    bytes_per_day: float | None
    age_days: float


def growth(connection: Connection, now: datetime) -> Growth:
    """How fast received files and results fill the store, by those of the last week (the latest 200 000 at most)."""
    first = connection.scalar(select(Instance.received_at).order_by(Instance.id).limit(1))
    age = max(0.0, (now - first) / _DAY) if first else 0.0
    if age < 1:
        return Growth(None, age)
    files = _stored(connection, Instance, Instance.received_at, now)
    results = _stored(connection, Result, Result.created_at, now)
    return Growth(sum(number / min(days, age) for number, days in (files, results)), age)


def _stored(connection: Connection, table: Any, at: Any, now: datetime) -> tuple[int, float]:
    """Bytes in the latest rows of the last week, and the days for which they stand."""
    oldest = select(func.max(table.id) - _LATEST_STORED).scalar_subquery()
    query = select(func.coalesce(func.sum(table.byte_count), 0), func.count(), func.min(at))
    number, count, since = connection.execute(query.where(table.id > oldest, at > now - _WEEK * _DAY)).one()
    return int(number), (now - since) / _DAY if count >= _LATEST_STORED else _WEEK


def database_server(connection: Connection) -> DatabaseServer:
    """Name, version and start of the database."""
    dialect = connection.dialect
    number = ".".join(map(str, dialect.server_version_info or ()))
    if dialect.name == "sqlite":
        return DatabaseServer(f"SQLite {number}", None)
    started = connection.scalar(text("SELECT pg_postmaster_start_time()"))
    return DatabaseServer(f"PostgreSQL {number}", started.astimezone(UTC) if started else None)


def delivery_paces(connection: Connection, since: datetime) -> dict[str, DeliveryPace]:
    """How deliveries went after ``since``, for each destination; of those sent, the latest 5000 of all destinations."""
    sent = (
        select(Delivery.destination, Delivery.attempts, Delivery.created_at, Delivery.sent_at)
        .where(Delivery.sent_at > since)
        .order_by(Delivery.sent_at.desc())
        .limit(_LATEST_SENT)
    )
    attempts, seconds = Counter[str](), dict[str, list[float]]()
    for row in connection.execute(sent):
        attempts[row.destination] += max(1, row.attempts)
        seconds.setdefault(row.destination, []).append(max(0.0, (row.sent_at - row.created_at).total_seconds()))
    for destination, number in connection.execute(_unsent(since)):
        attempts[destination] += number
    return {
        name: DeliveryPace(len(seconds.get(name, ())), number, tuple(sorted(seconds.get(name, ()))))
        for name, number in attempts.items()
        if number
    }


def _unsent(since: datetime) -> Any:
    """Attempts of what waits, and of what was given up though it was made after ``since``."""
    states = Delivery.state.in_((DeliveryState.PENDING, DeliveryState.FAILED))
    query = select(Delivery.destination, func.sum(Delivery.attempts)).where(states, Delivery.created_at > since)
    return query.group_by(Delivery.destination)


def delivery_queue(connection: Connection, destination: str) -> DeliveryQueue:
    """What is on its way to ``destination``, in the order in which it was made."""
    mine = (Delivery.destination == destination, Delivery.state.in_(_ON_THE_WAY))
    count, oldest = connection.execute(select(func.count(), func.min(Delivery.created_at)).where(*mine)).one()
    columns = (Delivery.id, Delivery.study_id, Result.kind, Delivery.state, Delivery.attempts, Delivery.due_at)
    query = select(*columns, Delivery.created_at).join(Result, Result.id == Delivery.result_id).where(*mine)
    rows: Sequence[Any] = connection.execute(query.order_by(Delivery.id).limit(_SHOWN)).all() if count else ()
    return DeliveryQueue(count, oldest, tuple(OpenDelivery(*row) for row in rows))
