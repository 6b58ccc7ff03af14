"""A reader role reads the reports, changes nothing, and never sees what is secret: on a real PostgreSQL."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from db.reader_role import readable, reader_role_sql
from db.tables import Base
from db.views import VIEWS
from tests.postgres import PostgresServer, programs

SECRETS = re.compile(r"password|secret|digest|csrf|token|nonce|verifier")
NO_SECRETS = {"digest"}
"""Of files and messages: what they hold is elsewhere in the database."""


def test_no_table_with_secrets_is_readable() -> None:
    for table in Base.metadata.sorted_tables:
        secret = [one.name for one in table.columns if SECRETS.search(one.name) and one.name not in NO_SECRETS]
        assert not secret or table.name not in readable(patients=True)


def test_a_name_is_no_way_to_write_sql() -> None:
    with pytest.raises(ValueError, match="no name for a role"):
        reader_role_sql("x; DROP TABLE studies", patients=False)


def _role(server: PostgresServer, url: str, name: str, *, patients: bool) -> Iterator[Engine]:
    """Make the role as the documentation says, twice, and log in as it."""
    database = make_url(url).database
    psql = [str(programs() / "psql"), "-v", "ON_ERROR_STOP=1", "-q", "-U", "postgres", "-h", str(server.folder)]
    for _ in range(2):
        subprocess.run([*psql, str(database)], input=reader_role_sql(name, patients=patients), text=True, check=True)
    engine = create_engine(make_url(url).set(username=name))
    yield engine
    engine.dispose()
    for statement in (f"DROP OWNED BY {name}", f"DROP ROLE {name}"):
        subprocess.run([*psql, "-c", statement, str(database)], check=True)


@pytest.fixture
def reader(postgres_server: PostgresServer, migrated_database: str) -> Iterator[Engine]:
    yield from _role(postgres_server, migrated_database, "reports", patients=False)


@pytest.fixture
def full_reader(postgres_server: PostgresServer, migrated_database: str) -> Iterator[Engine]:
    yield from _role(postgres_server, migrated_database, "reports_of_patients", patients=True)


def _may(engine: Engine, statement: str) -> bool:
    with engine.connect() as connection:
        try:
            connection.execute(text(statement))
        except DBAPIError as error:
            if not re.search("permission denied|read-only transaction|must be owner", str(error)):
                raise
            return False
    return True


@pytest.mark.peer("postgres")
def test_it_reads_the_reports_and_nothing_that_names_patients(reader: Engine) -> None:
    names = [*(view.name for view in VIEWS), *Base.metadata.tables]
    assert {name for name in names if _may(reader, f"SELECT * FROM {name}")} == set(readable(patients=False))


@pytest.mark.peer("postgres")
def test_it_reads_patients_where_that_was_asked_for_but_no_secrets(full_reader: Engine) -> None:
    refused = {name for name in Base.metadata.tables if not _may(full_reader, f"SELECT * FROM {name}")}
    assert refused >= {"users", "sessions", "api_tokens", "login_attempts"}
    assert all(_may(full_reader, f"SELECT * FROM {view.name}") for view in VIEWS)


@pytest.mark.peer("postgres")
@pytest.mark.parametrize("first", ["", "SET default_transaction_read_only = off; "])
def test_it_changes_nothing(full_reader: Engine, first: str) -> None:
    for statement in (
        "UPDATE studies SET priority = 'routine'",
        "DELETE FROM audit",
        "INSERT INTO models VALUES ('m', '1', now())",
        "CREATE TABLE mine (id integer)",
        "DROP VIEW worklist",
        "TRUNCATE events",
    ):
        assert not _may(full_reader, first + statement)
