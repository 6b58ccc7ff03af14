"""Making the files of the database anew, so that nothing deleted is left in their free space."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine, text

from db.errors import DatabaseError


class CompactionError(DatabaseError):
    """The database is in use and was not made anew; it can be tried again."""


_OTHERS_SECONDS = 10.0
LARGEST_AT_ONCE = 256 * 1024 * 1024
"""A SQLite file up to this size is made anew within seconds; senders wait for a larger one for too long."""


def compact(engine: Engine) -> None:
    """Make the database's files anew: nobody writes meanwhile, on PostgreSQL nobody reads a table that is its turn.

    SQLite's ``secure_delete`` overwrites what is deleted, and not what it leaves behind when it moves rows between
    pages; ``VACUUM`` does, and its write-ahead log holds former pages until it is emptied.

    Raises:
        CompactionError: somebody uses it for too long.
    """
    if engine.dialect.name == "sqlite":
        _compact_sqlite(engine)
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        driver: Any = connection.connection.driver_connection
        driver.answer_seconds = None  # it takes as long as it takes, and the connection ends with it
        connection.detach()
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM (FULL)"))


def is_left_to_a_person(engine: Engine) -> bool:
    """Whether :func:`compact` is for a quiet hour: the SQLite file is large, or the database is another one."""
    return engine.dialect.name != "sqlite" or Path(str(engine.url.database)).stat().st_size > LARGEST_AT_ONCE


def _compact_sqlite(engine: Engine) -> None:
    with engine.connect() as connection:
        driver = cast(sqlite3.Connection, connection.connection.driver_connection)
        try:
            driver.execute("VACUUM")
            emptied = _empty_log(driver)
        except sqlite3.OperationalError as error:
            raise CompactionError(str(error)) from error
    if not emptied:
        raise CompactionError("its write-ahead log is being read")


def _empty_log(driver: sqlite3.Connection) -> bool:
    """Whether the write-ahead log was emptied.

    SQLite waits for readers by itself, and not for another process that does the same just now, as a scheduler beside
    a command: then it says at once that it is busy.
    """
    end = time.monotonic() + _OTHERS_SECONDS
    while driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
