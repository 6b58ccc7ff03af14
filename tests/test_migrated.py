"""A copied database is one that the migrations have made."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, text

from db.engine import connect, schema_problem
from db.engine import migrate as run_migrations
from tests.migrated import migrate


def _statements(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")))


def test_a_copy_has_the_schema_that_the_migrations_make(tmp_path: Path) -> None:
    copied, made = (connect(f"sqlite:///{tmp_path}/{name}.sqlite") for name in ("copied", "made"))
    migrate(copied)
    run_migrations(made)
    assert schema_problem(copied) is None
    assert _statements(copied) == _statements(made) != []


def test_a_database_that_is_there_is_kept_and_migrated(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/old.sqlite")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE mine (word TEXT)"))
    migrate(engine)
    assert schema_problem(engine) is None
    assert "CREATE TABLE mine (word TEXT)" in _statements(engine)
