"""How connections are set up."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import OperationalError

from db.database import Database
from db.engine import connect, reading, writing
from db.errors import DatabaseURLError
from db.prepared_statements import Prepared
from db.queries.worklist import Worklist
from tests.db.examples import record
from tests.postgres import PostgresServer
from tests.rules import NO_RULES


def test_sqlite_is_durable_and_keeps_references(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/x.sqlite")
    with engine.connect() as connection:
        pragmas = {
            name: connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_only_who_writes_looks_for_the_lock_by_itself(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/x.sqlite")
    waits, drivers = [], set()
    for chosen in (writing(engine), engine, writing(engine), writing(engine)):
        with chosen.begin() as connection:
            waits.append(connection.scalar(text("PRAGMA busy_timeout")))
            drivers.add(id(connection.connection.driver_connection))
    assert (waits, len(drivers)) == ([0, 30_000, 0, 0], 1)


def test_the_connection_whose_pages_are_in_memory_is_taken_first(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/x.sqlite")
    several = [engine.connect() for _ in range(3)]
    for connection in several:
        connection.close()
    taken = set()
    for _ in range(3):
        with engine.connect() as connection:
            taken.add(id(connection.connection.driver_connection))
    assert len(taken) == 1


def test_a_writer_looks_often_whether_the_write_lock_of_sqlite_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = writing(connect(f"sqlite:///{tmp_path}/x.sqlite"))
    pauses: list[float] = []
    with engine.connect() as holder:
        holder.begin()

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 20:
                holder.rollback()

        monkeypatch.setattr(time, "sleep", pause)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE a (b)")
    assert len(pauses) == 20
    assert max(pauses) <= 0.003


def test_a_write_lock_that_is_never_free_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = writing(connect(f"sqlite:///{tmp_path}/x.sqlite"))
    seconds = itertools.count(step=20)
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    with engine.connect() as holder:
        holder.begin()
        with engine.connect() as connection, pytest.raises(OperationalError, match="locked"):
            connection.begin()


def test_postgresql_is_reached_with_the_driver_that_is_installed() -> None:
    assert connect("postgresql://user@/name").url.drivername == "postgresql+psycopg"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "not a url", ""])
def test_other_databases_are_refused_with_a_reason(url: str) -> None:
    with pytest.raises(DatabaseURLError, match=r"SQLite|database URL"):
        connect(url)


def test_a_password_does_not_show_in_the_error() -> None:
    with pytest.raises(DatabaseURLError) as caught:
        connect("mysql://user:secret@host/name")
    assert "secret" not in str(caught.value)


def test_a_writer_takes_the_lock_when_it_begins_and_a_reader_does_not_wait(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/x.sqlite")
    with writing(engine).begin() as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
    with writing(engine).begin() as writer, engine.connect() as reader:
        assert reader.scalar(text("SELECT count(*) FROM t")) == 0
        reader.exec_driver_sql("PRAGMA busy_timeout=0")
        with pytest.raises(Exception, match="locked"):
            reader.execute(text("INSERT INTO t VALUES (1)"))
        writer.execute(text("INSERT INTO t VALUES (2)"))


def test_a_child_after_a_fork_does_not_use_its_parents_connection(engine: Engine) -> None:
    database = Database(engine, NO_RULES)
    record(database, study=1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            record(database, study=2)
            code = 0
        finally:
            os._exit(code)
    record(database, study=3)
    assert os.waitpid(child, 0)[1] == 0
    assert len(Worklist(database.engine).page()) == 3


def test_what_only_reads_begins_nothing_on_postgresql(engine: Engine) -> None:
    def is_in_transaction(connection: Connection) -> bool:
        driver: Any = connection.connection.driver_connection
        if engine.name == "sqlite":
            return bool(driver.in_transaction)
        return bool(driver.info.transaction_status == TransactionStatus.INTRANS)

    with reading(engine) as connection:
        connection.execute(text("SELECT * FROM models"))
        assert is_in_transaction(connection) == (engine.name == "sqlite")
    with writing(engine).begin() as connection:  # the same connection, which commits no single statement now
        connection.execute(text("DELETE FROM models"))
        assert is_in_transaction(connection)


@pytest.mark.peer("postgres")
def test_a_connection_that_has_rested_is_asked_and_replaced(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(postgres_server.url("postgres"))
    asked: list[object] = []
    ping = engine.dialect.do_ping

    def counted(driver: Any) -> bool:
        asked.append(driver)
        return ping(driver)

    monkeypatch.setattr(engine.dialect, "do_ping", counted)

    def process() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)

    first = process()
    assert process() == first
    assert not asked  # it was in use a moment ago
    monkeypatch.setattr("db.engine._UNASKED_SECONDS", 0)
    assert process() == first
    assert asked
    postgres_server.execute(f"SELECT pg_terminate_backend({first})")
    assert process() != first
    engine.dispose()


@pytest.mark.peer("postgres")
@pytest.mark.parametrize("prepared", [False, True])
def test_a_connection_to_a_server_that_has_become_read_only_is_made_anew(
    postgres_server: PostgresServer, prepared: bool
) -> None:
    """One that lies in the pool would fail for ever, long after another server has become the primary."""
    engine = writing(connect(postgres_server.create_database()))
    statement = text("INSERT INTO thing VALUES (1)")

    def write() -> None:
        with engine.begin() as connection:
            if prepared:
                Prepared(lambda _dialect: statement).run(connection, {})
            else:
                connection.execute(statement)

    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE thing (number integer)"))
        connection.execute(text("SET SESSION default_transaction_read_only = on"))
    with pytest.raises(OperationalError) as raised:
        write()
    assert raised.value.connection_invalidated
    write()
    engine.dispose()


@pytest.mark.peer("postgres")
def test_a_server_that_can_only_be_read_is_not_taken_unless_the_url_says_so(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    name = make_url(url).database
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(OperationalError, match="read-only"):
        connect(url).connect()
    engine = connect(f"{url}&target_session_attrs=any")
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW default_transaction_read_only")) == "on"
    engine.dispose()
