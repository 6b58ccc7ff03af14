"""Callers whose associations were rejected, with the reason, for the admin.

Anybody who reaches the port may be one of them, so the rows are few whatever is sent: a caller is one row a reason, and
of more than :data:`MOST` rows, or :data:`MOST_OF_ADDRESS` of one address, those that came least often and longest ago
go first. A modality that tries again and again stays above titles that were made up once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from db import tables

MOST = 200
MOST_OF_ADDRESS = 20
KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class RejectedAssociation:
    """How often one caller was rejected for one reason, between ``first_at`` and ``last_at``."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    reason: str
    count: int
    first_at: datetime
    last_at: datetime


def add(connection: Connection, rejected: Sequence[RejectedAssociation], now: datetime) -> None:
    """Add what was counted since the last call, and drop what is too old or too much."""
    row: Any = tables.RejectedAssociation
    make: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    for one in rejected:
        new = make(row).values(**asdict(one))
        later = {"count": row.count + new.excluded.count, "last_at": new.excluded.last_at}
        connection.execute(new.on_conflict_do_update(index_elements=row.__table__.primary_key.columns, set_=later))
    connection.execute(delete(row).where(row.last_at < now - KEPT))
    _drop_surplus(connection)


def _drop_surplus(connection: Connection) -> None:
    row: Any = tables.RejectedAssociation
    key = tuple(row.__table__.primary_key.columns)
    often = (row.count.desc(), row.last_at.desc())
    placed = select(
        *key,
        func.row_number().over(order_by=often).label("place"),
        func.row_number().over(partition_by=row.address, order_by=often).label("place_of_address"),
    ).subquery()
    surplus = or_(placed.c.place > MOST, placed.c.place_of_address > MOST_OF_ADDRESS)
    names = [placed.c[column.name] for column in key]
    connection.execute(delete(row).where(tuple_(*key).in_(select(*names).where(surplus))))


def latest(connection: Connection, since: datetime) -> tuple[RejectedAssociation, ...]:
    """Who was rejected after ``since``, the latest first."""
    row = tables.RejectedAssociation
    query = select(row.__table__).where(row.last_at > since).order_by(row.last_at.desc())
    return tuple(RejectedAssociation(**each._mapping) for each in connection.execute(query))
