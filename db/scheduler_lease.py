"""Leader election of the schedulers on one database: one row with a lease, timed by the clock of the database.

The clocks of machines differ, and a lease of seconds must not change hands because of that. SQLite is on one machine,
so there the clock of the process is as good.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, update

from db.instance_statements import insert_or_ignore
from db.leases import starts_with
from db.tables import SchedulerLease

_THE_ONE = 1
_STAND_BY = timedelta(seconds=15)


def hold(connection: Connection, worker: str, now: datetime, lease: timedelta) -> bool:
    """Let ``worker`` act from now on for ``lease``; False where another one does, for which it then stands by."""
    row, now = _locked(connection, now)
    # No lease is longer than ours: what lies farther ahead was written before a clock was set back.
    if row.worker not in ("", worker) and row.lease_until is not None and now < row.lease_until <= now + lease:
        _set(connection, stand_by=worker, stand_by_at=now)
        return False
    _set(connection, worker=worker, lease_until=now + lease)
    return True


def give_up(connection: Connection, worker: str, now: datetime) -> bool:
    """Release the lease if another scheduler has been standing by within 15 s; whether it was released."""
    row, now = _locked(connection, now)
    others = row.stand_by not in ("", worker) and row.stand_by_at is not None and row.stand_by_at > now - _STAND_BY
    if row.worker != worker or not others:
        return False
    _set(connection, worker="", lease_until=None)
    return True


def release(connection: Connection, worker_prefix: str) -> bool:
    """Release the lease of a scheduler whose name starts so, because it has ended; whether there was one."""
    row = SchedulerLease
    freed = update(row).where(row.worker != "", starts_with(row.worker, worker_prefix))
    return bool(connection.execute(freed.values(worker="", lease_until=None)).rowcount)


def _locked(connection: Connection, now: datetime) -> tuple[Any, datetime]:
    """The row, locked, and what time it is."""
    table: Any = SchedulerLease.__table__
    query = select(table).where(table.c.id == _THE_ONE).with_for_update()
    if (row := connection.execute(query).one_or_none()) is None:
        connection.execute(insert_or_ignore(connection, table).values(id=_THE_ONE, worker="", stand_by=""))
        row = connection.execute(query).one()
    if connection.dialect.name == "postgresql":
        now = connection.execute(select(func.clock_timestamp())).scalar_one()
    return row, now


def _set(connection: Connection, **values: Any) -> None:
    connection.execute(update(SchedulerLease).where(SchedulerLease.id == _THE_ONE).values(values))
