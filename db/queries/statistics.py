"""Figures about the node itself for the system page and for Prometheus: queues, pace, workers, errors, news."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine, func, select

from db.order_tables import NotificationRow, NotificationState
from db.queries.worklist import Worklist, WorklistPart
from db.states import DeliveryState, JobState
from db.tables import Delivery, Destination, Event, Finding, Instance, Job, Model, Study

T = TypeVar("T")

REMEMBERED_SECONDS = 60.0
TABLE_REST = 20
"""For figures over whole tables: a twentieth of the time at most is spent on counting."""

_NEWS_LIMIT = 200
_ENDED: dict[type[StrEnum], frozenset[Any]] = {
    JobState: frozenset({JobState.DONE, JobState.WITHDRAWN}),
    DeliveryState: frozenset(
        {DeliveryState.SENT, DeliveryState.VERIFIED, DeliveryState.RECORDED, DeliveryState.WITHDRAWN}
    ),
    NotificationState: frozenset({NotificationState.SENT, NotificationState.WITHDRAWN}),
}
"""States in which rows come to rest: nearly all rows of a table are in them."""


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """One job that came to its end: when, how long it waited from arrival, and how long each stage took (seconds)."""

    at: datetime
    waited: float
    ran: float
    failed: bool
    timings: dict[str, float]


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A worker, what it is doing, when it was last seen at the end of a job, and where its networks ran then."""

    name: str
    job_id: int | None
    since: datetime | None
    finished: int
    last_at: datetime | None
    device: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that waits for a person: a job or a delivery."""

    entity: str
    id: int
    study_id: int
    state: str
    error: str
    at: datetime
    attempts: int
    destination: str = ""


@dataclass(frozen=True, slots=True)
class DestinationState:
    """How it stands with a destination; ``counts`` are deliveries by state.

    ``failures`` are calls in a row without an answer; until ``open_until`` it is not called (the circuit breaker).
    """

    name: str
    last_sent_at: datetime | None
    last_failed_at: datetime | None
    last_error: str
    counts: dict[str, int]
    failures: int = 0
    open_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ModelUseRow:
    """A model version that has analysed images here. ``positives`` counts findings that were present."""

    name: str
    version: str
    first_used_at: datetime
    findings: int
    positives: int


class Remembered(Generic[T]):
    """What is found out anew where it is older than a minute, by one caller at a time.

    Pages that many people have open, and a monitor that asks every few seconds, would count all rows of a table each
    time. Where that takes long, a minute is too short as well: ``rest`` times as long as it took, it is kept.
    """

    def __init__(self, count: Callable[[], T], elapsed: Callable[[], float], *, rest: float = 0) -> None:
        self._rest = rest
        self._count = count
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._known: tuple[float, T] | None = None

    def get(self) -> T:
        """The figure, a minute old at most, or ``rest`` times as long as counting took."""
        with self._lock:
            began = self._elapsed()
            if self._known is None or began >= self._known[0]:
                figure = self._count()
                kept = max(REMEMBERED_SECONDS, self._rest * (self._elapsed() - began))
                self._known = (began + kept, figure)
            return self._known[1]


class _CountsByState:
    """Rows by some columns and their state: what may still move is counted now, what is complete is remembered."""

    def __init__(
        self, engine: Engine, state: Any, kinds: type[StrEnum], elapsed: Callable[[], float], *by: Any
    ) -> None:
        self._engine = engine
        self._state = state
        self._by = by
        ended = _ENDED[kinds]
        self._moving = [kind for kind in kinds if kind not in ended]
        self._ended = Remembered(lambda: self._count(sorted(ended)), elapsed, rest=TABLE_REST)

    def get(self) -> list[tuple[Any, ...]]:
        """The columns, the state and how many rows."""
        return self._count(self._moving) + self._ended.get()

    def _count(self, states: Sequence[Any]) -> list[tuple[Any, ...]]:
        query = select(*self._by, self._state, func.count()).where(self._state.in_(states))
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(query.group_by(*self._by, self._state))]


class Statistics:
    """Reads figures; no method counts a whole table each time that it is called."""

    def __init__(self, engine: Engine, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._jobs = _CountsByState(engine, Job.state, JobState, elapsed)
        by_destination = (Delivery.state, DeliveryState, elapsed, Delivery.destination)
        self._deliveries = _CountsByState(engine, *by_destination)
        by_channel = (NotificationRow.state, NotificationState, elapsed, NotificationRow.channel)
        self._notifications = _CountsByState(engine, *by_channel)
        self._findings = Remembered(self._count_findings, elapsed, rest=TABLE_REST)
        self._unread = Remembered(Worklist(engine).counts, elapsed, rest=TABLE_REST)

    def _all(self, query: Any) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(query).all()

    def news(self, after: int | None) -> tuple[int, tuple[int, ...]]:
        """Number of the latest event, and the studies with events later than ``after`` (none where it is None)."""
        if after is None:
            return int(self._all(select(func.coalesce(func.max(Event.id), 0)))[0][0]), ()
        query = select(Event.id, Event.study_id).where(Event.id > after).order_by(Event.id).limit(_NEWS_LIMIT)
        rows = self._all(query)
        return (rows[-1].id if rows else after), tuple(dict.fromkeys(row.study_id for row in rows))

    def finished_jobs(self, since: datetime, limit: int = 5000) -> tuple[FinishedJob, ...]:
        """Jobs that ended after ``since``, the oldest first."""
        # The state is no condition: SQLite would rather look up every job that was ever done.
        query = (
            select(Job.finished_at, Job.created_at, Job.started_at, Job.state, Job.timings)
            .where(Job.finished_at > since)
            .order_by(Job.finished_at.desc())
            .limit(limit)
        )
        return tuple(
            FinishedJob(
                at=row.finished_at,
                waited=max(0.0, (row.finished_at - row.created_at).total_seconds()),
                ran=max(0.0, (row.finished_at - (row.started_at or row.created_at)).total_seconds()),
                failed=row.state is JobState.FAILED,
                timings=dict(row.timings or {}),
            )
            for row in reversed(self._all(query))
            if row.state in (JobState.DONE, JobState.FAILED)
        )

    def queue_counts(self) -> dict[str, int]:
        """Count jobs and deliveries by state, as the worklist does; what is complete is remembered."""
        counts: Counter[str] = Counter()
        for state, number in self._jobs.get():
            counts[f"jobs.{state.value}"] += number
        for _, state, number in self._deliveries.get():
            counts[f"deliveries.{state.value}"] += number
        return dict(counts)

    def unreported(self) -> dict[WorklistPart, int]:
        """How many unreported studies each part of the worklist holds; remembered.

        Where the node does not learn what is reported, that is every study.
        """
        return self._unread.get()

    def notifications(self, channels: Sequence[str]) -> dict[str, dict[str, int]]:
        """How many notifications of each of these channels are in each state."""
        counts: dict[str, dict[str, int]] = {name: {} for name in channels}
        for channel, state, number in self._notifications.get():
            if channel in counts:
                counts[channel][state.value] = number
        return counts

    def arrivals(self, since: datetime, limit: int = 20_000) -> tuple[datetime, ...]:
        """When instances arrived after ``since``: looked for among the latest ``limit``, as rows go by time."""
        latest = select(func.max(Instance.id) - limit).scalar_subquery()
        query = select(Instance.received_at).where(Instance.id > latest, Instance.received_at > since)
        return tuple(row.received_at for row in self._all(query))

    def workers(self, since: datetime) -> tuple[RunningWorker, ...]:
        """Workers that hold a job now or have finished one after ``since``."""
        running = {row.worker: row for row in self._all(_running())}
        query = (
            select(Job.worker, func.count(), func.max(Job.finished_at), func.max(Job.ran_on))
            .where(Job.finished_at > since, Job.worker != "")
            .group_by(Job.worker)
        )
        done = {worker: (count, last, device) for worker, count, last, device in self._all(query)}
        return tuple(
            RunningWorker(
                name,
                running[name].id if name in running else None,
                running[name].started_at if name in running else None,
                *done.get(name, (0, None, "")),
            )
            for name in sorted({*running, *done})
        )

    def failures(self, limit: int = 20) -> tuple[Failure, ...]:
        """Jobs and deliveries that failed or are being tried again, the latest first."""
        bad_jobs = Job.state.in_((JobState.FAILED, JobState.RETRYING))
        jobs = select(Job.__table__).where(bad_jobs).order_by(Job.id.desc()).limit(limit)
        bad = (Delivery.state == DeliveryState.FAILED) | (
            (Delivery.state == DeliveryState.PENDING) & (Delivery.error != "")
        )
        deliveries = select(Delivery.__table__).where(bad).order_by(Delivery.id.desc()).limit(limit)
        found = [
            Failure("job", row.id, row.study_id, row.state.value, row.error, _latest(row), row.attempts)
            for row in self._all(jobs)
        ]
        found += [
            Failure(
                "delivery",
                row.id,
                row.study_id,
                row.state.value,
                row.error,
                row.created_at,
                row.attempts,
                row.destination,
            )
            for row in self._all(deliveries)
        ]
        return tuple(sorted(found, key=lambda failure: failure.at, reverse=True)[:limit])

    def destinations(self) -> dict[str, DestinationState]:
        """What is known of each destination that has ever had a delivery."""
        counted: dict[str, Counter[str]] = {}
        for name, state, number in self._deliveries.get():
            counted.setdefault(name, Counter())[state.value] += number
        return {
            row.name: DestinationState(
                row.name,
                row.last_sent_at,
                row.last_failed_at,
                row.last_error,
                dict(counted.get(row.name, {})),
                row.failures,
                row.open_until,
            )
            for row in self._all(select(Destination.__table__))
        }

    def models(self) -> tuple[ModelUseRow, ...]:
        """Every model version that has analysed images here, the latest first."""
        used = self._all(select(Model.__table__).order_by(Model.first_used_at.desc()))
        counted = self._findings.get()
        return tuple(
            ModelUseRow(row.name, row.version, row.first_used_at, *counted.get((row.name, row.version), (0, 0)))
            for row in used
        )

    def _count_findings(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Findings, and those that were present, by model and version."""
        query = (
            select(Finding.model, Finding.model_version, func.count(), func.count().filter(Finding.present.is_(True)))
            .where(Finding.superseded.is_(False))
            .group_by(Finding.model, Finding.model_version)
        )
        return {(model, version): (all_, present) for model, version, all_, present in self._all(query)}

    def oldest_queued(self, now: datetime) -> float:
        """Age in seconds of the oldest job that waits; 0 where none does."""
        query = select(func.min(Job.created_at)).where(Job.state.in_((JobState.QUEUED, JobState.RETRYING)))
        oldest = self._all(query)[0][0]
        return max(0.0, (now - oldest).total_seconds()) if oldest is not None else 0.0

    def overdue(self, now: datetime) -> int:
        """Unreported studies whose limit has passed."""
        query = select(func.count()).where(Study.reported_at.is_(None), Study.due_at < now)
        return int(self._all(query)[0][0])


def _running() -> Any:
    return select(Job.worker, Job.id, Job.started_at).where(Job.state == JobState.RUNNING)


def _latest(row: Any) -> datetime:
    moment: datetime = row.finished_at or row.started_at or row.created_at
    return moment
