"""Filters of the worklist that a user has given a name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from db.errors import DatabaseError, RecordNotFoundError
from db.user_tables import SavedFilterRow

MOST = 50
LONGEST_NAME = 60


class SavedFilterError(DatabaseError):
    """The filters cannot be saved; the message says why. Nothing was written."""


@dataclass(frozen=True, slots=True)
class SavedFilter:
    """A name and the query of the worklist's address."""

    id: int
    name: str
    query: str


def saved_filters(connection: Connection, user_id: int) -> tuple[SavedFilter, ...]:
    """What a user has saved, by name."""
    row = SavedFilterRow
    found = connection.execute(select(row.id, row.name, row.query).where(row.user_id == user_id))
    return tuple(sorted((SavedFilter(*each) for each in found), key=lambda one: one.name.casefold()))


def save_filter(connection: Connection, user_id: int, name: str, query: str, now: datetime) -> None:
    """Save ``query`` under ``name``; what the user had under that name is replaced.

    Raises:
        SavedFilterError: The name is empty or too long, or the user has too many.
    """
    name, row = " ".join(name.split()), SavedFilterRow
    if not 1 <= len(name) <= LONGEST_NAME:
        raise SavedFilterError(f"a name has 1 to {LONGEST_NAME} characters")
    own = row.user_id == user_id
    changed = update(row).where(own, row.name == name).values(query=query, created_at=now)
    if connection.execute(changed).rowcount:
        return
    if connection.execute(select(func.count()).where(own)).scalar_one() >= MOST:
        raise SavedFilterError(f"{MOST} filters are saved already; delete one first")
    connection.execute(insert(row).values(user_id=user_id, name=name, query=query, created_at=now))


def delete_filter(connection: Connection, user_id: int, filter_id: int) -> None:
    """Delete one of a user's own.

    Raises:
        RecordNotFoundError: The user has none with this number.
    """
    row = SavedFilterRow
    if not connection.execute(delete(row).where(row.id == filter_id, row.user_id == user_id)).rowcount:
        raise RecordNotFoundError("saved filter", filter_id)
