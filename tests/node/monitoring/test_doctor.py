"""`pleura doctor` says what is true: of a node that runs, of one that is stopped, and of each fault that can be made.

A fault is made for real: servers, ports, files and databases. Each row of the table is fault, sentence and fix.
"""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import tomli_w
from click.testing import CliRunner
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from sqlalchemy import text

from config.settings import SettingsError, load
from db import deliveries, jobs
from db.database import Database
from db.engine import connect, migrate, writing
from node.cli.main import cli
from node.embedded_broker import answers, server_binary
from node.monitoring.check import Check
from node.monitoring.health import examine
from tests.db.examples import MINUTE, NOW, finished, record
from tests.orthanc import wait_until
from tests.ports import free_port, listens
from tests.postgres import PostgresServer, postgres_server
from tests.rules import NO_RULES
from workers.store_files import INSTANCES, SET_ASIDE
from workers.worker_id import at_place

__all__ = ["postgres_server"]


@dataclass
class Bench:
    """A node that is stopped and healthy, and what a test breaks of it."""

    folder: Path
    stack: ExitStack
    values: dict[str, Any]
    postgres: Callable[[], PostgresServer]
    ports: dict[str, int] = field(default_factory=dict)

    def set(self, section: str, **values: Any) -> None:
        self.values.setdefault(section, {}).update(values)

    def config(self) -> Path:
        path = self.folder / "pleura.toml"
        path.write_text(tomli_w.dumps(self.values), encoding="utf-8")
        return path

    def checks(self) -> list[Check]:
        return list(examine(load(self.config())))

    def occupied(self, answer: bytes = b"") -> int:
        """A port where something else listens; it answers what it is sent with ``answer`` and hangs up."""
        server = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    def silent(self) -> int:
        """A port where connections are accepted and nothing is ever said, as of a process that is stopped."""
        return int(self.stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1])

    def peer(self, **rules: Any) -> int:
        """The port of a DICOM peer ARCHIVE."""
        entity = AE("ARCHIVE")
        entity.add_supported_context(Verification)
        for name, value in rules.items():
            setattr(entity, name, value)
        server = entity.start_server(("127.0.0.1", 0), block=False)
        self.stack.callback(server.shutdown)
        return int(server.server_address[1])

    def destination(self, port: int, **values: Any) -> None:
        one = {"name": "pacs", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port, "timeout_seconds": 3}
        self.values["destinations"] = [one | values]

    def redis(self, *options: str) -> int:
        """The port of a real Redis-compatible server."""
        port = free_port()
        command = [str(server_binary(None)), "--port", str(port), "--save", "", "--dir", str(self.folder), *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        wait_until(lambda: listens(port), "Redis", pause=0.02)
        return port

    def postgres_url(self, user: str = "postgres", password: str = "", database: str = "postgres") -> None:
        """Name the server of this session in the configuration."""
        server = self.postgres()
        secret = f":{password}" if password else ""
        self.set("database", url=f"postgresql+psycopg://{user}{secret}@/{database}?host={server.folder}")

    def sqlite(self) -> Path:
        """The node's own database, made, and a store for it."""
        folder = Path(self.values["store"]["folder"])
        folder.mkdir(exist_ok=True)
        (folder / INSTANCES).mkdir(mode=0o700, exist_ok=True)
        engine = connect(f"sqlite:///{folder / 'pleura.sqlite'}")
        migrate(engine)
        engine.dispose()
        return folder / "pleura.sqlite"


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    listener, admin, hl7 = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o077))  # as the command `pleura` has it
        made = Bench(tmp_path, stack, {}, lambda: request.getfixturevalue("postgres_server"))
        made.set("store", folder=str(tmp_path / "var"), minimum_free_bytes=0)
        made.set("listener", port=listener, peers=[{"ae_title": "CT1"}])
        made.set("admin", port=admin)
        made.set("hl7", port=hl7, enabled=True)
        made.destination(made.peer())
        yield made


def bad(checks: list[Check]) -> list[Check]:
    return [check for check in checks if not check.ok]


# --- healthy ----------------------------------------------------------------------------------------------------------


def test_a_healthy_node_that_is_stopped(bench: Bench) -> None:
    found = bench.checks()
    assert bad(found) == []
    assert sum("starts with pleura serve" in check.found for check in found) == 4
    assert CliRunner().invoke(cli, ["--config", str(bench.config()), "doctor"]).exit_code == 0


@pytest.mark.peer("postgres")
def test_a_healthy_node_that_was_never_started_on_an_empty_postgresql(bench: Bench) -> None:
    bench.set("database", url=bench.postgres().create_database())
    bench.set("broker", url=f"redis://127.0.0.1:{bench.redis()}/0")
    assert bad(bench.checks()) == []


# --- faults -----------------------------------------------------------------------------------------------------------


def _store_not_writable(bench: Bench) -> None:
    folder = bench.folder / "a-file"
    folder.touch()
    bench.set("store", folder=str(folder / "var"))


def _set_aside(bench: Bench) -> None:
    (bench.folder / "var" / SET_ASIDE).mkdir(parents=True)
    (bench.folder / "var" / SET_ASIDE / "1.part").touch()


def _store_away(bench: Bench) -> None:
    bench.sqlite().rename(bench.folder / "elsewhere.sqlite")
    bench.set("database", url=f"sqlite:///{bench.folder / 'elsewhere.sqlite'}")
    engine = connect(f"sqlite:///{bench.folder / 'elsewhere.sqlite'}")
    job = record(Database(engine, NO_RULES))
    Database(engine, NO_RULES).write(jobs.claim, job, "w", NOW, 10**7 * MINUTE)
    engine.dispose()
    shutil.rmtree(bench.folder / "var" / INSTANCES)


def _store_is_open(bench: Bench) -> None:
    bench.sqlite().parent.chmod(0o755)


def _database_is_open(bench: Bench) -> None:
    bench.sqlite().chmod(0o640)


def _no_sqlite(bench: Bench) -> None:
    bench.sqlite().write_bytes(b"this is no database, and long enough to be looked at" * 100)


def _newer_schema(bench: Bench) -> None:
    with sqlite3.connect(bench.sqlite()) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'tomorrow'")
    connection.close()


def _late_job(bench: Bench) -> None:
    engine = connect(f"sqlite:///{bench.sqlite()}")
    record(Database(engine, NO_RULES))  # of the year 2026, long ago
    engine.dispose()


def _late_job_beside_a_worker(bench: Bench) -> None:
    _late_job(bench)
    for part in ("listener", "jobs", "deliveries", "scheduler", "hl7"):
        bench.stack.enter_context(at_place(bench.folder / "var", part))


def _job_for_a_gpu(bench: Bench) -> None:
    bench.set("models", gpu=["chest-classifier"])
    engine = connect(f"sqlite:///{bench.sqlite()}")
    record(Database(engine, NO_RULES), queue="jobs.gpu")
    engine.dispose()


def _failed_job(bench: Bench) -> None:
    engine = connect(f"sqlite:///{bench.sqlite()}")
    database = Database(engine, NO_RULES)
    job = record(database)
    database.write(jobs.claim, job, "w", NOW, MINUTE)
    database.write(jobs.fail, job, "w", "the time limit of 120 s is over", NOW)
    engine.dispose()


def _delivery(bench: Bench, end: Callable[[Database, int], object]) -> None:
    """A result of this node that a delivery worker has claimed, and what became of it."""
    engine = connect(f"sqlite:///{bench.sqlite()}")
    database = Database(engine, NO_RULES)
    _, [delivery, *_] = finished(database)
    assert database.write(deliveries.claim, delivery, "d1", NOW, MINUTE) is not None
    assert end(database, delivery)
    engine.dispose()


def _retried(database: Database, delivery: int) -> object:
    return database.write(deliveries.retry, delivery, "d1", "the peer cannot be reached", NOW, MINUTE)


def _held(database: Database, delivery: int) -> object:
    return database.write(deliveries.hold, delivery, "d1", "another patient there", NOW)


def _column_is_missing(bench: Bench) -> None:
    engine = connect(f"sqlite:///{bench.sqlite()}")
    with writing(engine).begin() as connection:
        connection.execute(text("ALTER TABLE findings DROP COLUMN lungs_by"))
    engine.dispose()


def _other_clock(bench: Bench) -> None:
    """A server whose clock is 90 s behind: its connections find another function of that name first."""
    server = bench.postgres()
    url = server.create_database()
    engine = connect(url)
    migrate(engine)
    with writing(engine).begin() as connection:
        connection.execute(text("CREATE SCHEMA slow"))
        behind = "SELECT pg_catalog.clock_timestamp() - interval '90 seconds'"
        connection.execute(
            text(f"CREATE FUNCTION slow.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $${behind}$$")
        )
    engine.dispose()
    joined = "&" if "?" in url else "?"
    bench.set("database", url=f"{url}{joined}options=-csearch_path%3Dpublic,slow,pg_catalog")


def _wrong_password(bench: Bench) -> None:
    bench.postgres_url("pleura_doctor", "wrong")
    server = bench.postgres()
    server.execute("DROP ROLE IF EXISTS pleura_doctor")
    server.execute("CREATE ROLE pleura_doctor LOGIN PASSWORD 'right'")
    rules = server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("local all pleura_doctor scram-sha-256\n" + before)
    server.execute("SELECT pg_reload_conf()")
    bench.stack.callback(server.execute, "SELECT pg_reload_conf()")
    bench.stack.callback(rules.write_text, before)
    wait_until(lambda: _is_asked_for_a_password(server), "the server to have read its rules", pause=0.02)


def _is_asked_for_a_password(server: PostgresServer) -> bool:
    try:
        psycopg.connect(host=str(server.folder), user="pleura_doctor", password="wrong", dbname="postgres").close()
    except psycopg.OperationalError:
        return True
    return False


def _redis(bench: Bench, *options: str, database: int = 0) -> None:
    bench.set("broker", url=f"redis://127.0.0.1:{bench.redis(*options)}/{database}")


def _twice(bench: Bench) -> None:
    """The listener's port is taken by another node of Pleura's kind."""
    bench.set("listener", port=bench.peer(require_called_aet=True))


def _all_but_the_scheduler(bench: Bench) -> None:
    """Three parts run; the broker is another machine's, so that nothing else tells that the node runs."""
    bench.set("broker", url=f"redis://127.0.0.1:{bench.redis()}/0")
    for part in ("listener", "jobs", "deliveries", "hl7"):
        bench.stack.enter_context(at_place(bench.sqlite().parent, part))


def _free_port_of_a_running_node(bench: Bench) -> None:
    """The embedded broker runs, as under `pleura serve`, and the listener does not."""
    path = load(bench.config()).broker_socket
    path.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [str(server_binary(None)), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(path.parent)],
        stdout=subprocess.DEVNULL,
    )
    bench.stack.callback(process.wait)
    bench.stack.callback(process.terminate)
    wait_until(lambda: answers(path), "the broker", pause=0.02)


FAULTS: dict[str, tuple[Callable[[Bench], Any], str, str, str]] = {
    # fault: (how to make it, part, sentence, fix)
    "store cannot be written": (_store_not_writable, "store", "is no folder", "set store.folder"),
    "store is away": (_store_away, "store", "has no folder instances", "mount it, or correct store.folder"),
    "disk is full": (lambda b: b.set("store", minimum_free_bytes=10**18), "store", "GB free", "free some space"),
    "files were set aside": (_set_aside, "store", "1 files are set aside", "send those images again"),
    "a part of several has died": (
        _all_but_the_scheduler,
        "parts",
        "the scheduler does not run, and other parts do",
        "its last lines in the log say why",
    ),
    "store is open to others": (
        _store_is_open,
        "permissions",
        "var has 0755",
        "chmod -R go-rwx /",
    ),
    "database is open to the group": (
        _database_is_open,
        "permissions",
        "pleura.sqlite has 0640",
        "chmod -R go-rwx /",
    ),
    "database url is no url": (
        lambda b: b.set("database", url="postgres at db1"),
        "database",
        "the database URL cannot be read",
        "database.url",
    ),
    "database of another kind": (
        lambda b: b.set("database", url="mysql://db/pleura"),
        "database",
        "mysql are not supported",
        "database.url",
    ),
    "database server is down": (
        lambda b: b.set("database", url="postgresql://pleura:x@127.0.0.1:1/pleura"),
        "database",
        "no PostgreSQL answers at 127.0.0.1:1",
        "start it",
    ),
    "database server has no such name": (
        lambda b: b.set("database", url="postgresql://pleura:x@no-such-host.invalid/pleura"),
        "database",
        "no-such-host.invalid:5432, cannot be resolved",
        "correct the host",
    ),
    "the database server has another time": (
        _other_clock,
        "clock",
        "the clock of this machine is 90 s ahead of the database server's",
        "follow one NTP server",
    ),
    "database password is wrong": (
        _wrong_password,
        "database",
        "the password of pleura_doctor",
        "correct the password",
    ),
    "database user is missing": (lambda b: b.postgres_url("nobody1"), "database", "has no user nobody1", "createuser"),
    "database is missing": (
        lambda b: b.postgres_url(database="nothing1"),
        "database",
        "has no database nothing1",
        "createdb --owner=postgres nothing1",
    ),
    "SQLite file is none": (_no_sqlite, "database", "is no SQLite database", "restore it from a backup"),
    "schema of a newer version": (_newer_schema, "database", "a newer version of Pleura", "restore the backup"),
    "no worker takes jobs": (_late_job, "workers", "a job has waited", "pleura worker --queue jobs"),
    "workers are too slow": (_late_job_beside_a_worker, "workers", "min (1 waiting)", "start more workers"),
    "no worker takes what needs a GPU": (
        _job_for_a_gpu,
        "workers",
        "no worker takes jobs.gpu (1 waiting)",
        "`pleura worker --queue jobs.gpu` on a machine with a GPU",
    ),
    "a job was given up": (_failed_job, "jobs", "1 given up since 2026-03-01", "workers.job_timeout_seconds"),
    "broker url is no url": (
        lambda b: b.set("broker", url="redis-server"),
        "broker",
        "broker.url cannot be read",
        "redis://",
    ),
    "broker is down": (
        lambda b: b.set("broker", url="redis://127.0.0.1:1/0"),
        "broker",
        "Redis at 127.0.0.1:1: nothing listens there",
        "start Redis",
    ),
    "broker wants a password": (
        lambda b: _redis(b, "--requirepass", "right"),
        "broker",
        "does not accept the password",
        "user and password in broker.url",
    ),
    "broker database number": (lambda b: _redis(b, database=99), "broker", "no database of that number", "the number"),
    "broker is a replica": (
        lambda b: _redis(b, "--replicaof", "127.0.0.1", "1"),
        "broker",
        "read-only replica",
        "primary server",
    ),
    "broker is something else": (
        lambda b: b.set("broker", url=f"redis://127.0.0.1:{b.occupied(b'SSH-2.0-x')}/0"),
        "broker",
        "Redis at 127.0.0.1:",
        "broker.url",
    ),
    "embedded broker is missing": (
        lambda b: b.set("broker", server=str(b.folder / "no-redis")),
        "broker",
        "is not an executable file",
        "broker.server",
    ),
    "model has no manifest": (
        lambda b: b.set("models", active=["chest-clasifier"]),
        "models",
        "there is no model 'chest-clasifier'; did you mean 'chest-classifier'?",
        "correct models.gate, models.lungs, models.active",
    ),
    "folder of models is missing": (
        lambda b: b.set("models", folder=str(b.folder / "none")),
        "models",
        "there is no such folder of models",
        "models.folder",
    ),
    "listener's port is taken": (
        lambda b: b.set("listener", port=b.occupied()),
        "listener",
        "is in use by another program",
        "listener.port",
    ),
    "listener's port is another node's": (_twice, "listener", "another AE answers", "listener.port"),
    "listener's address is elsewhere": (
        lambda b: b.set("listener", host="192.0.2.1"),
        "listener",
        "192.0.2.1 is no address of this machine",
        "listener.host",
    ),
    "listener admits nobody": (
        lambda b: b.set("listener", host="0.0.0.0", peers=[]),
        "listener",
        "no peer is configured",
        "[[listener.peers]]",
    ),
    "listener has died": (
        _free_port_of_a_running_node,
        "listener",
        "the node runs, but nothing listens",
        "see the log",
    ),
    "admin page's port is taken": (
        lambda b: b.set("admin", port=b.occupied(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")),
        "admin page",
        "is in use by another program",
        "admin.port",
    ),
    "HL7 certificate is missing": (
        lambda b: b.set("hl7", tls_certificate=str(b.folder / "none.pem")),
        "HL7 listener",
        "its certificate cannot be used",
        "hl7.tls_certificate",
    ),
    "no destination": (
        lambda b: b.values.pop("destinations"),
        "destinations",
        "none is configured",
        "[[destinations]]",
    ),
    "destination is down": (
        lambda b: b.destination(1),
        "destination pacs",
        "ARCHIVE on 127.0.0.1:1 cannot be reached",
        "host and port are right",
    ),
    "database is of another day": (
        _column_is_missing,
        "database",
        "it was made before the first release and lacks findings.lungs_by",
        "send the studies again",
    ),
    "destination was down": (
        lambda b: _delivery(b, _retried),
        "deliveries to pacs",
        "1 cannot be done since",
        "Check that the peer runs",
    ),
    "destination hangs": (
        lambda b: b.destination(b.silent(), timeout_seconds=0.5),
        "destination pacs",
        "accepts connections and answers no association request",
        "restart its DICOM service",
    ),
    "destination has no such name": (
        lambda b: b.destination(104, host="no-such-host.invalid"),
        "destination pacs",
        "the host name cannot be resolved",
        "Correct destinations[].host",
    ),
    "destination does not know us": (
        lambda b: b.destination(b.peer(require_calling_aet=["CT1"])),
        "destination pacs",
        "Calling AE title not recognised (we call as PLEURA)",
        "Register the AE title of this node",
    ),
    "destination has another title": (
        lambda b: b.destination(b.peer(require_called_aet=True), ae_title="ARCHIVO"),
        "destination pacs",
        "Called AE title not recognised",
        "Correct destinations[].ae_title",
    ),
}
NEEDS_POSTGRES = {
    "the database server has another time",
    "database password is wrong",
    "database user is missing",
    "database is missing",
}


@pytest.mark.parametrize(
    "fault",
    [pytest.param(name, marks=pytest.mark.peer("postgres") if name in NEEDS_POSTGRES else ()) for name in FAULTS],
)
def test_each_fault_is_told_with_its_fix_and_nothing_else(bench: Bench, fault: str) -> None:
    make, part, sentence, fix = FAULTS[fault]
    make(bench)
    found = {check.part: check for check in bad(bench.checks())}
    assert part in found, found
    assert sentence in found[part].found
    assert fix in found[part].remedy
    assert "Traceback" not in found[part].found
    # A running node that has lost its listener has lost what else is not there, too.
    assert fault == "listener has died" or set(found) == {part}


@pytest.mark.parametrize(
    ("fault", "effect"),
    [
        ("database server is down", "No image is accepted, analysed or sent; senders keep theirs and try again."),
        ("broker is down", "Images are received and stored."),
        ("a part of several has died", "what was interrupted is not tried again"),
        ("no worker takes jobs", "they wait and are not analysed"),
        ("workers are too slow", "New images wait about as long until they are analysed."),
        ("destination was down", "Their studies wait; it is tried again by itself, next at"),
        ("a job was given up", "read them without Pleura"),
    ],
)
def test_doctor_tells_what_a_fault_does_to_studies(bench: Bench, fault: str, effect: str) -> None:
    FAULTS[fault][0](bench)
    told = CliRunner().invoke(cli, ["--config", str(bench.config()), "doctor", "--json"])
    assert told.exit_code == 1
    assert effect in told.output


def test_destinations_that_hang_cost_together_what_one_costs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.monitoring.health._PEER_SECONDS", 0.5)
    bench.destination(bench.silent(), timeout_seconds=60)
    [one] = bench.values["destinations"]
    bench.values["destinations"] = [one | {"name": f"pacs{number}"} for number in range(6)]
    begun = time.monotonic()
    assert len([check for check in bad(bench.checks()) if "answers no association" in check.found]) == 6
    assert time.monotonic() - begun < 30, "they have a minute each"


@pytest.mark.peer("redis-server")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), True),
        (("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"), False),
        (("--maxmemory-policy", "allkeys-lru"), False),
    ],
)
def test_a_broker_that_discards_what_waits_is_a_hint(bench: Bench, options: tuple[str, ...], told: bool) -> None:
    _redis(bench, *options)
    [check] = [check for check in bench.checks() if check.part == "broker"]
    assert check.ok
    assert ("allkeys-lru" in check.found and "noeviction" in check.remedy) == told


def test_what_was_tried_once_and_is_tried_again_soon_is_a_hint(bench: Bench) -> None:
    """A PACS that was restarted for a moment is no reason to call anybody."""
    _delivery(bench, _retried)
    bench.set("workers", late_job_after_seconds=10**10)
    told = CliRunner().invoke(cli, ["--config", str(bench.config()), "doctor", "--json"])
    assert told.exit_code == 0, told.output
    assert "1 cannot be done since" in told.output
    assert "it is tried again by itself, next at" in told.output


def test_what_waits_for_a_person_is_a_hint(bench: Bench) -> None:
    _delivery(bench, _held)
    [held] = [check for check in bench.checks() if check.part == "on hold"]
    assert (held.ok, held.found) == (
        True,
        "1 deliveries wait for a person (of #1): nothing of them is analysed or sent",
    )
    released = CliRunner().invoke(cli, ["--config", str(bench.config()), "release", "#1"])
    assert "1 deliveries that were on hold; they are queued" in released.output
    assert "on hold" not in {check.part for check in bench.checks()}


def test_a_node_that_has_received_and_is_stopped_is_told_of(bench: Bench) -> None:
    (bench.sqlite().parent / "instances").mkdir(exist_ok=True)
    found = {check.part: check for check in bench.checks()}
    assert (found["parts"].ok, found["parts"].found) == (
        True,
        "none runs: no image is received, analysed or sent",
    )


def test_the_command_that_doctor_gives_closes_all_that_is_open(bench: Bench) -> None:
    database = bench.folder / "beside it's.sqlite"
    bench.sqlite().rename(database)
    bench.set("database", url=f"sqlite:///{database}")
    folder = bench.folder / "var"
    for path in (folder, database):
        path.chmod(0o777)
    [fault] = bad(bench.checks())
    assert "2 files or folders" in fault.found
    subprocess.run(["sh", "-c", fault.remedy], check=True)
    assert bad(bench.checks()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_volume_of_our_group_is_open_to_the_group_alone(bench: Bench) -> None:
    database = bench.sqlite()
    database.chmod(0o660)
    os.chown(database.parent, 10001, 0)
    database.parent.chmod(0o775)  # its giver's own business, as Kubernetes makes it
    assert bad(bench.checks()) == []
    database.chmod(0o664)
    [fault] = bad(bench.checks())
    assert (fault.part, fault.remedy) == ("permissions", f"chmod -R o-rwx {database.parent}")


def test_a_url_that_cannot_be_read_is_one_sentence(bench: Bench) -> None:
    bench.set("database", url="postgres at db1")
    line = [sys.executable, "-P", "-m", "node.cli.main", "--config", str(bench.config()), "worklist"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "the database URL cannot be read" in done.stderr


def test_two_parts_on_one_port_are_no_configuration(bench: Bench) -> None:
    bench.set("admin", port=bench.values["listener"]["port"])
    with pytest.raises(SettingsError, match=r"listener\.port and admin\.port are both"):
        load(bench.config())


def test_who_was_rejected_lately_is_a_hint(bench: Bench) -> None:
    engine = connect(f"sqlite:///{bench.sqlite()}")
    with writing(engine).begin() as connection:
        connection.execute(
            text(
                "INSERT INTO rejected_associations VALUES ('MR7', 'PLEURA', '10.0.0.7',"
                " 'calling AE title not recognized', 3, datetime('now'), datetime('now'))"
            )
        )
    engine.dispose()
    [hint] = [check for check in bench.checks() if check.part == "callers"]
    assert hint.ok
    assert "rejected 3 times: MR7 to PLEURA from 10.0.0.7" in hint.found
    assert '[[listener.peers]] ae_title = "MR7"' in hint.remedy
