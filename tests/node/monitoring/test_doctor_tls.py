"""PostgreSQL and Redis over TLS, with real servers: what is encrypted, and what doctor says of each that is refused."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from config.settings import Settings
from db.engine import connect, migrate
from node.monitoring.broker_health import broker_facts, check_broker
from node.monitoring.check import Check
from node.monitoring.health import check_database
from tests import postgres
from tests.certificates import Certificates, Issued, certificates
from tests.orthanc import wait_until
from tests.ports import free_port
from workers.enqueue import TaskQueue

__all__ = ["certificates"]
pytestmark = pytest.mark.peer("openssl")


# --- PostgreSQL (a campaign: a server of its own takes seconds) -------------------------------------------------------


@pytest.fixture(scope="module")
def postgres_port(certificates: Certificates) -> Iterator[tuple[int, Path]]:
    """A PostgreSQL with TLS on this port of 127.0.0.1, and the folder of its socket."""
    folder, port = Path(tempfile.mkdtemp(prefix="pleura-pg-tls-")), free_port()
    shown = Issued(folder / "server.pem", folder / "server.key")
    shutil.copy(certificates.node.certificate, shown.certificate)
    shutil.copy(certificates.node.key, shown.key)
    shown.key.chmod(0o600)
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        for path in (shown.certificate, shown.key):
            os.chown(path, account.pw_uid, account.pw_gid)
    files = f"ssl_cert_file={shown.certificate}", f"ssl_key_file={shown.key}"
    options = ("fsync=off", *files, "listen_addresses=127.0.0.1", f"port={port}")
    process = postgres.start(folder, *(part for option in options for part in ("-c", option)), port=port)
    try:
        switch_tls(postgres.PostgresServer(folder, port), on=True)
        yield port, folder
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(60)
        shutil.rmtree(folder)


def switch_tls(server: postgres.PostgresServer, *, on: bool) -> None:
    """Change the running server, and wait until new connections see it."""
    value = "on" if on else "off"
    server.execute(f"ALTER SYSTEM SET ssl = {value}")
    server.execute("SELECT pg_reload_conf()")
    engine = create_engine(server.url("postgres"), poolclass=NullPool)

    def shown() -> bool:
        with engine.connect() as connection:
            return bool(connection.execute(text("SHOW ssl")).scalar() == value)

    wait_until(shown, f"ssl = {value}", pause=0.05)


def database(port: int, query: str, host: str = "127.0.0.1") -> Settings:
    url = f"postgresql+psycopg://postgres@{host}:{port}/postgres?{query}"
    return Settings(database={"url": url})


@pytest.mark.campaign
@pytest.mark.peer("postgres")
def test_postgresql_is_used_by_tls_with_its_name_and_ca_verified(
    postgres_port: tuple[int, Path], certificates: Certificates
) -> None:
    settings = database(postgres_port[0], f"sslmode=verify-full&sslrootcert={certificates.ca}")
    engine = connect(settings.database_url)
    try:
        with engine.connect() as connection:
            secured = connection.execute(text("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
            assert tuple(secured.one()) == (True, "TLSv1.3")
        migrate(engine)
    finally:
        engine.dispose()
    assert check_database(settings) == Check("database", True, "answers, schema is up to date")


@pytest.mark.campaign
@pytest.mark.peer("postgres")
@pytest.mark.parametrize(
    ("query", "host", "found", "remedy"),
    [
        ("sslrootcert={other}", "127.0.0.1", "is not of the CA in sslrootcert", "name the CA of the server"),
        ("sslrootcert=/nowhere.pem", "127.0.0.1", "the file of sslrootcert cannot be read", "correct sslrootcert"),
        ("sslrootcert={ca}&hostaddr=127.0.0.1", "db.hospital", "is for another name", "correct the host"),
    ],
)
def test_doctor_says_in_a_sentence_why_there_is_no_tls_with_postgresql(
    query: str, host: str, found: str, remedy: str, postgres_port: tuple[int, Path], certificates: Certificates
) -> None:
    files = {"ca": certificates.ca, "other": certificates.stranger.certificate.parent / "ca.pem"}
    check = check_database(database(postgres_port[0], f"sslmode=verify-full&{query.format(**files)}", host))
    assert not check.ok
    assert found in check.found
    assert remedy in check.remedy


@pytest.mark.campaign
@pytest.mark.peer("postgres")
def test_a_postgresql_without_tls_is_refused(postgres_port: tuple[int, Path], certificates: Certificates) -> None:
    port, folder = postgres_port
    server = postgres.PostgresServer(folder, port)
    switch_tls(server, on=False)
    try:
        check = check_database(database(port, f"sslmode=verify-full&sslrootcert={certificates.ca}"))
        assert "speaks no TLS" in check.found
        assert "ssl = on" in check.remedy
    finally:
        switch_tls(server, on=True)


# --- Redis ------------------------------------------------------------------------------------------------------------


@contextmanager
def redis_server(shown: Issued, ca: Path, *options: str) -> Iterator[int]:
    port = free_port()
    tls = ("--port", "0", "--tls-port", port, "--tls-cert-file", shown.certificate, "--tls-key-file", shown.key)
    command = ("redis-server", *tls, "--tls-ca-cert-file", ca, "--save", "", "--appendonly", "no", *options)
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _accepts(port), "redis-server", pause=0.02)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def broker(port: int, query: str = "", scheme: str = "rediss") -> Settings:
    return Settings(broker={"url": f"{scheme}://127.0.0.1:{port}/0{query}"})


def publishes(settings: Settings) -> bool:
    """Whether Celery's client, which is another than the doctor's, can use it."""
    task_queue = TaskQueue(settings.broker_url)
    try:
        return task_queue.enqueue_jobs([(1, False)]) and task_queue.waiting_jobs() is not None
    finally:
        task_queue.close()


@pytest.mark.peer("redis-server")
def test_redis_is_used_by_tls_with_certificates_on_both_sides(certificates: Certificates) -> None:
    own = f"&ssl_certfile={certificates.node.certificate}&ssl_keyfile={certificates.node.key}"
    with redis_server(certificates.pacs, certificates.ca) as port:
        settings = broker(port, f"?ssl_ca_certs={certificates.ca}{own}")
        assert check_broker(settings).ok
        assert publishes(settings)
        assert broker_facts(settings) is not None
        without = broker(port, f"?ssl_ca_certs={certificates.ca}")
        assert "asks for a certificate of this node" in check_broker(without).found
        assert not publishes(without)


@pytest.mark.peer("redis-server")
@pytest.mark.parametrize(
    ("shown", "query", "found"),
    [
        ("pacs", "?ssl_ca_certs={other}", "is not of the CA in ssl_ca_certs"),
        ("pacs", "", "is not of the CA in ssl_ca_certs"),
        ("pacs", "?ssl_ca_certs=/nowhere.pem", "ssl_ca_certs=/nowhere.pem of broker.url cannot be read"),
        ("other", "?ssl_ca_certs={ca}", "is for another name"),
        ("expired", "?ssl_ca_certs={ca}", "has expired"),
    ],
)
def test_a_redis_that_cannot_be_verified_is_not_used(
    shown: str, query: str, found: str, certificates: Certificates
) -> None:
    files = {"ca": certificates.ca, "other": certificates.stranger.certificate.parent / "ca.pem"}
    with redis_server(getattr(certificates, shown), certificates.ca, "--tls-auth-clients", "no") as port:
        settings = broker(port, query.format(**files))
        check = check_broker(settings)
        assert found in check.found
        assert check.remedy
        assert not publishes(settings)
        plain = check_broker(broker(port, scheme="redis"))
        assert "write rediss://" in plain.remedy
