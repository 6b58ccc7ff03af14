"""Threads whose writes are committed together: each hears what became of its own, after the commit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError, ProgrammingError

from db import engine as engine_module
from db import instances
from db.database import Database
from db.engine import connect, writing
from db.group_commit import GroupCommit
from tests.db.examples import NOW, PIPELINE, received
from tests.orthanc import wait_until
from tests.rules import NO_RULES

OTHERS = 5


class Writers:
    """A first writer whose transaction is under way, and others that come meanwhile."""

    def __init__(self, database: GroupCommit) -> None:
        self.database = database
        self.outcomes: dict[int, Any] = {}
        self._threads: list[threading.Thread] = []

    def write_behind_the_first(self, commands: list[Callable[[Connection], Any]]) -> None:
        """Let each command wait for the transaction of a first one, and wait for the end of all."""
        go_on, begun = threading.Event(), threading.Event()

        def first(connection: Connection) -> str:
            insert(connection, 0)
            begun.set()
            assert go_on.wait(30)
            return "first"

        self._begin(0, first)
        assert begun.wait(30)
        for number, command in enumerate(commands, 1):
            self._begin(number, command)
            wait_until(partial(self._so_many_wait, number), "a writer that waits", 30, 0.001)
        go_on.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _so_many_wait(self, number: int) -> bool:
        return len(self.database._waiting) == number

    def _begin(self, number: int, command: Callable[[Connection], Any]) -> None:
        def write() -> None:
            try:
                done = self.database.write(command)
                # Another connection sees at once what was answered.
                assert number in rows(self.database.engine)
                self.outcomes[number] = done
            except Exception as error:
                self.outcomes[number] = error

        thread = threading.Thread(target=write)
        thread.start()
        self._threads.append(thread)


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[Writers]:
    engine = connect(f"sqlite:///{tmp_path}/test.sqlite")
    with writing(engine).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (number INTEGER PRIMARY KEY)")
    yield Writers(GroupCommit(engine, NO_RULES))
    engine.dispose()


def insert(connection: Connection, number: int) -> int:
    connection.exec_driver_sql("INSERT INTO things VALUES (?)", (number,))
    return number * 10


def inserting(number: int) -> Callable[[Connection], int]:
    return lambda connection: insert(connection, number)


def rows(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return [number for (number,) in connection.exec_driver_sql("SELECT number FROM things ORDER BY 1")]


def commits(engine: Engine) -> list[None]:
    seen: list[None] = []
    event.listen(engine, "commit", lambda _: seen.append(None))
    return seen


def test_what_comes_during_a_transaction_is_committed_once(writers: Writers) -> None:
    seen = commits(writers.database.engine)
    writers.write_behind_the_first([inserting(number) for number in range(1, OTHERS + 1)])
    assert len(seen) == 2
    assert writers.outcomes == {0: "first"} | {number: number * 10 for number in range(1, OTHERS + 1)}


def test_more_than_others_may_wait_for_are_not_written_in_one_transaction(
    writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.group_commit._MOST_TOGETHER", 2)
    seen = commits(writers.database.engine)
    writers.write_behind_the_first([inserting(number) for number in range(1, OTHERS + 1)])
    assert len(seen) == 1 + 3
    assert rows(writers.database.engine) == list(range(OTHERS + 1))


def test_a_command_that_fails_harms_no_other(writers: Writers) -> None:
    def fail(connection: Connection) -> None:
        insert(connection, 99)
        raise ValueError("this instance alone")

    commands = [inserting(1), fail, inserting(3), inserting(0)]
    writers.write_behind_the_first(commands)
    assert {number: writers.outcomes[number] for number in (0, 1, 3)} == {0: "first", 1: 10, 3: 30}
    assert str(writers.outcomes[2]) == "this instance alone"
    assert "UNIQUE" in str(writers.outcomes[4])
    assert rows(writers.database.engine) == [0, 1, 3]


def test_all_hear_of_a_commit_that_fails_and_those_after_it_are_written(writers: Writers) -> None:
    database, left = writers.database, [False, True]

    def break_second(_: Connection) -> None:
        if left and left.pop(0):
            raise OperationalError("COMMIT", {}, Exception("disk I/O error"))

    event.listen(database.engine, "commit", break_second)
    writers.write_behind_the_first([inserting(number) for number in range(1, OTHERS + 1)])
    assert writers.outcomes.pop(0) == "first"
    assert len(writers.outcomes) == OTHERS
    assert all("disk I/O error" in str(outcome) for outcome in writers.outcomes.values())
    assert rows(database.engine) == [0]
    assert database.write(insert, 7) == 70


def test_those_who_wait_for_a_locked_database_hear_of_it_together(
    writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not each after another half minute: senders would have given up."""
    tries: list[None] = []
    take = engine_module._lock_taken

    def take_first_only(driver: sqlite3.Connection) -> bool:
        tries.append(None)
        if len(tries) > 1:
            raise OperationalError("BEGIN IMMEDIATE", {}, Exception("database is locked"))
        return take(driver)

    monkeypatch.setattr(engine_module, "_lock_taken", take_first_only)
    writers.write_behind_the_first([inserting(number) for number in range(1, OTHERS + 1)])
    assert writers.outcomes.pop(0) == "first"
    assert ["locked" in str(outcome) for outcome in writers.outcomes.values()] == [True] * OTHERS
    assert len(tries) == 2


def test_instances_of_one_study_that_come_together_are_one_study(migrated_file: Path, tmp_path: Path) -> None:
    (tmp_path / "together.sqlite").write_bytes(migrated_file.read_bytes())
    engine = connect(f"sqlite:///{tmp_path}/together.sqlite")
    database, start = GroupCommit(engine, NO_RULES), threading.Barrier(OTHERS)

    def send(number: int) -> None:
        start.wait(30)
        arguments = (received(number), None, PIPELINE, NO_RULES.patients, NOW)
        database.write(instances.record_instance, *arguments)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(OTHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with engine.connect() as connection:
        counted = connection.exec_driver_sql("SELECT images, (SELECT count(*) FROM jobs) FROM studies").all()
    engine.dispose()
    assert [tuple(row) for row in counted] == [(OTHERS, OTHERS)]


def test_all_are_written_by_one_connection_that_is_closed_with_the_others(writers: Writers, tmp_path: Path) -> None:
    engine, opened = writers.database.engine, list[None]()
    engine.dispose()
    event.listen(engine, "connect", lambda *_: opened.append(None))
    for number in range(3):
        writers.database.write(insert, number)
    assert len(opened) == 1
    assert (tmp_path / "test.sqlite-wal").exists()
    engine.dispose()
    assert not (tmp_path / "test.sqlite-wal").exists(), "SQLite removes it with the last connection"
    assert writers.database.write(insert, 3) == 30


def test_a_connection_that_has_failed_writes_no_more(writers: Writers) -> None:
    database = writers.database

    def insert_and_close(connection: Connection) -> None:
        insert(connection, 2)
        driver: Any = connection.connection.driver_connection
        driver.close()

    database.write(insert, 1)
    with pytest.raises(ProgrammingError):
        database.write(insert_and_close)
    assert database.write(insert, 3) == 30
    assert rows(database.engine) == [1, 3]


def test_it_is_a_database_as_any_other(writers: Writers) -> None:
    database: Database = writers.database
    assert database.write_all([(insert, [1]), (insert, [2])]) == [10, 20]
    assert database.read(lambda connection: rows(connection.engine)) == [1, 2]
