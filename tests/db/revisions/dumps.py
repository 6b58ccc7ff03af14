"""Databases as SQL, on both systems: ``python -P -m tests.db.revisions.dumps`` keeps one of the revision that is head.

To be run once for each revision that was released, before the next one is begun; then its name goes into
:data:`RELEASED`, and from then on each test run loads it, migrates it to head and works off what was under way.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from db.database import Database
from db.engine import connect, migrate
from tests import postgres
from tests.db.revisions import work_under_way
from tests.rules import NO_RULES

RELEASED: tuple[str, ...] = ()
"""Revisions whose dumps are kept beside this file. None yet: until the first release the baseline is edited in
place."""
FOLDER = Path(__file__).resolve().parent


def path_of(revision: str, system: str) -> Path:
    """Where the dump of a revision is kept."""
    return FOLDER / f"{revision}.{system}.sql"


def dump(url: str) -> str:
    """All of a database as SQL."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(parsed.database))) as connection:
            return "\n".join(connection.iterdump())
    command = [postgres.programs() / "pg_dump", "--inserts", "--no-owner", "--no-privileges"]
    return _run(url, *map(str, command))


def load(sql: str, url: str) -> None:
    """Make the database again, in an empty one."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(parsed.database))) as connection:
            connection.executescript(sql)
        return
    _run(url, str(postgres.programs() / "psql"), "--quiet", "--set", "ON_ERROR_STOP=1", given=sql)


def _run(url: str, *command: str, given: str = "") -> str:
    parsed = make_url(url)
    where = {"PGHOST": str(parsed.query["host"]), "PGUSER": str(parsed.username), "PGDATABASE": str(parsed.database)}
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=True, env=os.environ | where, cwd="/"
    )
    return done.stdout


def made(url: str) -> str:
    """The dump of a database of this version in which work is under way; ``url`` is an empty one."""
    engine = connect(url)
    migrate(engine)
    work_under_way.make(Database(engine, NO_RULES))
    engine.dispose()
    return dump(url)


def main() -> None:
    """Keep the dumps of head, for both systems."""
    from alembic.script import ScriptDirectory

    from db.engine import _alembic_config

    head = ScriptDirectory.from_config(_alembic_config()).get_current_head()
    assert head is not None
    with tempfile.TemporaryDirectory() as folder:
        path_of(head, "sqlite").write_text(made(f"sqlite:///{folder}/made.sqlite"), encoding="utf-8")
        server = Path(folder) / "server"
        server.mkdir()
        Path(folder).chmod(0o755)
        process = postgres.start(server)
        try:
            url = postgres.PostgresServer(server).create_database()
            path_of(head, "postgresql").write_text(made(url), encoding="utf-8")
        finally:
            process.terminate()
            process.wait(60)
    print(f"kept {head}; now add it to RELEASED in {__file__}")


if __name__ == "__main__":
    main()
