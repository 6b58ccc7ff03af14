"""The database's files are made anew, and everything in them is still there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

from sqlalchemy import select

from db.compaction import compact, is_left_to_a_person
from db.database import Database
from db.engine import connect
from db.tables import Study
from tests.db.examples import record

# Takes SQLite's lock of whoever writes the log back (WAL_CKPT_LOCK, sqlite.org/walformat.html), until it is killed.
_EMPTIES_THE_LOG = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, 1, 121)
    print("begins", flush=True)
    sys.stdin.read()
"""


def test_what_is_there_stays_and_the_database_goes_on(database: Database) -> None:
    record(database)
    compact(database.engine)
    record(database, 1, 2)
    assert database.read(lambda connection: connection.scalars(select(Study.id)).all()) == [1, 2]


def test_another_process_that_empties_the_log_just_now_is_waited_for(migrated_file: Path, tmp_path: Path) -> None:
    """As the scheduler of a running node, of which `pleura erase` said that files could not be removed."""
    path = shutil.copy(migrated_file, tmp_path / "test.sqlite")
    engine = connect(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert connection.scalars(select(Study.id)).all() == [], "the pool keeps this connection, and so the file"
    command = [sys.executable, "-c", _EMPTIES_THE_LOG, f"{path}-shm"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"begins\n"
        threading.Timer(0.5, other.kill).start()
        compact(engine)
    engine.dispose()


def test_a_large_file_or_a_server_is_left_to_a_quiet_hour(database: Database) -> None:
    assert is_left_to_a_person(database.engine) == (database.engine.dialect.name == "postgresql")
