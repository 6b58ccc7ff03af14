"""What becomes of stored times when the clock is set back: nothing may wait for a moment that has lost its meaning.

A time to wait for that lies farther ahead than this node ever waits was written by a clock that was ahead. It is
pulled back, so that work goes on at once and not when the clock has caught up, a critical study does not stand behind
every other, and no lock-out or session lasts as long as the clock was ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, or_, update

from db.audit_tables import AuditFeedRow
from db.backfill import LEASE, LONGEST_PULL
from db.engine import writing
from db.order_tables import NotificationRow, NotificationState
from db.states import DeliveryState, JobState, Priority, StudyState
from db.tables import (
    BackfilledStudy,
    BackfillRun,
    Delivery,
    Destination,
    DestinationLease,
    Job,
    PriorSearch,
    Study,
)
from db.user_tables import AttemptRow, SessionRow

_NONE = timedelta(0)
_JUST_NOW = timedelta(seconds=30)
"""What was written while a round of the scheduler waits for the database, or by a machine whose clock is a little
ahead, is no sign of a clock that was set back; by so little, the clock catches up by itself."""


@dataclass(frozen=True, slots=True)
class LongestWaits:
    """The longest times ahead that this node ever writes: until another attempt, a verification, or the end of a
    lease or session.

    ``due``: by priority, how far ahead an unreported study is due at most, and when it is due instead.
    """

    attempt: timedelta
    verification: timedelta
    job_lease: timedelta
    delivery_lease: timedelta
    session: timedelta
    due: Mapping[Priority, tuple[timedelta, timedelta]]


@dataclass(frozen=True, slots=True)
class _Moment:
    """A column in rows that still wait, how far ahead it may lie, and how far ahead it is put where it lies farther."""

    column: Any
    waiting: ColumnElement[bool]
    farthest: timedelta
    instead: timedelta


def pull_back(engine: Engine, now: datetime, waits: LongestWaits) -> int:
    """Pull back each time that lies farther ahead than it can; how many there were. Harmless when it runs again."""
    pulled = 0
    with writing(engine).begin() as connection:
        for moment in _moments(waits):
            table = moment.column.class_
            done = connection.execute(
                update(table)
                .where(and_(moment.waiting, moment.column > now + moment.farthest))
                .values({moment.column: now + moment.instead})
            )
            pulled += done.rowcount
    return pulled


def _moments(waits: LongestWaits) -> Iterator[_Moment]:
    """Every time that something waits for. Leases begin anew: whoever holds one may be at work."""
    job = Job.state.in_((JobState.QUEUED, JobState.RUNNING, JobState.RETRYING))
    yield _Moment(Job.dispatched_at, job, _JUST_NOW, _NONE)
    yield _Moment(Job.due_at, job, waits.attempt, _NONE)
    yield _Moment(Job.lease_until, job, waits.job_lease, waits.job_lease)
    delivery = or_(
        Delivery.state.in_((DeliveryState.PENDING, DeliveryState.SENDING)), Delivery.verify_due_at.is_not(None)
    )
    yield _Moment(Delivery.dispatched_at, delivery, _JUST_NOW, _NONE)
    yield _Moment(Delivery.due_at, delivery, waits.attempt, _NONE)
    stale = and_(Delivery.stale_code != "", Delivery.note_id.is_(None))  # its note waits for an attempt under way
    yield _Moment(Delivery.lease_until, or_(delivery, stale), waits.delivery_lease, waits.delivery_lease)
    yield _Moment(Delivery.verify_due_at, delivery, waits.verification, _NONE)
    every = Destination.name.is_not(None)
    yield _Moment(Destination.open_until, every, waits.attempt, _NONE)
    every = DestinationLease.worker.is_not(None)
    yield _Moment(DestinationLease.lease_until, every, waits.delivery_lease, waits.delivery_lease)
    notification = NotificationRow.state.in_((NotificationState.PENDING, NotificationState.SENDING))
    yield _Moment(NotificationRow.due_at, notification, waits.attempt, _NONE)
    yield _Moment(NotificationRow.lease_until, notification, waits.delivery_lease, waits.delivery_lease)
    yield _Moment(Study.last_activity_at, Study.state == StudyState.OPEN, _JUST_NOW, _NONE)
    yield _Moment(Study.first_received_at, Study.state == StudyState.OPEN, _JUST_NOW, _NONE)
    for priority, (farthest, instead) in waits.due.items():
        unreported = and_(Study.reported_at.is_(None), Study.priority == priority)
        yield _Moment(Study.due_at, unreported, farthest, instead)
    every = AuditFeedRow.repository.is_not(None)
    yield _Moment(AuditFeedRow.due_at, every, waits.attempt, _NONE)
    yield _Moment(AuditFeedRow.lease_until, every, waits.delivery_lease, waits.delivery_lease)
    yield from _pulls()
    yield _Moment(AttemptRow.at, AttemptRow.id.is_not(None), _JUST_NOW, _NONE)
    yield _Moment(SessionRow.expires_at, SessionRow.user_id.is_not(None), waits.session, waits.session)


def _pulls() -> Iterator[_Moment]:
    """What waits for images of an archive, or tells a study that is pulled from one that is sent."""
    every = BackfilledStudy.study_instance_uid.is_not(None)
    yield _Moment(BackfilledStudy.pull_ends_at, every, LONGEST_PULL + _JUST_NOW, _NONE)
    yield _Moment(BackfillRun.lease_until, BackfillRun.ended_at.is_(None), LEASE + _JUST_NOW, LEASE)
    yield _Moment(PriorSearch.started_at, PriorSearch.ended_at.is_(None), _JUST_NOW, _NONE)
