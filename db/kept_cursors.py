"""Cursors of PostgreSQL that are kept for the next time that their connection executes the same statement.

psycopg looks up how to convert each parameter and column, 30 µs for those of the worklist, and remembers it as long as
a cursor executes the same text. SQLite's cursors know nothing, and one that is open may keep others from writing.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

_KEY = "pleura_kept_cursors"
_MOST_CURSORS = 64
_MOST_ROWS = 100  # a cursor holds its last result until it executes again


def take(connection: Connection, text: str) -> Any:
    """A cursor to execute ``text``, which nobody else uses until it is given to :func:`put_back` or closed."""
    driver = connection.connection
    kept = driver.info.get(_KEY) if connection.dialect.name == "postgresql" else None
    cursor = kept.pop(text, None) if kept else None
    return driver.cursor() if cursor is None else cursor


def put_back(connection: Connection, text: str, cursor: Any, rows: int) -> None:
    """Keep a cursor that has executed ``text`` and given all of its ``rows``, or close it."""
    if connection.dialect.name != "postgresql" or rows > _MOST_ROWS:
        cursor.close()
        return
    kept = connection.connection.info.setdefault(_KEY, {})
    kept[text] = cursor
    if len(kept) > _MOST_CURSORS:
        kept.pop(next(iter(kept))).close()
