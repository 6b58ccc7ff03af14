"""The trail on its way to repositories: to a real rsyslog over TLS and UDP, and to one that is down."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.audit import Audit, AuditRepository
from config.settings import Settings, Site
from config.tls import Tls
from db import audit_feed
from db.audit import AuditEntry, AuditTrail
from db.audit_chain import anchors_in
from db.database import Database
from db.engine import connect
from tests.certificates import Certificates, certificates
from tests.db.conftest import MEMORY
from tests.migrated import migrate
from tests.orthanc import wait_until
from tests.ports import free_port, listens
from tests.rules import NO_RULES
from workers.audit.feed import Feeder, Upkeep
from workers.audit.syslog import NotSentError, send, verify

__all__ = ["certificates"]

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Repository:
    """Takes messages, or does not."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.down = False

    def __call__(self, repository: AuditRepository, messages: Sequence[bytes], tls: Tls) -> None:
        if self.down:
            raise NotSentError("Connection refused")
        self.taken += messages


@pytest.fixture
def database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        engine = connect(f"sqlite:///{folder}/pleura.sqlite")
        migrate(engine)
        yield Database(engine, NO_RULES)
        engine.dispose()


def _add(database: Database, count: int, at: datetime = NOW) -> None:
    for number in range(count):
        AuditTrail(database.engine).add(AuditEntry(at, "ada", "log in", f"try {number}", address="10.0.0.7"))


def _settings(**rules: Any) -> Settings:
    return Settings(site=Site(name="North"), audit=Audit(**rules))


def _feeder(
    database: Database, repository: AuditRepository, clock: Clock, tls: Tls | None = None, **parts: Any
) -> Feeder:
    settings = _settings(repositories=(repository,)).model_copy(update={"tls": tls or Tls()})
    return Feeder(repository, settings, database, clock, "audit@here", **parts)


def test_a_repository_that_was_down_gets_everything_once(database: Database) -> None:
    clock, taken = Clock(), Repository()
    feeder = _feeder(database, AuditRepository(name="arr", host="arr.example"), clock, send=taken)
    _add(database, 3)
    feeder.once()
    assert [one.count(b"AuditMessage") for one in taken.taken] == [2, 2, 2]
    taken.down = True
    _add(database, 250)
    feeder.once()
    (state,) = database.read(audit_feed.states, ["arr"])
    assert (state.waiting, state.error, state.oldest_at) == (250, "Connection refused", NOW)
    taken.down = False
    feeder.once()
    assert len(taken.taken) == 3, "not before the pause is over"
    clock.now += timedelta(hours=2)
    feeder.once()
    numbers = [anchor.position for anchor in anchors_in(one.decode() for one in taken.taken)]
    assert numbers == list(range(1, 254))
    (state,) = database.read(audit_feed.states, ["arr"])
    assert (state.waiting, state.error, state.oldest_at, state.sent_at) == (0, "", None, clock.now)


def test_only_one_process_sends(database: Database) -> None:
    _add(database, 1)
    first = database.write(audit_feed.claim, "arr", "one", NOW, timedelta(minutes=1))
    assert first is not None
    assert database.write(audit_feed.claim, "arr", "other", NOW, timedelta(minutes=1)) is None
    later = NOW + timedelta(minutes=1)
    assert database.write(audit_feed.claim, "arr", "other", later, timedelta(minutes=1)) is not None
    database.write(audit_feed.sent, "arr", "one", 1, later)
    assert database.read(audit_feed.states, ["arr"])[0].waiting == 1, "the claim was lost"


def test_old_entries_go_when_every_repository_has_them(database: Database) -> None:
    _add(database, 4, NOW - timedelta(days=40))
    repository, clock, taken = AuditRepository(name="arr", host="arr.example"), Clock(), Repository()
    settings = _settings(repositories=(repository,), keep_days=30, keep_unsent_days=90)
    Upkeep(settings, database, clock).once()
    assert len(AuditTrail(database.engine).entries()) == 5, "nothing was sent yet; one is of the verification"
    Feeder(repository, settings, database, clock, "audit@here", taken).once()
    Upkeep(settings, database, clock).once()
    left = AuditTrail(database.engine).entries()
    assert {one.action for one in left} == {"verify audit", "remove old entries"}
    assert AuditTrail(database.engine).verify().problem == ""


def test_what_was_never_sent_goes_at_last(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    _add(database, 4, NOW - timedelta(days=91))
    repository = AuditRepository(name="arr", host="arr.example")
    settings = _settings(repositories=(repository,), keep_days=30, keep_unsent_days=90)
    Upkeep(settings, database, Clock()).once()
    assert "4 entries of the audit trail that a repository was never sent" in caplog.text
    taken = Repository()
    _feeder(database, repository, Clock(), send=taken).once()
    assert len(taken.taken) == 2, "the entry of the removal, and that of the verification"


def test_a_broken_trail_is_an_alert(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    _add(database, 3)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_is_not_updated")
        connection.exec_driver_sql("UPDATE audit SET actor = 'eve' WHERE id = 2")
    Upkeep(_settings(), database, Clock()).once()
    latest = AuditTrail(database.engine).entries()[0]
    assert (latest.action, latest.failed) == ("audit is broken", True)
    assert "broken at entry 2" in caplog.text


# --- with rsyslog


@contextmanager
def _rsyslog(folder: Path, certificates: Certificates, tls: int, udp: int) -> Iterator[Path]:
    """A real rsyslog that writes what it gets to a file, and lets only certificates of the CA in."""
    received, pacs = folder / "received.log", certificates.pacs
    (folder / "rsyslog.conf").write_text(
        f"""
global(workDirectory="{folder}" maxMessageSize="64k"
  defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{certificates.ca}"
  defaultNetstreamDriverCertFile="{pacs.certificate}" defaultNetstreamDriverKeyFile="{pacs.key}")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
module(load="imudp")
input(type="imtcp" port="{tls}" address="127.0.0.1")
input(type="imudp" port="{udp}" address="127.0.0.1")
template(name="all" type="string" string="%pri% %msgid% %structured-data% %msg%\\n")
*.* action(type="omfile" file="{received}" template="all")
"""
    )
    command = [shutil.which("rsyslogd") or "/usr/sbin/rsyslogd", "-n", "-f", str(folder / "rsyslog.conf"), "-i", "NONE"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield received
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(path: Path, count: int) -> list[str]:
    def whole_lines() -> list[str]:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        return text[: text.rfind("\n") + 1].splitlines()

    return list(wait_until(lambda: len(whole_lines()) >= count and whole_lines(), f"{count} messages", pause=0.05))


@pytest.mark.peer("rsyslogd", "openssl")
def test_rsyslog_gets_every_message_by_tls_and_by_udp(
    database: Database, certificates: Certificates, tmp_path: Path
) -> None:
    clock, tls, udp = Clock(), free_port(), free_port()
    secure = AuditRepository(name="arr", host="127.0.0.1", port=tls)
    with _rsyslog(tmp_path, certificates, tls, udp) as received:
        wait_until(lambda: listens(tls), "rsyslog", pause=0.05)
        verify(secure, certificates.tls)
        _add(database, 300)
        _feeder(database, secure, clock, tls=certificates.tls).once()
        lines = _wait_for(received, 300)
        assert lines[0].startswith('85 DICOM+RFC3881 [meta sequenceId="1"] ')
        assert "<AuditMessage>" in lines[0]
        anchors = list(anchors_in(lines))
        assert [anchor.position for anchor in anchors] == list(range(1, 301))
        assert AuditTrail(database.engine).verify(anchors).problem == ""
        with pytest.raises(NotSentError, match="not of a CA"):
            send(secure, [b"x"], certificates.tls.model_copy(update={"ca": certificates.stranger.certificate}))
        plain = AuditRepository(name="plain", host="127.0.0.1", port=udp, transport="udp")
        send(plain, [b"<85>1 - - - - - - by UDP"] * 20, Tls())
        assert _wait_for(received, 320)[-1].endswith("by UDP")
        with pytest.raises(NotSentError, match="asks for our certificate"):
            send(secure, [b"<85>1 - - - - - - x"], Tls(ca=certificates.ca))


@contextmanager
def _receiver(certificates: Certificates, receive: Callable[[ssl.SSLSocket], object]) -> Iterator[AuditRepository]:
    """A repository for one connection, which ends as ``receive`` does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.pacs.certificate, certificates.pacs.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                receive(secured)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        yield AuditRepository(name="arr", host="127.0.0.1", port=port, ca_file=certificates.ca, timeout_seconds=5)
        thread.join()


def _reset(secured: ssl.SSLSocket) -> None:
    secured.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    secured.recv(1)


def _close_after(count: int) -> Callable[[ssl.SSLSocket], None]:
    """Reads so many bytes and closes without ``close_notify``, as many programs do; what was not read resets it."""

    def receive(secured: ssl.SSLSocket) -> None:
        left = count
        while left > 0 and (chunk := secured.recv(min(left, 65536))):
            left -= len(chunk)

    return receive


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("receive", [_reset, _close_after(1000)], ids=["reset", "some of it"])
def test_a_repository_that_resets_the_connection_has_not_taken_the_messages(
    receive: Callable[[ssl.SSLSocket], object], answers: bool, certificates: Certificates
) -> None:
    """It has not read all that was sent: its kernel says so, where syslog has no answer."""
    with _receiver(certificates, receive) as repository, pytest.raises(NotSentError):
        send(repository.model_copy(update={"answers_close_notify": answers}), [b"x" * 4_000_000], Tls())


@pytest.mark.peer("openssl")
def test_a_repository_that_closes_without_an_answer_is_believed_only_where_that_is_said(
    certificates: Certificates,
) -> None:
    everything = _close_after(4_000_009)  # until the end of the stream
    with _receiver(certificates, everything) as repository, pytest.raises(NotSentError, match="answers_close_notify"):
        send(repository, [b"x" * 4_000_000], Tls())
    with _receiver(certificates, everything) as repository:
        send(repository.model_copy(update={"answers_close_notify": False}), [b"x" * 4_000_000], Tls())


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="UDP knows no certificates"):
        AuditRepository(name="arr", host="arr.example", transport="udp", ca_file=Path("ca.pem"))
    with pytest.raises(ValueError, match="same name"):
        Audit(repositories=(AuditRepository(name="a", host="b"),) * 2)
