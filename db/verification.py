"""Storage verification: which deliveries a destination is asked about, and its answers.

A question is named by a transaction UID, so that an answer to an earlier one changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, or_, select, update

from db import tables
from db.patients import TO_CORRECT
from db.records import Unverified
from db.states import DeliveryState
from db.transitions import move

LARGEST_QUESTION = 100
"""Objects that a destination is asked about at once."""

_NOT_ASKED: dict[str, Any] = {"verify_due_at": None, "verify_attempts": 0, "transaction_uid": None}


def to_enqueue(connection: Connection, now: datetime, quiet: timedelta, limit: int) -> tuple[int, ...]:
    """Deliveries whose destination is to be asked and that were not enqueued lately: one a destination suffices.

    None of a destination that may not be called yet.
    """
    delivery, destination = tables.Delivery, tables.Destination
    silent = or_(
        delivery.dispatched_at.is_(None),
        delivery.dispatched_at <= now - quiet,
        delivery.dispatched_at < delivery.verify_due_at,
    )
    query = (
        select(func.min(delivery.id).label("first"))
        .join(destination, destination.name == delivery.destination)
        .where(delivery.verify_due_at <= now, delivery.state == DeliveryState.SENT, silent)
        .where(or_(destination.open_until.is_(None), destination.open_until <= now))
        .group_by(delivery.destination)
        .order_by("first")
        .limit(limit)
    )
    return tuple(connection.scalars(query))


def claim(
    connection: Connection, delivery_id: int, transaction_uid: str, now: datetime, lease: timedelta
) -> tuple[Unverified, ...]:
    """Take a delivery that is to be verified, and others of its destination; nothing where another worker has it.

    The worker has until ``now + lease`` to ask; then they are due again.
    """
    delivery = tables.Delivery.__table__
    due = (delivery.c.state == DeliveryState.SENT, delivery.c.verify_due_at <= now)
    destination = select(delivery.c.destination).where(delivery.c.id == delivery_id, *due).scalar_subquery()
    query = _rows().where(delivery.c.destination == destination, *due).limit(LARGEST_QUESTION)
    rows = connection.execute(query.with_for_update(of=delivery, skip_locked=True)).all()
    asked = {"verify_due_at": now + lease, "transaction_uid": transaction_uid}
    connection.execute(
        update(tables.Delivery)
        .where(tables.Delivery.id.in_([row.id for row in rows]))
        .values(verify_attempts=tables.Delivery.verify_attempts + 1, **asked)
    )
    return tuple(_unverified(row, row.verify_attempts + 1, transaction_uid) for row in rows)


def asked_in(connection: Connection, transaction_uid: str, sop_instance_uids: Sequence[str]) -> tuple[Unverified, ...]:
    """What of these objects was asked about by that transaction and is still to be verified."""
    delivery, result = tables.Delivery.__table__, tables.Result.__table__
    query = _rows().where(
        result.c.sop_instance_uid.in_(list(sop_instance_uids)),
        delivery.c.transaction_uid == transaction_uid,
        delivery.c.state == DeliveryState.SENT,
    )
    return tuple(_unverified(row, row.verify_attempts, transaction_uid) for row in connection.execute(query))


def _rows() -> Select[Any]:
    delivery, result, study = tables.Delivery.__table__, tables.Result.__table__, tables.Study.__table__
    return (
        select(
            delivery,
            result.c.sop_class_uid,
            result.c.sop_instance_uid,
            result.c.series_instance_uid,
            study.c.study_instance_uid,
        )
        .join(result, result.c.id == delivery.c.result_id)
        .join(study, study.c.id == delivery.c.study_id)
        .order_by(delivery.c.verify_due_at, delivery.c.id)
    )


def _unverified(row: Row[Any], attempts: int, transaction_uid: str) -> Unverified:
    return Unverified(
        id=row.id,
        destination=row.destination,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        attempts=attempts,
        missing=row.verify_missing,
        transaction_uid=transaction_uid,
    )


def verified(connection: Connection, asked: Unverified, now: datetime) -> bool:
    """The destination holds the object; False where another question or a person has been quicker.

    What must be corrected there stays to be told.
    """
    kept = {"error": _told_of(""), "verified_at": now}
    return _end(connection, asked, DeliveryState.VERIFIED, "destination holds it", now, **kept)


def _told_of(note: str) -> ColumnElement[str]:
    """``note``, but what a destination must correct outlasts any note on verification."""
    error = tables.Delivery.error
    return case((error.endswith(TO_CORRECT), error), else_=note)


def postpone(connection: Connection, asked: Unverified, note: str, due: datetime | None, missing: int = 0) -> bool:
    """Ask again at ``due`` (None: never), and keep ``note`` for the admin; False as in :func:`verified`.

    ``missing``: how often the destination has answered since that it does not hold the object. A Storage Commitment
    report may come before the one who has asked notes that there is none yet; that note then changes nothing.
    """
    values: dict[str, Any] = {"error": _told_of(note), "verify_due_at": due, "verify_missing": asked.missing + missing}
    delivery = tables.Delivery
    done = connection.execute(
        update(delivery)
        .where(
            delivery.id == asked.id,
            delivery.state == DeliveryState.SENT,
            delivery.transaction_uid == asked.transaction_uid,
            delivery.verify_missing == asked.missing,
        )
        .values(**values)
    )
    return bool(done.rowcount)


def send_again(connection: Connection, asked: Unverified, cause: str, now: datetime) -> bool:
    """Let a delivery be sent again whose destination does not hold it; the scheduler enqueues it.

    False as in :func:`verified`.
    """
    values = {"attempts": 0, "error": cause, "dispatched_at": None, "due_at": None, "lost": 0}
    values["verify_missing"] = asked.missing + 1
    return _end(connection, asked, DeliveryState.PENDING, cause, now, **values)


def give_up(connection: Connection, asked: Unverified, cause: str, now: datetime) -> bool:
    """The destination does not hold what it took twice: fail it; False as in :func:`verified`."""
    return _end(connection, asked, DeliveryState.FAILED, cause, now, error=cause, verify_missing=asked.missing + 1)


def _end(
    connection: Connection, asked: Unverified, after: DeliveryState, cause: str, now: datetime, **values: Any
) -> bool:
    delivery = tables.Delivery.__table__
    query = select(delivery).where(
        delivery.c.id == asked.id,
        delivery.c.state == DeliveryState.SENT,
        delivery.c.transaction_uid == asked.transaction_uid,
    )
    row = connection.execute(query.with_for_update(key_share=True)).one_or_none()
    if row is None:
        return False
    move(connection, "delivery", row, after, cause=cause, actor="node", now=now, **{**_NOT_ASKED, **values})
    return True
