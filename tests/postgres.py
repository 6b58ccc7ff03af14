"""A real PostgreSQL for tests: one server a session, on a Unix socket of its own, one database a test.

Import the fixture where it is needed (``from tests.postgres import postgres_server``) and mark the test with
``pytest.mark.peer("postgres")``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

_NUMBERS = count(1)


@dataclass(frozen=True)
class PostgresServer:
    """A running server; ``folder`` holds its data and its socket."""

    folder: Path
    port: int = 5432

    def url(self, database: str) -> str:
        """SQLAlchemy URL of ``database``."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}&port={self.port}"

    def create_database(self, template: str = "template1") -> str:
        """Make a new database (a copy of ``template``) and give its URL."""
        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def execute(self, statement: str) -> None:
        """Run a statement of administration."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


def programs() -> Path:
    """Folder of initdb and postgres, the newest version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = shutil.which("postgres")
    if not folders and found is None:
        raise FileNotFoundError("PostgreSQL is not installed")
    return folders[-1] if folders else Path(str(found)).resolve().parent


def start(folder: Path, *options: str, port: int = 5432) -> subprocess.Popen[bytes]:
    """Make a cluster in ``folder`` and start it; the server ends with the process that has started it.

    PostgreSQL refuses to run as root, so root hands it to the user ``postgres``.
    """
    initdb = [programs() / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    made = [*become(), *map(str, initdb), "--no-locale", "-N"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder)
    return start_again(folder, *options, port=port)


def start_again(folder: Path, *options: str, port: int = 5432) -> subprocess.Popen[bytes]:
    """Start the cluster that is in ``folder``, and wait until it answers: after a crash it recovers first."""
    server = [programs() / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", *options]
    process = subprocess.Popen(
        [*become(), *map(str, server)], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait_until_ready(PostgresServer(folder, port), process)
    return process


def become() -> list[str]:
    """Words before a command that runs it as the user of a server, which must not be root."""
    if os.geteuid() == 0:
        return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--pdeathsig", "INT"]
    return ["setpriv", "--pdeathsig", "INT"]


def _wait_until_ready(server: PostgresServer, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            server.execute("SELECT 1")
        except DBAPIError:
            if process.poll() is not None:
                raise
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("PostgreSQL did not answer for a minute")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for this session, without fsync (no test pulls the plug of the machine)."""
    folder = Path(tempfile.mkdtemp(prefix="pleura-pg-"))
    process = start(folder, "-c", "fsync=off", "-c", "max_connections=200", "-c", "deadlock_timeout=100ms")
    try:
        yield PostgresServer(folder)
    finally:
        process.send_signal(signal.SIGQUIT)  # at once: nobody needs its data again
        process.wait(60)
        shutil.rmtree(folder)
