"""Database and broker of a campaign's node, and what may happen to them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import create_engine, text

from tests import postgres
from tests.integration.pleura import Pleura, descendants
from tests.orthanc import wait_until

_COUNTS = """
select 'job ' || state, count(*) from jobs group by state
union all select 'delivery ' || state, count(*) from deliveries group by state
union all select 'study ' || state, count(*) from studies group by state
union all select 'instance', count(*) from instances
"""
_AUDITED = "select distinct study_instance_uid from audit where action = 'receive' and not failed"
_ANALYSED = "select distinct actor from events where entity = 'job' and to_state = 'done'"
_DAYS = "select count(distinct substr(cast(created_at as text), 1, 10)) from jobs"


class Database(Protocol):
    """The truth, and three ways in which it does not answer."""

    @property
    def url(self) -> str | None:
        """Its address; None for the node's own."""
        ...

    def counts(self) -> Counter[str]:
        """Jobs, deliveries and studies by state (``job done``, ``study open``), and instances."""
        ...

    def days(self) -> int:
        """On how many days jobs were made, as the node's clock had it."""
        ...

    def audited(self) -> set[str]:
        """Study Instance UIDs of which the audit trail says that something was received."""
        ...

    def analysing(self) -> set[str]:
        """The processes that have analysed an image, by the names of their claims."""
        ...

    def lock(self, seconds: float) -> None:
        """Hold a lock that every writer waits for."""
        ...

    def hang(self, seconds: float) -> None:
        """Answer nothing for so long, with the connections open."""
        ...

    def gone(self, seconds: float) -> None:
        """Kill -9, and come back after so long."""
        ...

    def byte_count(self) -> int:
        """What it takes on the disk."""
        ...

    def processes(self) -> list[int]:
        """Its processes, without those of the node."""
        ...

    def kill(self) -> None:
        """Kill -9."""
        ...

    def start(self) -> None:
        """Start it again, and wait until it answers."""
        ...

    def drop(self) -> None:
        """Remove the database, and not what holds it."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class Sqlite:
    """SQLite in the store folder: no process that could hang or die but the node's own."""

    url = None

    def __init__(self, store: Path) -> None:
        self._path = store / "pleura.sqlite"

    def counts(self) -> Counter[str]:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=60)) as connection:
            return Counter(dict(connection.execute(_COUNTS).fetchall()))

    def days(self) -> int:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=60)) as connection:
            return int(connection.execute(_DAYS).fetchone()[0])

    def audited(self) -> set[str]:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=60)) as connection:
            return {str(uid) for (uid,) in connection.execute(_AUDITED)}

    def analysing(self) -> set[str]:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=60)) as connection:
            return {str(name) for (name,) in connection.execute(_ANALYSED)}

    def lock(self, seconds: float) -> None:
        with closing(sqlite3.connect(self._path, timeout=60, isolation_level=None)) as connection:
            connection.execute("begin exclusive")
            time.sleep(seconds)
            connection.execute("rollback")

    hang = lock
    gone = lock

    def byte_count(self) -> int:
        return sum(path.stat().st_size for path in self._path.parent.glob("pleura.sqlite*"))

    def processes(self) -> list[int]:
        return []

    def kill(self) -> None:
        return

    start = drop = kill

    def stop(self) -> None:
        return


class Postgresql:
    """A server of its own, with fsync: it must come back from kill -9 with all that it has committed."""

    def __init__(self, folder: Path, *, fsync: bool = True, options: tuple[str, ...] = ()) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        self._folder = folder
        self._options = ("-c", "max_connections=200", "-c", f"fsync={'on' if fsync else 'off'}", *options)
        self.process = postgres.start(folder, *self._options)
        self.url = postgres.PostgresServer(folder).create_database()
        self._engine = create_engine(self.url, pool_pre_ping=True)

    def counts(self) -> Counter[str]:
        with self._engine.connect() as connection:
            return Counter({str(name): int(count) for name, count in connection.execute(text(_COUNTS))})

    def days(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.execute(text(_DAYS)).scalar_one())

    def audited(self) -> set[str]:
        with self._engine.connect() as connection:
            return set(connection.scalars(text(_AUDITED)))

    def analysing(self) -> set[str]:
        with self._engine.connect() as connection:
            return set(connection.scalars(text(_ANALYSED)))

    def lock(self, seconds: float) -> None:
        with self._engine.begin() as connection:
            connection.execute(text("lock table studies, jobs, deliveries in access exclusive mode"))
            time.sleep(seconds)

    def hang(self, seconds: float) -> None:
        processes = self.processes()
        signal_all(processes, signal.SIGSTOP)
        time.sleep(seconds)
        signal_all(processes, signal.SIGCONT)

    def gone(self, seconds: float) -> None:
        self.kill()
        time.sleep(seconds)
        self.start()

    def processes(self) -> list[int]:
        return [self.process.pid, *descendants(self.process.pid)]

    def kill(self) -> None:
        processes = self.processes()
        signal_all(processes, signal.SIGKILL)
        self.process.wait(30)
        # A server does not start while children of the dead one still hold its shared memory.
        wait_until(lambda: not any(map(is_alive, processes)), "the end of all of it")

    def drop(self) -> None:
        self._engine.dispose()
        name = str(self._engine.url.database)
        postgres.PostgresServer(self._folder).execute(f"DROP DATABASE {name} WITH (FORCE)")

    def start(self) -> None:
        self.process = postgres.start_again(self._folder, *self._options)

    def byte_count(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.execute(text("select pg_database_size(current_database())")).scalar_one())

    def stop(self) -> None:
        self._engine.dispose()
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(60)


class Broker(Protocol):
    """What wakes the workers."""

    @property
    def url(self) -> str | None:
        """Its address; None for the node's own."""
        ...

    def freeze(self, seconds: float) -> None:
        """Stop the process for so long (SIGSTOP)."""
        ...

    def flush(self) -> None:
        """Take away all that it holds."""
        ...

    def kill(self) -> None:
        """Kill -9; it is started again."""
        ...

    def byte_count(self) -> int:
        """Memory of its data."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class Embedded:
    """The node's own broker, which the node starts again."""

    url = None

    def __init__(self, node: Pleura, socket: Path) -> None:
        self._node = node
        self._redis = Redis(unix_socket_path=str(socket), socket_timeout=10)

    def freeze(self, seconds: float) -> None:
        process = self._node.parts().get("broker")
        if process is not None:
            _freeze(process, seconds)

    def flush(self) -> None:
        wait_until(lambda: _flushed(self._redis), "an answer of the broker", alive=self._node.check_alive)

    def kill(self) -> None:
        self._node.kill_part("broker")

    def byte_count(self) -> int:
        return int(self._redis.info("memory")["used_memory"])

    def stop(self) -> None:
        self._redis.close()


class RedisServer:
    """Debian's Redis on a socket of its own, without persistence."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder, self._socket = folder, folder / "redis.sock"
        self.url = f"redis+socket://{self._socket}"
        self._redis = Redis(unix_socket_path=str(self._socket), socket_timeout=10)
        self.process = self._start()

    def freeze(self, seconds: float) -> None:
        _freeze(self.process.pid, seconds)

    def flush(self) -> None:
        wait_until(lambda: _flushed(self._redis), "an answer of the broker")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self.process = self._start()

    def byte_count(self) -> int:
        return int(self._redis.info("memory")["used_memory"])

    def stop(self) -> None:
        self._redis.close()
        self.process.terminate()
        self.process.wait(30)

    def _start(self) -> subprocess.Popen[bytes]:
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--appendonly", "no"]
        process = subprocess.Popen(["redis-server", *options], cwd=self._folder, stdout=subprocess.DEVNULL)
        wait_until(lambda: _answers(self._redis), "Redis", pause=0.05)
        return process


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except (RedisError, OSError):
        return False


def _flushed(redis: Redis) -> bool:
    try:
        return bool(redis.flushall())
    except (RedisError, OSError):
        return False


def _freeze(process: int, seconds: float) -> None:
    signal_all([process], signal.SIGSTOP)
    time.sleep(seconds)
    signal_all([process], signal.SIGCONT)


def is_alive(process: int) -> bool:
    """Whether a thread of a process runs; one that nobody has waited for yet does not.

    Its first thread may have ended while another, which held files, is still on its way out.
    """
    for state in Path(f"/proc/{process}/task").glob("*/stat"):
        try:
            if state.read_text().rpartition(")")[2].split()[0] not in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


def signal_all(processes: list[int], number: int) -> None:
    """Send a signal to those that are still there."""
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
