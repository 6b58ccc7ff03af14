"""Stale objects that a destination holds, and the rejection notes that take them back there.

An object gets stale when its image is rejected or replaced, or when a newer revision stands for it. Its delivery then
carries the title of the rejection note (IHE RAD IOCM) that it needs. Where a destination takes such notes the scheduler
makes one; otherwise a person finds the object in the list of what must be removed by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, insert, or_, select, update

from db import tables
from db.records import FOR_QUALITY, FOR_RETENTION, NOTE, ResultRecord, StaleObject
from db.states import DeliveryState
from db.transitions import event, lock_study, write_events

ACTOR = "scheduler"
_ON_THE_WAY = (DeliveryState.PENDING, DeliveryState.SENDING)


def lock_earlier(
    connection: Connection, study_id: int, job_id: int | None, revision: int, *conditions: ColumnElement[bool]
) -> Sequence[Row[Any]]:
    """Lock the deliveries of earlier revisions of a job (None: of the study's summaries), rejection notes aside."""
    delivery, result = tables.Delivery.__table__, tables.Result.__table__
    query = (
        select(delivery)
        .join(result, result.c.id == delivery.c.result_id)
        .where(
            delivery.c.study_id == study_id,
            result.c.job_id.is_(None) if job_id is None else result.c.job_id == job_id,
            result.c.kind != NOTE,
            result.c.revision < revision,
            *conditions,
        )
    )
    return connection.execute(query.with_for_update(key_share=True, of=delivery)).all()


def mark_replaced(
    connection: Connection, study_id: int, job_id: int | None, revision: int, actor: str, now: datetime
) -> None:
    """Mark what was sent, or may have arrived, of the earlier revisions of a job (None: of the study's summaries)."""
    rows = lock_earlier(connection, study_id, job_id, revision, *_there())
    _mark(connection, rows, FOR_QUALITY, f"Revision {revision} replaces it", actor, now)


def mark_erased(connection: Connection, study_id: int, destinations: Sequence[str], actor: str, now: datetime) -> bool:
    """Mark what these destinations hold, or may hold, of a study that is to be erased; whether any was not marked."""
    delivery, result = tables.Delivery.__table__, tables.Result.__table__
    query = (
        select(delivery)
        .join(result, result.c.id == delivery.c.result_id)
        .where(
            delivery.c.study_id == study_id, delivery.c.destination.in_(destinations), result.c.kind != NOTE, *_there()
        )
    )
    rows = connection.execute(query.with_for_update(key_share=True, of=delivery)).all() if destinations else []
    _mark(connection, rows, FOR_RETENTION, "The study is being erased", actor, now)
    return bool(rows)


def _there() -> list[ColumnElement[bool]]:
    """Sent, or perhaps arrived, and not marked yet."""
    delivery = tables.Delivery
    return [or_(delivery.sent_at.is_not(None), delivery.unanswered), delivery.stale_code == ""]


def _mark(connection: Connection, rows: Sequence[Row[Any]], code: str, why: str, actor: str, now: datetime) -> None:
    events = []
    for row in rows:
        arrived = "it" if row.sent_at else "it may have arrived, and then it"
        note = f"{why}: {arrived} must be removed there."
        # What a destination removes at our own word must not be sent again as lost, whatever it was asked before.
        values = {"stale_code": code, "error": note, "verify_due_at": None, "transaction_uid": None}
        connection.execute(update(tables.Delivery).where(tables.Delivery.id == row.id).values(**values))
        events.append(event(row.study_id, "delivery", row.id, row.state.value, row.state.value, note, actor, now))
    write_events(connection, events)


def studies_with_stale(
    connection: Connection, destinations: Sequence[str], now: datetime, limit: int = 20
) -> tuple[int, ...]:
    """Studies of which one of these destinations holds, or may hold, something stale that no note takes back yet."""
    delivery = tables.Delivery
    query = select(delivery.study_id).where(*_due(now), delivery.destination.in_(destinations)).distinct().limit(limit)
    return tuple(connection.scalars(query)) if destinations else ()


def stale_objects(
    connection: Connection, study_id: int, destinations: Sequence[str], now: datetime
) -> tuple[StaleObject, ...]:
    """What these destinations hold of a study and must give up, and no note takes back yet.

    In the order in which it was made.
    """
    delivery, result = tables.Delivery.__table__, tables.Result.__table__
    query = (
        select(delivery.c.id, delivery.c.destination, delivery.c.stale_code, delivery.c.error, result)
        .join(result, result.c.id == delivery.c.result_id)
        .where(*_due(now), delivery.c.study_id == study_id, delivery.c.destination.in_(destinations))
        .order_by(delivery.c.id)
    )
    return tuple(
        StaleObject(
            delivery_id=row[0],
            destination=row.destination,
            kind=row.kind,
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            series_instance_uid=row.series_instance_uid,
            code=row.stale_code,
            reason=row.error,
        )
        for row in connection.execute(query)
    )


def _due(now: datetime) -> list[ColumnElement[bool]]:
    """Stale and taken back by no note.

    What a revision replaces (it stays *sent*) waits until nothing of the study is on its way there, so that the
    destination is not left without either. What is wrong (withdrawn) waits for nothing but the end of an attempt that
    is under way: the note must not arrive before it.
    """
    delivery = tables.Delivery
    other, result = tables.Delivery.__table__.alias("other"), tables.Result.__table__.alias("newer")
    waiting = exists().where(
        and_(
            other.c.study_id == delivery.study_id,
            other.c.destination == delivery.destination,
            other.c.state.in_(_ON_THE_WAY),
            result.c.id == other.c.result_id,
            result.c.kind != NOTE,
        )
    )
    return [
        delivery.stale_code != "",
        delivery.note_id.is_(None),
        or_(
            and_(
                delivery.state == DeliveryState.WITHDRAWN,
                or_(delivery.lease_until.is_(None), delivery.lease_until <= now),
            ),
            and_(delivery.state != DeliveryState.WITHDRAWN, ~waiting),
        ),
    ]


def record_note(
    connection: Connection, study_id: int, record: ResultRecord, stale: Sequence[StaleObject], now: datetime
) -> tuple[int, ...]:
    """Keep a rejection note of ours about ``objects`` of one destination, and give the delivery to enqueue.

    Nothing where another scheduler was quicker. It leaves although the study is on hold: what is wrong must not stay.
    """
    study = lock_study(connection, study_id)
    delivery = tables.Delivery
    ids = [one.delivery_id for one in stale]
    noted = select(delivery.id).where(delivery.id.in_(ids), delivery.note_id.is_not(None)).limit(1)
    if connection.execute(noted).first() is not None:
        return ()
    fields = {name: getattr(record, name) for name in ResultRecord.__dataclass_fields__}
    made = insert(tables.Result).values(
        study_id=study_id, job_id=None, revision=study.revision, ordinal=0, patient_id=study.patient_id, created_at=now,
        **fields,
    )  # fmt: skip
    result_id = connection.execute(made.returning(tables.Result.id)).scalar_one()
    connection.execute(update(delivery).where(delivery.id.in_(ids)).values(note_id=result_id))
    sending = insert(delivery).values(
        study_id=study_id,
        result_id=result_id,
        destination=stale[0].destination,
        state=DeliveryState.PENDING,
        attempts=0,
        dispatched_at=now,
        created_at=now,
    )
    delivery_id = connection.execute(sending.returning(delivery.id)).scalar_one()
    cause = f"takes back {len(ids)} objects"
    write_events(connection, [event(study_id, "delivery", delivery_id, "", "pending", cause, ACTOR, now)])
    return (delivery_id,)
