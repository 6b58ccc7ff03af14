"""The connection to SQLite or PostgreSQL, configured so that a commit is durable."""

from __future__ import annotations

import math
import os
import random
import sqlite3
import stat
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError

from config.private_files import FILE_MODE
from db.connection_problem import connection_problem
from db.errors import DatabaseURLError

WRITING = "pleura_writing"
"""Execution option of connections that write: on SQLite they take the write lock when they begin."""

_BUSY_MILLISECONDS = 30_000
_IMPATIENT = "pleura_impatient"
_LOOK_SECONDS = (0.0005, 0.003)
"""So long a writer waits at least and at most until it looks again whether the write lock is free."""
ANSWER_SECONDS = 20.0
"""So long a statement may take; a sender waits longer than that for the answer to its C-STORE."""

_CACHE_KIB = 8000
"""At most so much of a SQLite file is kept by a connection: a page of the worklist of a million studies needs 2.4 MB,
just more than SQLite would keep."""

_UNASKED_SECONDS = 0.5
"""So long a connection of PostgreSQL may rest and is taken to be alive; HikariCP's figure."""

MIGRATION_LOCK = 0x506C6575  # "Pleu": the key of PostgreSQL's advisory lock, the same in every process
_OLDEST_SQLITE = (3, 35, 0)  # INSERT … RETURNING

# A connection for each association of a busy listener; and no values (they name patients) in the text of errors. The
# latest one is taken first: a SQLite connection forgets the pages that it has read once another one has written.
_COMMON: dict[str, Any] = {"pool_size": 8, "max_overflow": 56, "pool_use_lifo": True, "hide_parameters": True}


def connect(url: str, *, answer_seconds: float = ANSWER_SECONDS) -> Engine:
    """Make the engine for ``url`` (``sqlite:////absolute/path`` or ``postgresql+psycopg://…``).

    It may be shared by threads, and survives a fork: a child opens connections of its own. A PostgreSQL that has not
    answered a statement after ``answer_seconds`` is an ``OperationalError``.

    Raises:
        DatabaseURLError: the URL cannot be read, or names neither a SQLite file nor a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise DatabaseURLError("the database URL cannot be read; write postgresql+psycopg://user@host/name") from error
    if parsed.get_backend_name() == "sqlite":
        engine = _connect_sqlite(parsed)
    elif parsed.get_backend_name() == "postgresql":
        postgresql = parsed.set(drivername="postgresql+psycopg")
        engine = create_engine(postgresql, **_COMMON)
        event.listen(engine, "do_connect", _opener(answer_seconds))
        _ask_after_a_pause(engine)
    else:
        raise DatabaseURLError(f"databases of kind {parsed.get_backend_name()} are not supported: SQLite or PostgreSQL")
    _survive_forks(engine)
    return engine


def _opener(answer_seconds: float) -> Any:
    def open_connection(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> Any:
        # Imported here: a node on SQLite does not carry the driver.
        from db.postgresql_timeouts import open_bounded

        return open_bounded(parameters, answer_seconds)

    return open_connection


def _ask_after_a_pause(engine: Engine) -> None:
    """Ask a connection that has rested whether it is still one: a restarted server or a firewall has closed it.

    One that was in use a moment ago is not asked, for in a burst that would be a sixth of all round trips. It begins
    transactions again, whoever had it before.
    """

    def rests(_driver: object, record: Any) -> None:
        record.info["rests_since"] = time.monotonic()

    def wakes(driver: Any, record: Any, _fairy: object) -> None:
        since = record.info.get("rests_since", math.inf)
        try:
            if driver.autocommit:  # it was one for reading
                driver.autocommit = False
            if time.monotonic() - since > _UNASKED_SECONDS:
                engine.dialect.do_ping(driver)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error

    event.listen(engine, "checkin", rests)
    event.listen(engine, "checkout", wakes)


def writing(engine: Engine) -> Engine:
    """Give the same engine for transactions that write."""
    return engine.execution_options(**{WRITING: True})


def reading(engine: Engine) -> Connection:
    """Open a connection for what only reads.

    On PostgreSQL nothing is begun or rolled back then, which saves two round trips; each statement sees what is
    committed when it begins, as it would in a transaction (READ COMMITTED). On SQLite a transaction costs nothing, and
    all of its statements see one state.
    """
    connection = engine.connect()
    if engine.dialect.name == "postgresql":
        # As SQLAlchemy's isolation level AUTOCOMMIT, which takes as long again as a connection from the pool.
        driver: Any = connection.connection.driver_connection
        driver.autocommit = True
    return connection


def begins_nothing(connection: Connection) -> bool:
    """Whether each of its statements is a transaction of its own, as on PostgreSQL after :func:`reading`."""
    if connection.dialect.name != "postgresql":
        return False
    driver: Any = connection.connection.driver_connection
    return bool(driver.autocommit)


def _connect_sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise DatabaseURLError(
            "SQLite in memory is not shared by processes; name a file: sqlite:////path/pleura.sqlite"
        )
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise DatabaseURLError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or later is needed")
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"), connect_args={"timeout": _BUSY_MILLISECONDS / 1000}, **_COMMON
    )
    event.listen(engine, "do_connect", _make_sqlite)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "checkin", _wait_again)
    return engine


def _make_sqlite(_dialect: object, _record: object, arguments: Sequence[str], parameters: Mapping[str, Any]) -> None:
    """Make a new file that its group may write where the umask lets it: SQLite would ask for 0644.

    What SQLite puts beside it gets its permissions. The file is not opened here: closing it would let go the locks that
    another thread holds on it (fcntl(2)).
    """
    if not parameters.get("uri"):
        with suppress(OSError):  # it is there, or SQLite says why it cannot be
            os.mknod(arguments[0], stat.S_IFREG | FILE_MODE)


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Write-ahead log with an fsync at each commit; the driver leaves transactions to us."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
    _use_write_ahead_log(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    cursor.close()


def _use_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    """Change the journal of a new file; of processes that start together one does it, and the others look again.

    SQLite answers "database is locked" to them at once: its busy timeout does not hold for this change.
    """
    for pause in (*[0.02] * 250, None):
        try:
            if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if pause is None:
                raise
            time.sleep(pause)


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once where this transaction writes.

    A transaction that reads first and writes later cannot wait for the lock: SQLite would fail it at once.
    """
    driver = cast(sqlite3.Connection, connection.connection.driver_connection)
    if not connection.get_execution_options().get(WRITING, False):
        driver.execute("BEGIN")  # by SQLAlchemy it takes 20 times as long, and it waits for nothing
        return
    # Whoever has the lock waits for nothing more, so the next transaction of a connection that is kept finds it so.
    if not connection.info.get(_IMPATIENT):
        connection.info[_IMPATIENT] = True
        driver.execute("PRAGMA busy_timeout=0")
    if not _lock_taken(driver):
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # says why it cannot be taken


def _wait_again(driver: sqlite3.Connection | None, record: Any) -> None:
    """Let SQLite wait, as for a reader, on a connection that goes back to the pool."""
    if record.info.pop(_IMPATIENT, False) and driver is not None:
        driver.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")


def _lock_taken(connection: sqlite3.Connection) -> bool:
    """Begin a transaction with the write lock as soon as it is free; False where it cannot be had.

    SQLite would wait ever longer between two looks, up to a tenth of a second. Where many write, those that come later
    are quicker then: behind a burst one STAT image in five waited for a third of a second.
    """
    until = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                return False
            time.sleep(random.uniform(*_LOOK_SECONDS))  # noqa: S311 - a pause is no secret
        else:
            return True


def _survive_forks(engine: Engine) -> None:
    """A connection must not be used by two processes: a child forgets its parent's, without closing them."""
    alive = weakref.ref(engine)

    def forget() -> None:
        inherited = alive()
        if inherited is not None:
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=forget)


def migrate(engine: Engine, stop: threading.Event | None = None) -> None:
    """Bring the schema to the newest revision, where it is not there already.

    Processes that start together queue up: the whole migration is one transaction behind a lock. On PostgreSQL it is
    given up, and rolled back, where ``stop`` is set before its end.
    """
    if look_at_schema(engine) is None:
        return
    # Alembic is needed only while a node starts.
    with _without_pygments():
        from alembic import command

    config = _alembic_config()
    with writing(engine).begin() as connection:
        if engine.dialect.name == "postgresql":
            _take_all_the_time(connection, stop)
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _take_all_the_time(connection: Connection, stop: threading.Event | None) -> None:
    """A migration of large tables, or waiting for another process' one, has no limit; its connection ends with it."""
    driver: Any = connection.connection.driver_connection
    driver.answer_seconds, driver.stop = None, stop
    connection.detach()
    connection.execute(text("SET LOCAL statement_timeout = 0"))


@dataclass(frozen=True, slots=True)
class SchemaProblem:
    """Why the schema is not that of this version, and whether :func:`migrate` makes it so."""

    sentence: str
    migrates: bool = True


def look_at_schema(engine: Engine) -> SchemaProblem | None:
    """What keeps the database from being used as it is; None where it has this version's schema.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    with _without_pygments():
        from alembic.migration import MigrationContext
        from alembic.script import ScriptDirectory

    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    script = ScriptDirectory.from_config(_alembic_config())
    if current == script.get_current_head():
        return None
    if current is None:
        return SchemaProblem("the database is empty; `pleura serve` makes its tables")
    known = {revision.revision for revision in script.walk_revisions()}
    if current in known:
        older = "older than this version needs; `pleura serve` brings it up to date"
        return SchemaProblem(f"the schema is at revision {current}, {older}")
    newer = "which a newer version of Pleura has made; install that version"
    return SchemaProblem(f"the schema is at revision {current}, {newer}", migrates=False)


def schema_problem(engine: Engine) -> str | None:
    """Say in a sentence why the database cannot be used as it is, or None where it can."""
    try:
        found = look_at_schema(engine)
    except SQLAlchemyError as error:
        return str(connection_problem(error, engine.url))
    return None if found is None else found.sentence


BEFORE_RELEASE_REMEDY = "keep it aside, name an empty one, and send the studies again"
_NAMED_COLUMNS = 5


def missing_columns(engine: Engine) -> tuple[str, ...]:
    """Columns, as ``table.column``, that this version needs and a database of its own revision lacks.

    Until the first release the only migration is edited in place, so what a version before has made may lack some.
    """
    from db import audit_tables, order_tables, user_tables  # noqa: F401 - they add their tables
    from db.tables import Base

    there = {
        name: {each["name"] for each in columns} for (_, name), columns in inspect(engine).get_multi_columns().items()
    }
    wanted = ((table.name, column.name) for table in Base.metadata.sorted_tables for column in table.columns)
    return tuple(f"{table}.{column}" for table, column in wanted if column not in there.get(table, ()))


def made_before_release(engine: Engine) -> str:
    """Say in a sentence what :func:`missing_columns` finds; empty where it finds nothing."""
    missing = missing_columns(engine)
    named = ", ".join(missing[:_NAMED_COLUMNS]) + (", …" if len(missing) > _NAMED_COLUMNS else "")
    return f"it was made before the first release and lacks {named}: no job can be ended" if missing else ""


@contextmanager
def _without_pygments() -> Iterator[None]:
    """Import Alembic in here. It brings Mako, which imports all lexers of Pygments where it can, to colour its errors:
    5 MB in every process."""
    is_there = "pygments" in sys.modules
    if not is_there:
        sys.modules["pygments"] = None  # type: ignore[assignment]  # an import of it fails: docs of sys.modules
    try:
        yield
    finally:
        if not is_there:
            del sys.modules["pygments"]


def _alembic_config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).resolve().parent / "migrations").replace("%", "%%"))
    return config
