"""Cursors are kept on PostgreSQL: for one user at a time, few, without large results, as long as their connection."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, bindparam, select, text
from sqlalchemy.exc import DBAPIError

from db import tables
from db.kept_cursors import put_back, take
from db.prepared_statements import Prepared

ONE = "SELECT 1"
FIND = Prepared(lambda _: select(tables.Model.name).where(tables.Model.name == bindparam("name")))


@pytest.fixture
def postgresql(engine: Engine) -> Engine:
    if engine.dialect.name != "postgresql":
        pytest.skip("cursors of SQLite are closed")
    return engine


def used(connection: Connection, statement: str = ONE, rows: int = 1) -> Any:
    cursor = take(connection, statement)
    cursor.execute(statement)
    put_back(connection, statement, cursor, rows)
    return cursor


def test_a_cursor_of_sqlite_is_closed(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("cursors of PostgreSQL are kept")
    with engine.connect() as connection:
        cursor = used(connection)
        assert take(connection, ONE) is not cursor
        with pytest.raises(engine.dialect.loaded_dbapi.Error, match="closed"):
            cursor.execute(ONE)


def test_a_cursor_serves_its_statement_again_and_nobody_else_meanwhile(postgresql: Engine) -> None:
    with postgresql.connect() as connection:
        cursor = used(connection)
        assert take(connection, "SELECT 2") is not cursor
        assert take(connection, ONE) is cursor
        assert take(connection, ONE) is not cursor
    with postgresql.connect() as connection:
        put_back(connection, ONE, cursor, 1)
    with postgresql.connect() as connection:
        assert take(connection, ONE) is cursor, "also when its connection has been in the pool"


def test_few_cursors_are_kept_and_no_large_result(postgresql: Engine) -> None:
    with postgresql.connect() as connection:
        assert used(connection, rows=1000).closed
        cursors = [used(connection, f"SELECT {number}") for number in range(100)]
        assert [cursor.closed for cursor in cursors] == [True] * 36 + [False] * 64


def test_a_statement_goes_on_after_an_error_and_on_a_new_connection(postgresql: Engine) -> None:
    def name() -> Any:
        with postgresql.connect() as connection:
            return FIND.first(connection, {"name": "none"}), connection.scalar(text("SELECT pg_backend_pid()"))

    found, backend = name()
    with postgresql.connect() as connection, pytest.raises(DBAPIError):
        FIND.first(connection, {"name": "\0"})
    assert name() == (found, backend) == (None, backend)

    def ask_an_ended_backend() -> None:
        with postgresql.connect() as connection:
            with postgresql.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:backend)"), {"backend": backend})
            FIND.first(connection, {"name": "none"})

    with pytest.raises(DBAPIError):
        ask_an_ended_backend()
    assert name()[1] != backend
