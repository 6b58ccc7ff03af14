"""The migrations make the schema of the code, on both databases, however many processes start at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Engine, inspect, text

from db.database import Database
from db.engine import _alembic_config, connect, migrate, schema_problem, writing
from db.queries.worklist import Worklist
from db.tables import Base
from tests.db.examples import record
from tests.rules import NO_RULES


@pytest.fixture
def empty(empty_url: str) -> Iterator[Engine]:
    engine = connect(empty_url)
    yield engine
    engine.dispose()


def test_the_migrations_make_what_the_tables_say(empty: Engine) -> None:
    assert "empty" in str(schema_problem(empty))
    migrate(empty)
    assert schema_problem(empty) is None
    with empty.connect() as connection:
        # Alembic cannot compare the default '' as SQLite tells it.
        defaults = empty.dialect.name == "postgresql"
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": defaults}
        )
        assert compare_metadata(context, Base.metadata) == []
    assert "worklist" in inspect(empty).get_view_names()


def test_migrating_again_keeps_what_is_there(empty: Engine) -> None:
    migrate(empty)
    record(Database(empty, NO_RULES))
    migrate(empty)
    assert len(Worklist(Database(empty, NO_RULES).engine).page()) == 1


def test_the_migrations_can_be_taken_back(empty: Engine) -> None:
    migrate(empty)
    config = _alembic_config()
    with writing(empty).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert set(inspect(empty).get_table_names()) <= {"alembic_version"}
    migrate(empty)
    assert schema_problem(empty) is None


def test_a_migration_that_fails_leaves_nothing_half_done(empty: Engine) -> None:
    with writing(empty).begin() as connection:
        connection.execute(text("CREATE TABLE deliveries (id INTEGER)"))
    with pytest.raises(Exception, match="deliveries"):
        migrate(empty)
    assert set(inspect(empty).get_table_names()) <= {"deliveries", "alembic_version"}
    assert "empty" in str(schema_problem(empty))


def test_a_newer_schema_is_named(empty: Engine) -> None:
    migrate(empty)
    with writing(empty).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'tomorrow'"))
    assert "tomorrow" in str(schema_problem(empty))
    with pytest.raises(CommandError):
        migrate(empty)


def test_a_database_that_does_not_answer_is_told_apart() -> None:
    engine = connect("postgresql://nobody@/nothing?host=/nonexistent")
    assert "no PostgreSQL answers at /nonexistent" in str(schema_problem(engine))


def _migrate(url: str, start: Barrier) -> None:
    engine = connect(url)
    start.wait(60)
    migrate(engine)
    engine.dispose()


def test_processes_that_start_together_migrate_once(empty_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_migrate, args=(empty_url, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    engine = connect(empty_url)
    assert schema_problem(engine) is None
    engine.dispose()
