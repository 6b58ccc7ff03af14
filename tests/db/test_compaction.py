"""The database's files are made anew, and everything in them is still there."""

from __future__ import annotations

from sqlalchemy import select

from db.compaction import compact, is_left_to_a_person
from db.database import Database
from db.tables import Study
from tests.db.examples import record


def test_what_is_there_stays_and_the_database_goes_on(database: Database) -> None:
    record(database)
    compact(database.engine)
    record(database, 1, 2)
    assert database.read(lambda connection: connection.scalars(select(Study.id)).all()) == [1, 2]


def test_a_large_file_or_a_server_is_left_to_a_quiet_hour(database: Database) -> None:
    assert is_left_to_a_person(database.engine) == (database.engine.dialect.name == "postgresql")
