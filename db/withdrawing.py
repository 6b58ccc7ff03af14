"""Withdrawing what was made of an image that counts no more: nothing else is sent, and what has left is marked."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from db import tables
from db.records import DeliveryState
from db.transitions import move

_SENT = (DeliveryState.SENT, DeliveryState.PROVEN)


def withdraw_results(connection: Connection, job_id: int, reason: str, code: str, actor: str, now: datetime) -> None:
    """Withdraw every delivery of a job's results, with words for whoever must take what has left out of the archive.

    ``code`` is the title of the rejection note that takes back what has left (see :mod:`db.stale`).
    """
    delivery, result = tables.Delivery.__table__, tables.Result.__table__
    query = (
        select(delivery)
        .join(result, result.c.id == delivery.c.result_id)
        .where(result.c.job_id == job_id, delivery.c.state != DeliveryState.WITHDRAWN)
        .order_by(delivery.c.id)
        .with_for_update(key_share=True, of=delivery)
    )
    for row in connection.execute(query).all():
        words = reason
        if row.state in _SENT:
            words = f"{reason} The result had been sent and must be removed there."
        elif row.state is DeliveryState.SENDING:
            words = f"{reason} The result was being sent and may have arrived."
        has_left = row.sent_at is not None or row.state is DeliveryState.SENDING
        values: dict[str, Any] = {"error": words, "stale_code": code if has_left else row.stale_code}
        values |= {"proof_due_at": None}
        move(connection, "delivery", row, DeliveryState.WITHDRAWN, cause=words, actor=actor, now=now, **values)
