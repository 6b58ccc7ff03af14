"""Withdraws jobs and deliveries of an image that is not valid any more, and marks what was sent of it as stale."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select

from db import tables
from db.records import NOTE
from db.states import DeliveryState
from db.transitions import move

_SENT = (DeliveryState.SENT, DeliveryState.VERIFIED)


def withdraw_results(connection: Connection, job_id: int, reason: str, code: str, actor: str, now: datetime) -> None:
    """Withdraw the deliveries of a job's results; ``reason`` is for the person who must remove what was sent.

    ``code`` is the title of the rejection note that takes back what has left (see :mod:`db.stale_objects`).
    """
    _withdraw(connection, tables.Result.job_id == job_id, reason, code, actor, now)


def withdraw_summaries(
    connection: Connection, study_id: int, reason: str, code: str, actor: str, now: datetime
) -> None:
    """The same for what tells of a study as a whole, and so of an image that counts no more."""
    result = tables.Result
    condition = and_(result.study_id == study_id, result.job_id.is_(None), result.kind != NOTE)
    _withdraw(connection, condition, reason, code, actor, now)


def _withdraw(
    connection: Connection, of: ColumnElement[bool], reason: str, code: str, actor: str, now: datetime
) -> None:
    delivery, result = tables.Delivery.__table__, tables.Result.__table__
    query = (
        select(delivery)
        .join(result, result.c.id == delivery.c.result_id)
        .where(of, delivery.c.state != DeliveryState.WITHDRAWN)
        .order_by(delivery.c.id)
        .with_for_update(key_share=True, of=delivery)
    )
    for row in connection.execute(query).all():
        note = reason
        if row.state in _SENT:
            note = f"{reason} The result had been sent and must be removed there."
        on_its_way = row.state is DeliveryState.SENDING or row.unanswered
        if on_its_way and row.state not in _SENT:
            note = f"{reason} The result was being sent and may have arrived."
        has_left = row.sent_at is not None or on_its_way
        values: dict[str, Any] = {"error": note, "stale_code": code if has_left else row.stale_code}
        values |= {"verify_due_at": None}
        move(connection, "delivery", row, DeliveryState.WITHDRAWN, cause=note, actor=actor, now=now, **values)
