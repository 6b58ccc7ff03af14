"""Proof that a destination holds what it took: whom to ask about what, and what was heard.

A question is named by a transaction UID, so that an answer to an earlier one changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, func, or_, select, update

from db import tables
from db.records import DeliveryState, Unproven
from db.transitions import move

LARGEST_QUESTION = 100
"""Objects that a destination is asked about at once."""

_NOT_ASKED: dict[str, Any] = {"proof_due_at": None, "proof_attempts": 0, "transaction_uid": None}


def to_ring(connection: Connection, now: datetime, quiet: timedelta, limit: int) -> tuple[int, ...]:
    """Deliveries whose destination is to be asked and that were not rung for lately: one a destination suffices.

    None of a destination that may not be called yet.
    """
    delivery, destination = tables.Delivery, tables.Destination
    silent = or_(delivery.rung_at.is_(None), delivery.rung_at <= now - quiet, delivery.rung_at < delivery.proof_due_at)
    query = (
        select(func.min(delivery.id).label("first"))
        .join(destination, destination.name == delivery.destination)
        .where(delivery.proof_due_at <= now, delivery.state == DeliveryState.SENT, silent)
        .where(or_(destination.open_until.is_(None), destination.open_until <= now))
        .group_by(delivery.destination)
        .order_by("first")
        .limit(limit)
    )
    return tuple(connection.scalars(query))


def claim(
    connection: Connection, delivery_id: int, transaction_uid: str, now: datetime, lease: timedelta
) -> tuple[Unproven, ...]:
    """Take a delivery that is to be proven, and others of its destination; nothing where somebody else has it.

    Whoever takes them has until ``now + lease`` to ask; then they are due again.
    """
    delivery = tables.Delivery.__table__
    due = (delivery.c.state == DeliveryState.SENT, delivery.c.proof_due_at <= now)
    destination = select(delivery.c.destination).where(delivery.c.id == delivery_id, *due).scalar_subquery()
    query = _rows().where(delivery.c.destination == destination, *due).limit(LARGEST_QUESTION)
    rows = connection.execute(query.with_for_update(of=delivery, skip_locked=True)).all()
    asked = {"proof_due_at": now + lease, "transaction_uid": transaction_uid}
    connection.execute(
        update(tables.Delivery)
        .where(tables.Delivery.id.in_([row.id for row in rows]))
        .values(proof_attempts=tables.Delivery.proof_attempts + 1, **asked)
    )
    return tuple(_unproven(row, row.proof_attempts + 1, transaction_uid) for row in rows)


def asked_in(connection: Connection, transaction_uid: str, sop_instance_uids: Sequence[str]) -> tuple[Unproven, ...]:
    """What of these objects was asked about by that transaction and is still to be proven."""
    delivery, result = tables.Delivery.__table__, tables.Result.__table__
    query = _rows().where(
        result.c.sop_instance_uid.in_(list(sop_instance_uids)),
        delivery.c.transaction_uid == transaction_uid,
        delivery.c.state == DeliveryState.SENT,
    )
    return tuple(_unproven(row, row.proof_attempts, transaction_uid) for row in connection.execute(query))


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
        .order_by(delivery.c.proof_due_at, delivery.c.id)
    )


def _unproven(row: Row[Any], attempts: int, transaction_uid: str) -> Unproven:
    return Unproven(
        id=row.id,
        destination=row.destination,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        attempts=attempts,
        missing=row.proof_missing,
        transaction_uid=transaction_uid,
    )


def proven(connection: Connection, asked: Unproven, now: datetime) -> bool:
    """The destination holds the object; False where another question or a person has been quicker."""
    return _end(connection, asked, DeliveryState.PROVEN, "destination holds it", now, error="", proven_at=now)


def postpone(
    connection: Connection, asked: Unproven, note: str, due: datetime | None, *, missing: bool = False
) -> bool:
    """Ask again at ``due`` (None: never), and keep ``note`` for the admin; False as in :func:`proven`."""
    values: dict[str, Any] = {"error": note, "proof_due_at": due, "proof_missing": asked.missing + missing}
    delivery = tables.Delivery
    done = connection.execute(
        update(delivery)
        .where(
            delivery.id == asked.id,
            delivery.state == DeliveryState.SENT,
            delivery.transaction_uid == asked.transaction_uid,
        )
        .values(**values)
    )
    return bool(done.rowcount)


def send_again(connection: Connection, asked: Unproven, cause: str, now: datetime) -> bool:
    """The destination does not hold what it took: let it be sent again; False as in :func:`proven`."""
    values = {"attempts": 0, "error": cause, "rung_at": None, "due_at": None, "lost": 0}
    values["proof_missing"] = asked.missing + 1
    return _end(connection, asked, DeliveryState.PENDING, cause, now, **values)


def give_up(connection: Connection, asked: Unproven, cause: str, now: datetime) -> bool:
    """The destination does not hold what it took twice: park it; False as in :func:`proven`."""
    return _end(connection, asked, DeliveryState.FAILED, cause, now, error=cause, proof_missing=asked.missing + 1)


def _end(
    connection: Connection, asked: Unproven, after: DeliveryState, cause: str, now: datetime, **values: Any
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
