"""Leases of jobs, deliveries and notifications: which worker has a row, until when, and who may take it next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, or_, select, update

from db import tables
from db.states import DeliveryState, JobState, Priority

LEASE = timedelta(seconds=45)
"""How long a claim of a job, a delivery or an association holds. Who works longer renews it meanwhile, so a host that
is cut off or gone keeps nothing for longer than this."""

ENDED: Mapping[str, Any] = {"worker": "", "lease_until": None, "due_at": None}
"""Values of a row that no worker holds and that waits for no further attempt."""


def is_claimable(row: Any, waiting: StrEnum, running: StrEnum, now: datetime) -> bool:
    """Whether a worker may take ``row`` now: it is ``waiting`` and due, or ``running`` under a lease that is over."""
    if row.state is running:
        return row.lease_until is not None and row.lease_until <= now
    return row.state is waiting and (row.due_at is None or row.due_at <= now)


def not_dispatched(table: Any, now: datetime, quiet: timedelta) -> ColumnElement[bool]:
    """No message was sent for the row within ``quiet``."""
    return or_(table.dispatched_at.is_(None), table.dispatched_at <= now - quiet)


def due_again(table: Any, due: Any, now: datetime, quiet: timedelta) -> ColumnElement[bool]:
    """The time in the column ``due`` has come, and no message was sent since, or within ``quiet``."""
    return and_(due <= now, or_(not_dispatched(table, now, quiet), table.dispatched_at < due))


def turn(study: Any) -> ColumnElement[int]:
    """Whose turn it is, the lowest first: STAT, then what triage calls critical or urgent, then routine."""
    return case((study.stat, 0), (study.priority == Priority.ROUTINE, 2), else_=1)


def starts_with(column: Any, prefix: str) -> ColumnElement[bool]:
    """Compare the beginning of ``column`` exactly (LIKE ignores case on SQLite, and reads % and _)."""
    condition: ColumnElement[bool] = func.substr(column, 1, len(prefix)) == prefix
    return condition


def lock_held_by(connection: Connection, table: Any, running: StrEnum, worker_prefix: str) -> Sequence[Row[Any]]:
    """Lock the rows that are ``running`` with workers whose name starts so, the oldest first."""
    held = select(table.__table__).where(table.state == running, starts_with(table.worker, worker_prefix))
    return connection.execute(held.order_by(table.id).with_for_update(key_share=True)).all()


def renew(connection: Connection, worker: str, since: datetime, now: datetime, without: Collection[int] = ()) -> None:
    """Let what ``worker`` has claimed since ``since`` be its own until ``now`` + :data:`LEASE`, ``without`` these jobs.

    What another worker has taken meanwhile is left alone, and so is what this one had claimed before and let lie (the
    database did not answer when it was to be recorded): that is free when its lease is over.
    """
    # What is withdrawn while it is being sent is still on its way.
    sending = (DeliveryState.SENDING, DeliveryState.WITHDRAWN)
    mine = ((tables.Job, (JobState.RUNNING,)), (tables.Delivery, sending), (tables.DestinationLease, ()))
    for table, running in mine:
        row: Any = table
        held = [row.worker == worker, row.lease_until >= since + LEASE]
        if running:
            held.append(row.state.in_(running))
        if without and table is tables.Job:
            held.append(row.id.not_in(list(without)))
        connection.execute(update(row).where(*held).values(lease_until=now + LEASE))
