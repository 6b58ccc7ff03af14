"""A PostgreSQL that hangs: a sender hears so in time, and what it was told holds when the server goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from db.database import Database
from db.ending import Ending
from db.engine import MIGRATION_LOCK, connect, migrate
from db.postgresql_timeouts import CONNECT_SECONDS, connecting
from tests import postgres
from tests.node.dicom.listening import chest, listening
from tests.node.dicom.test_storage_scp import calling, send
from tests.rules import NO_RULES

pytestmark = pytest.mark.peer("postgres")

ANSWER_SECONDS = 2.0


class Server:
    """A server of its own, which a test may stop (SIGSTOP) and let go on."""

    def __init__(self, folder: Path) -> None:
        self.process: subprocess.Popen[bytes] = postgres.start(folder, "-c", "fsync=off")
        self.admin = postgres.PostgresServer(folder)
        self.url = self.admin.create_database()

    def _signal(self, number: int) -> None:
        for pid in (self.process.pid, *children_of(self.process.pid)):
            os.kill(pid, number)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)


def children_of(parent: int) -> list[int]:
    """Process ids of the children of ``parent`` (proc(5))."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="pleura-pg-"))
    made = Server(folder)
    try:
        yield made
    finally:
        made.process.send_signal(signal.SIGQUIT)
        made.process.wait(60)
        shutil.rmtree(folder)


@pytest.fixture
def engine(server: Server) -> Iterator[Engine]:
    made = connect(server.url, answer_seconds=ANSWER_SECONDS)
    migrate(made)
    yield made
    with made.begin() as connection:
        connection.execute(text("TRUNCATE studies CASCADE"))
    made.dispose()


def test_a_process_that_is_to_end_waits_for_a_hanging_database_no_longer_than_some_seconds(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending()
    monkeypatch.setattr("db.postgresql_timeouts.OF_THIS_PROCESS", ending)
    monkeypatch.setattr("db.ending.LAST_SECONDS", 1.0)
    made = connect(server.url, answer_seconds=60)
    with made.connect() as connection:
        connection.execute(text("SELECT 1"))
        with server.hanging():
            threading.Timer(0.5, ending.begin).start()
            started = time.monotonic()
            with pytest.raises(OperationalError, match="has not answered for"):
                connection.execute(text("SELECT 2"))
            assert time.monotonic() - started < 20
    with made.connect() as connection:
        assert connection.scalar(text("SELECT 3")) == 3, "one that answers is waited for"
    made.dispose()


def test_a_process_that_is_to_end_does_not_wait_long_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = Ending()
    monkeypatch.setattr("db.postgresql_timeouts.OF_THIS_PROCESS", ending)
    assert connecting({"host": "db"})["connect_timeout"] == CONNECT_SECONDS
    assert connecting({"host": "db", "connect_timeout": 30})["connect_timeout"] == 30
    ending.begin()
    assert connecting({"host": "db", "connect_timeout": 30})["connect_timeout"] == 2


def rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM instances")).scalar_one())


def test_a_sender_hears_a700_in_time_and_is_served_when_the_database_goes_on(
    server: Server, engine: Engine, tmp_path: Path
) -> None:
    image = chest()
    with listening(tmp_path, database=Database(engine, NO_RULES)) as listener, calling(listener.port) as association:
        assert send(association, chest()) == 0
        started = time.monotonic()
        with server.hanging():
            assert send(association, image) == 0xA700
            assert time.monotonic() - started < 20, "one wait for an answer, and one for a new connection"
        time.sleep(0.5)
        assert rows(engine) == 1, "what the server finds in its sockets when it goes on records nothing"
        assert send(association, image) == 0
        assert rows(engine) == len(listener.files()) == 2


def test_what_was_refused_while_it_hung_is_not_recorded_at_the_next_start(
    server: Server, engine: Engine, tmp_path: Path
) -> None:
    database = Database(engine, NO_RULES)
    with listening(tmp_path, database=database) as listener, calling(listener.port) as association:
        assert send(association, chest()) == 0
        with server.hanging():
            assert send(association, chest()) == 0xA700
    with listening(tmp_path, database=database) as listener:
        assert rows(engine) == len(listener.files()) == 1
        assert listener.leftovers() == []


def test_a_statement_that_another_one_blocks_ends_in_time(engine: Engine) -> None:
    started = time.monotonic()
    with engine.connect() as first, engine.connect() as second:
        first.execute(text("LOCK TABLE studies"))
        with pytest.raises(OperationalError):
            second.execute(text("SELECT count(*) FROM studies"))
        assert time.monotonic() - started < 20
        second.rollback()
        assert second.execute(text("SELECT 1")).scalar_one() == 1, "the server has ended it, the connection lives"


def test_a_migration_may_take_longer_than_any_other_statement(server: Server) -> None:
    """Here it waits for another process that migrates; it holds the lock for longer than a statement may take."""
    engine = connect(server.admin.create_database(), answer_seconds=ANSWER_SECONDS)
    with engine.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        other.commit()
        waiting = threading.Thread(target=migrate, args=(engine,))
        waiting.start()
        waiting.join(ANSWER_SECONDS + 2)
        assert waiting.is_alive()
        other.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        other.commit()
    waiting.join(120)
    assert not waiting.is_alive()
