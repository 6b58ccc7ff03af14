"""Notifications on critical findings: one row a finding and channel, claimed and tried again like a delivery.

A row is written in the transaction in which triage finds the study critical, and there is at most one for a study, a
channel and a finding. So whatever process dies, a notification is neither lost nor raised again. What a receiver sees
twice (the node died between its answer and our note of it) carries the same key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from db.errors import RecordNotFoundError
from db.leases import ENDED, is_claimable, lock_held_by
from db.model_states import is_reported_by_a_model
from db.order_tables import NotificationRow, NotificationState, OrderRow
from db.records import IS_REPORTED, FindingRecord
from db.states import Priority
from db.study_rules import NotificationRules, why_not_notify
from db.tables import Event, Finding
from db.transitions import event, lock_study, move, write_events

_ENTITY = "notification"
_ACTOR = "triage"
_UNFOUNDED = "the finding does not hold any more: its image was taken back, or analysed again"
_NOTIFICATION, _NOT_MADE = "notification", "not_made"
"""A notification that was never raised is no notification, but the history says why."""
_OPEN = (NotificationState.PENDING, NotificationState.FAILED)


@dataclass(frozen=True, slots=True)
class Notification:
    """A notification as a sender claims it, with what the study says now. ``reason`` is the label of the finding.

    ``taken_by``: receivers of a channel with several that have taken it at an earlier attempt.
    """

    id: int
    study_id: int
    channel: str
    reason: str
    key: str
    probability: float | None
    attempts: int
    created_at: datetime
    study_instance_uid: str
    accession_number: str
    placer_order_number: str
    filler_order_number: str
    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    study_date: str
    study_time: str
    study_description: str
    priority: Priority
    due_at: datetime
    taken_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotificationDetail:
    """A notification as an admin sees it."""

    id: int
    channel: str
    reason: str
    state: NotificationState
    attempts: int
    error: str
    created_at: datetime
    sent_at: datetime | None


def notification_key(study_instance_uid: str, channel: str, reason: str) -> str:
    """Name a notification: the same work gives the same name, 32 hexadecimal characters."""
    return hashlib.sha256("\0".join((study_instance_uid, channel, reason)).encode()).hexdigest()[:32]


def create_notifications(
    connection: Connection, study: Row[Any], findings: Iterable[FindingRecord], rules: NotificationRules, now: datetime
) -> None:
    """Write a notification for each alarming finding and channel that has none yet; ``study`` is locked."""
    notifications = {finding.label: finding for finding in reversed(tuple(findings))}
    if not notifications or not rules.channels:
        return
    if old := why_not_notify(study, rules.maximum_age, now):
        _note_cancelled(connection, study.id, f"{', '.join(sorted(notifications))} notifies nobody: {old}", now)
        return
    earlier = select(NotificationRow.__table__).where(NotificationRow.study_id == study.id)
    known = {(row.channel, row.reason): row for row in connection.execute(earlier)}
    for row in known.values():
        if row.reason in notifications and row.state is NotificationState.WITHDRAWN and row.error == _UNFOUNDED:
            cause, after = "another image shows it", NotificationState.PENDING
            move(connection, _ENTITY, row, after, cause=cause, actor=_ACTOR, now=now, error="")
    rows = [
        {
            "study_id": study.id,
            "channel": channel,
            "reason": label,
            "state": NotificationState.PENDING,
            "key": notification_key(study.study_instance_uid, channel, label),
            "probability": finding.probability,
            "attempts": 0,
            "created_at": now,
        }
        for label, finding in sorted(notifications.items())
        for channel in rules.channels
        if (channel, label) not in known
    ]
    if not rows:
        return
    statement = insert(NotificationRow).returning(NotificationRow.id, sort_by_parameter_order=True)
    ids = connection.scalars(statement, rows).all()
    write_events(
        connection,
        [
            event(study.id, _ENTITY, row_id, "", "pending", f"{row['channel']}: {row['reason']}", _ACTOR, now)
            for row_id, row in zip(ids, rows, strict=True)
        ],
    )


def _note_cancelled(connection: Connection, study_id: int, cause: str, now: datetime) -> None:
    """Write an event, once, that says why no notification was raised."""
    recorded = select(Event.id).where(Event.study_id == study_id, Event.entity == _NOTIFICATION, Event.cause == cause)
    if connection.execute(recorded.limit(1)).first() is None:
        write_events(connection, [event(study_id, _NOTIFICATION, study_id, "", _NOT_MADE, cause, _ACTOR, now)])


def cancel(connection: Connection, study_id: int, cause: str, actor: str, now: datetime) -> None:
    """Withdraw the unsent notifications of a locked study; one that is being sent cannot be withdrawn."""
    table = NotificationRow.__table__
    query = select(table).where(table.c.study_id == study_id, table.c.state.in_(_OPEN)).order_by(table.c.id)
    for row in connection.execute(query.with_for_update(key_share=True)).all():
        move(connection, _ENTITY, row, NotificationState.WITHDRAWN, cause=cause, actor=actor, now=now, **ENDED)


def restore(connection: Connection, study_id: int, report: Row[Any], actor: str, now: datetime) -> None:
    """Put back what was withdrawn for the sake of a ``report`` (its event) that is taken back; the study is locked.

    Each goes to where it stood. What was withdrawn for a reason of its own in the meantime stays so.
    """
    table, cause = NotificationRow.__table__, "the report was taken back"
    query = select(table).where(table.c.study_id == study_id, table.c.state == NotificationState.WITHDRAWN)
    for row in connection.execute(query.order_by(table.c.id).with_for_update(key_share=True)).all():
        last = _last_withdrawal(connection, row)
        if last is None or last.id < report.id or last.cause not in (report.cause, IS_REPORTED):
            continue
        if not is_reported_by_a_model(connection, study_id, row.reason):
            continue
        failed = last.from_state == NotificationState.FAILED.value
        after = NotificationState.FAILED if failed else NotificationState.PENDING
        error = "" if row.error == IS_REPORTED else row.error
        move(connection, _ENTITY, row, after, cause=cause, actor=actor, now=now, **{**ENDED, "error": error})


def _last_withdrawal(connection: Connection, row: Row[Any]) -> Row[Any] | None:
    changes = Event.__table__
    query = select(changes).where(
        changes.c.study_id == row.study_id,
        changes.c.entity == _ENTITY,
        changes.c.entity_id == row.id,
        changes.c.to_state == NotificationState.WITHDRAWN.value,
    )
    return connection.execute(query.order_by(changes.c.id.desc()).limit(1)).first()


def waiting(connection: Connection, channel: str, now: datetime, limit: int = 50) -> tuple[int, ...]:
    """Notifications of ``channel`` that may be taken now, the oldest first."""
    row = NotificationRow
    pending = and_(row.state == NotificationState.PENDING, or_(row.due_at.is_(None), row.due_at <= now))
    left = and_(row.state == NotificationState.SENDING, row.lease_until <= now)
    query = select(row.id).where(row.channel == channel, or_(pending, left)).order_by(row.id).limit(limit)
    return tuple(connection.scalars(query))


def claim(
    connection: Connection, notification_id: int, worker: str, now: datetime, lease: timedelta
) -> Notification | None:
    """Take a notification for ``worker`` until ``now + lease``; None where it is not to be had.

    One whose study was reported in the meantime, or whose image was taken back, is withdrawn instead.
    """
    study, row = _locked(connection, notification_id)
    if not is_claimable(row, NotificationState.PENDING, NotificationState.SENDING, now):
        return None
    before = NotificationState.PENDING
    if row.state is NotificationState.SENDING:
        move(connection, _ENTITY, row, before, cause="lease is over", actor=worker, now=now)
    cause = _why_not(connection, study, row)
    if cause:
        after, values = NotificationState.WITHDRAWN, {**ENDED, "error": cause}
        move(connection, _ENTITY, row, after, cause=cause, actor=worker, now=now, before=before, **values)
        return None
    values = {"worker": worker, "lease_until": now + lease, "attempts": row.attempts + 1}
    after, cause = NotificationState.SENDING, "claimed"
    move(connection, _ENTITY, row, after, cause=cause, actor=worker, now=now, before=before, **values)
    return _notification(study, row, _order_numbers(connection, study.id))


def sent(connection: Connection, notification_id: int, worker: str, now: datetime) -> bool:
    """The receiver has taken it; False where the claim is lost."""
    values = {**ENDED, "error": "", "sent_at": now}
    return _end(connection, notification_id, worker, NotificationState.SENT, "the receiver has taken it", now, values)


def retry(
    connection: Connection, notification_id: int, worker: str, error: str, now: datetime, after: timedelta
) -> bool:
    """Let it be tried again from ``now + after`` on; False where the claim is lost."""
    values = {**ENDED, "due_at": now + after, "error": error}
    return _end(connection, notification_id, worker, NotificationState.PENDING, error, now, values)


def fail(connection: Connection, notification_id: int, worker: str, error: str, now: datetime) -> bool:
    """No further attempt: the admin sees it as failed. False where the claim is lost."""
    values = {**ENDED, "error": error}
    return _end(connection, notification_id, worker, NotificationState.FAILED, error, now, values)


def release(connection: Connection, worker_prefix: str, now: datetime) -> int:
    """Make pending again what workers whose name starts so have left behind: they have died."""
    rows = lock_held_by(connection, NotificationRow, NotificationState.SENDING, worker_prefix)
    for row in rows:
        cause, after = "its sender died", NotificationState.PENDING
        move(connection, _ENTITY, row, after, cause=cause, actor="node", now=now, **ENDED)
    return len(rows)


def requeue(connection: Connection, channel: str, actor: str, now: datetime) -> int:
    """Send again, from the start, what was failed in ``channel``, because a person asks for it; how many."""
    table = NotificationRow.__table__
    query = select(table).where(table.c.channel == channel, table.c.state == NotificationState.FAILED)
    rows = connection.execute(query.order_by(table.c.id).with_for_update(key_share=True)).all()
    for row in rows:
        values: dict[str, Any] = {**ENDED, "attempts": 0}
        cause, after = "asked for again", NotificationState.PENDING
        move(connection, _ENTITY, row, after, cause=cause, actor=actor, now=now, **values)
    return len(rows)


def of_study(connection: Connection, study_id: int) -> tuple[NotificationDetail, ...]:
    """Every notification of a study, the oldest first."""
    query = select(NotificationRow.__table__).where(NotificationRow.study_id == study_id)
    rows = connection.execute(query.order_by(NotificationRow.id)).all()
    names = NotificationDetail.__dataclass_fields__
    return tuple(NotificationDetail(**{name: getattr(row, name) for name in names}) for row in rows)


def counts(connection: Connection, channel: str) -> dict[str, int]:
    """How many notifications of ``channel`` are in each state."""
    row = NotificationRow
    query = select(row.state, func.count()).where(row.channel == channel).group_by(row.state)
    return {state.value: int(number) for state, number in connection.execute(query)}


def taken(connection: Connection, notification_id: int, worker: str, receivers: Sequence[str]) -> bool:
    """Some receivers have accepted it and do not get it again; False where the claim is lost."""
    _, row = _locked(connection, notification_id)
    if row.state is not NotificationState.SENDING or row.worker != worker:
        return False
    taken_by = tuple(sorted({*row.taken_by, *receivers}))
    connection.execute(update(NotificationRow).where(NotificationRow.id == notification_id).values(taken_by=taken_by))
    return True


def _end(
    connection: Connection,
    notification_id: int,
    worker: str,
    after: NotificationState,
    cause: str,
    now: datetime,
    values: Any,
) -> bool:
    study, row = _locked(connection, notification_id)
    if row.state is not NotificationState.SENDING or row.worker != worker:
        return False
    if after is NotificationState.PENDING and study.reported_at is not None:
        after, cause, values = NotificationState.WITHDRAWN, IS_REPORTED, ENDED
    move(connection, _ENTITY, row, after, cause=cause, actor=worker, now=now, **values)
    return True


def _why_not(connection: Connection, study: Row[Any], row: Row[Any]) -> str:
    """Why a notification need not be sent any more; empty where it must."""
    if study.reported_at is not None:
        return IS_REPORTED
    holds = select(Finding.id).where(
        Finding.study_id == study.id,
        Finding.label == row.reason,
        Finding.present.is_(True),
        Finding.shadow.is_(False),
        Finding.superseded.is_(False),
    )
    return _UNFOUNDED if connection.execute(holds.limit(1)).first() is None else ""


def _locked(connection: Connection, notification_id: int) -> tuple[Row[Any], Row[Any]]:
    """Lock a notification and, before it, its study."""
    table = NotificationRow.__table__
    study_id = connection.scalar(select(table.c.study_id).where(table.c.id == notification_id))
    if study_id is None:
        raise RecordNotFoundError(_ENTITY, notification_id)
    study = lock_study(connection, study_id)
    query = select(table).where(table.c.id == notification_id).with_for_update(key_share=True)
    return study, connection.execute(query).one()


def _order_numbers(connection: Connection, study_id: int) -> tuple[str, str]:
    """Placer and filler order number of the study's latest order; empty where no order is known."""
    order = OrderRow
    query = select(order.placer_order_number, order.filler_order_number).where(order.study_id == study_id)
    row = connection.execute(query.order_by(order.id.desc())).first()
    return (row[0], row[1]) if row else ("", "")


_FROM_STUDY: Sequence[str] = (
    "study_instance_uid",
    "accession_number",
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
    "study_date",
    "study_time",
    "study_description",
    "priority",
    "due_at",
)


def _notification(study: Row[Any], row: Row[Any], order_numbers: tuple[str, str]) -> Notification:
    placer, filler = order_numbers
    return Notification(
        id=row.id,
        study_id=study.id,
        channel=row.channel,
        reason=row.reason,
        key=row.key,
        probability=row.probability,
        attempts=row.attempts + 1,
        created_at=row.created_at,
        placer_order_number=placer,
        filler_order_number=filler,
        taken_by=row.taken_by,
        **{name: getattr(study, name) for name in _FROM_STUDY},
    )
