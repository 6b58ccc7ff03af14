"""Every test of this room runs on SQLite and on a real PostgreSQL, on the schema that the migrations make."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text

from db.database import Database
from db.engine import connect, migrate
from tests.postgres import PostgresServer, postgres_server
from tests.rules import NO_RULES

__all__ = ["postgres_server"]

MEMORY = Path("/dev/shm")
BOTH = [pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.peer("postgres"))]


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.sqlite"
    engine = connect(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def migrated_database(postgres_server: PostgresServer) -> str:
    """URL of a database whose tables each test leaves empty."""
    url = postgres_server.create_database()
    engine = connect(url)
    migrate(engine)
    engine.dispose()
    return url


def _clear(url: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        names = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
        # A superuser may leave out the triggers that keep the audit trail.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(f"TRUNCATE {', '.join(names)} RESTART IDENTITY CASCADE"))
    engine.dispose()


@pytest.fixture(params=BOTH)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database()


@pytest.fixture
def second_url(request: pytest.FixtureRequest, empty_url: str, tmp_path: Path) -> str:
    """URL of another database without tables, of the same system."""
    if empty_url.startswith("sqlite"):
        return f"sqlite:///{tmp_path}/second.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database()


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a migrated database without rows."""
    if request.param == "sqlite":
        # In memory where the system can: fsync on a busy disk would be most of the time of these tests.
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            path = Path(folder) / "test.sqlite"
            shutil.copy(request.getfixturevalue("migrated_file"), path)
            yield f"sqlite:///{path}"
    else:
        database: str = request.getfixturevalue("migrated_database")
        yield database
        _clear(database)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def database(engine: Engine) -> Database:
    return Database(engine, NO_RULES)
