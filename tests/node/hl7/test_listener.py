"""Real connections: to ``pleura hl7`` as a process of its own, and to a listener in this one for what is rare."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hl7.client import MLLPClient

from config.hl7 import HL7
from db.queries import study_details
from db.queries.worklist import Worklist
from db.states import Priority
from node.hl7.listener import Listener, may_connect
from node.listener_metrics import read_instruments
from tests.certificates import Certificates, certificates
from tests.db.examples import record, study_of
from tests.node.hl7.messages import Answer, Sender, order, report
from tests.node.hl7.process import Process, write_config
from tests.orthanc import wait_until
from workers.hl7.mllp import FramingError, frame
from workers.worker_id import occupied_places

__all__ = ["certificates"]


@pytest.fixture
def pleura(tmp_path: Path) -> Iterator[Process]:
    with Process(write_config(tmp_path), "hl7") as process:
        yield process


def test_a_hospital_speaks_to_the_running_process(pleura: Process) -> None:
    record(pleura.database)
    ris = Sender(pleura.port)
    assert ris.send(order()).code == "AA"
    assert pleura.database.read(study_details.study_detail, study_of(pleura.database)).row.priority is Priority.URGENT
    assert ris.send(report()).code == "AA"
    assert Worklist(pleura.database.engine).page() == ()
    ris.close()
    with MLLPClient("127.0.0.1", pleura.port) as client:
        acknowledged = client.send_message(order("M9"))
    assert Answer(acknowledged.strip(b"\x0b\x1c\r") + b"\r").code == "AA"
    folder = pleura.config.parent
    samples = [sample for one in read_instruments(folder, occupied_places(folder)) for sample in one.samples]
    assert [(one.labels, one.value) for one in samples if "acknowledgement" in one.labels] == [
        ({"acknowledgement": "AA"}, 3)
    ]
    assert pleura.end(signal.SIGTERM) == 0
    log = pleura.log.read_text()
    assert not any(secret in log for secret in ("Doe", "Jane", "A-1", "P1|", "1.2.826"))


def test_what_was_acknowledged_survives_kill_9(pleura: Process) -> None:
    ris = Sender(pleura.port)
    assert ris.send(order()).code == "AA"
    pleura.end(signal.SIGKILL)
    pleura.start()
    assert "before" in Sender(pleura.port).send(order()).text
    record(pleura.database)
    assert pleura.database.read(study_details.study_detail, study_of(pleura.database)).row.priority is Priority.URGENT


def test_a_port_that_is_taken_is_said_in_one_line(pleura: Process, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Process(write_config(tmp_path / "second", {"hl7": {"port": pleura.port}}), "hl7")
    with pytest.raises(AssertionError, match=r"pleura: .*hl7\.port"):
        second.start()


@contextmanager
def listening(
    answer: Callable[[bytes], bytes], refused: Callable[[str], None] = lambda _: None, **rules: Any
) -> Iterator[int]:
    """A listener in a thread of this process."""
    ready: list[int] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await Listener(HL7(port=0, **rules), answer, refused).serve(ready.append, stop)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    wait_until(lambda: ready, "the listener", seconds=60)
    try:
        yield ready[0]
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def echo(raw: bytes) -> bytes:
    return b"MSA|AA|" + raw


def test_messages_in_one_packet_are_answered_in_their_order() -> None:
    with listening(echo) as port:
        sender = Sender(port)
        sender.write(b"".join(frame(b"%d" % number) for number in range(20)))
        answers = [sender.read() for _ in range(20)]
    assert [answer.control_id for answer in answers if answer] == [str(number) for number in range(20)]


@pytest.mark.parametrize("stream", [b"GET / HTTP/1.1\r\n\r\n", b"\x0bhello\x1cworld", b"\x0b" + b"x" * 2000])
def test_what_is_no_mllp_closes_its_connection_and_no_other(stream: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with listening(echo, maximum_message_bytes=1024) as port:
        other, bad = Sender(port), Sender(port)
        bad.write(stream)
        assert bad.read() is None
        assert other.send(b"still here").control_id == "still here"
    assert "was closed" in caplog.text
    assert not any(word in caplog.text for word in ("GET", "hello", "world", "xxx"))


def test_a_message_that_never_ends_closes_its_connection() -> None:
    with listening(echo, message_timeout_seconds=0.2) as port:
        slow = Sender(port)
        slow.write(b"\x0bMSH")
        assert slow.read() is None


def test_a_silent_connection_stays_open() -> None:
    with listening(echo, message_timeout_seconds=0.05) as port:
        sender = Sender(port)
        sender.send(b"1")
        other = Sender(port)
        other.write(b"\x0bMSH")
        assert other.read() is None, "by now the time limit is over"
        assert sender.send(b"2").control_id == "2"


def test_no_more_connections_than_were_allowed() -> None:
    with listening(echo, maximum_connections=2) as port:
        senders = [Sender(port) for _ in range(3)]
        for sender in senders:
            assert sender.send(b"1").control_id == "1"
        assert senders[0].read() is None, "the longest silent one makes room"
        assert [sender.send(b"2").control_id for sender in senders[1:]] == ["2", "2"]


def test_one_address_has_no_more_connections_than_its_share() -> None:
    with listening(echo, maximum_connections_per_address=1) as port:
        first, second = Sender(port), Sender(port)
        first.send(b"1")
        second.send(b"1")
        assert first.read() is None
        assert second.send(b"2").control_id == "2"


@pytest.mark.parametrize("drip", [b"", b"\x0b", b"\r"])
def test_connections_that_say_nothing_shut_nobody_out(drip: bytes) -> None:
    with listening(echo, maximum_waiting=5) as port:
        known = Sender(port)
        known.send(b"1")
        silent = [Sender(port) for _ in range(40)]
        for sender in silent[-5:]:
            sender.write(drip)
        assert Sender(port).send(b"2").control_id == "2"
        assert known.send(b"3").control_id == "3"
        assert silent[0].read() is None, "the oldest has made room"


@pytest.mark.parametrize("drip", [b"", b"\x0bMSH", b"\r"])
def test_a_connection_without_a_message_ends_at_a_hard_deadline(drip: bytes) -> None:
    with listening(echo, first_message_timeout_seconds=0.3) as port:
        sender, ended = Sender(port), threading.Event()

        def trickle() -> None:
            while not ended.wait(0.05):
                try:
                    sender.write(drip[:1])
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        sender.write(drip)
        thread.start()
        try:
            assert _has_ended(sender)
        finally:
            ended.set()
            thread.join()


def _has_ended(sender: Sender) -> bool:
    try:
        return sender.read() is None
    except ConnectionError:
        return True


def test_a_connection_that_has_gone_silent_is_closed() -> None:
    with listening(echo, idle_timeout_seconds=0.3) as port:
        sender = Sender(port)
        sender.send(b"1")
        assert sender.read() is None


@pytest.mark.peer("openssl")
def test_a_handshake_that_does_not_come_shuts_nobody_out(certificate: Path) -> None:
    rules: dict[str, Any] = {"tls_certificate": certificate, "maximum_waiting": 3, "first_message_timeout_seconds": 5}
    with listening(echo, **rules) as port:
        silent = [Sender(port) for _ in range(20)]
        assert _is_answered(port, ssl.create_default_context(cafile=certificate))
        assert _has_ended(silent[0])


def _is_answered(port: int, tls: ssl.SSLContext | None = None) -> bool:
    sender = Sender(port)
    try:
        if tls is not None:
            sender.connection = tls.wrap_socket(sender.connection, server_hostname="127.0.0.1")
        sender.write(frame(b"three"))
        return sender.read() is not None
    except (OSError, FramingError):
        return False
    finally:
        sender.close()


def test_a_message_that_is_being_worked_on_is_answered_before_the_listener_ends() -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(raw: bytes) -> bytes:
        begun.set()
        go.wait(60)
        return echo(raw)

    answers: list[Answer | None] = []
    with listening(slow) as port:
        sender = Sender(port)
        sender.write(frame(b"1"))
        begun.wait(60)
        reader = threading.Thread(target=lambda: answers.append(sender.read()))
        reader.start()
        threading.Timer(0.3, go.set).start()
    reader.join(60)
    assert [answer.control_id for answer in answers if answer] == ["1"]


@pytest.mark.parametrize(
    ("address", "named", "welcome"),
    [
        ("127.0.0.1", (), True),
        ("::1", (), True),
        ("192.0.2.7", (), False),
        ("192.0.2.7", ("192.0.2.0/24",), True),
        ("::ffff:192.0.2.7", ("192.0.2.7",), True),
        ("127.0.0.1", ("192.0.2.0/24",), False),
    ],
)
def test_who_may_connect(address: str, named: tuple[str, ...], welcome: bool) -> None:
    assert may_connect(address, HL7(addresses=named)) is welcome


def test_a_peer_that_is_not_named_is_closed_at_once() -> None:
    rejected: list[str] = []
    with listening(echo, rejected.append, addresses=("192.0.2.0/24",)) as port:
        sender = Sender(port)
        assert sender.read() is None
        wait_until(lambda: rejected, "the entry of the audit trail")
    assert rejected == ["127.0.0.1"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine with its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = path.with_suffix(".key")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*command, *names, "-keyout", str(key), "-out", str(path)], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


@pytest.mark.peer("openssl")
def test_tls_and_a_client_that_must_show_its_certificate(certificate: Path) -> None:
    rules: dict[str, Any] = {"tls_certificate": certificate, "tls_client_ca": certificate}
    trusting = ssl.create_default_context(cafile=certificate)
    showing = ssl.create_default_context(cafile=certificate)
    showing.load_cert_chain(certificate)
    with listening(echo, **rules) as port:
        known = Sender(port)
        known.connection = showing.wrap_socket(known.connection, server_hostname="127.0.0.1")
        assert known.send(b"1").control_id == "1"
        assert not _is_answered(port, trusting), "it has shown no certificate"
        assert not _is_answered(port), "it speaks no TLS"


@pytest.mark.peer("openssl")
def test_a_renewed_certificate_and_ca_are_used_without_a_restart(certificates: Certificates, tmp_path: Path) -> None:
    shown, trusted = tmp_path / "node.pem", tmp_path / "ca.pem"
    stranger = certificates.stranger
    shown.write_bytes(certificates.node.certificate.read_bytes() + certificates.node.key.read_bytes())
    trusted.write_bytes(certificates.ca.read_bytes())
    rules: dict[str, Any] = {"tls_certificate": shown, "tls_client_ca": trusted}
    client = ssl.create_default_context(cafile=certificates.ca)
    client.load_cert_chain(certificates.pacs.certificate, certificates.pacs.key)
    elsewhere = ssl.create_default_context(cafile=certificates.ca)
    elsewhere.load_cert_chain(stranger.certificate, stranger.key)
    with listening(echo, **rules) as port:
        assert _is_answered(port, client)
        assert not _is_answered(port, elsewhere)
        shown.write_bytes(certificates.server_only.certificate.read_bytes() + certificates.server_only.key.read_bytes())
        trusted.write_bytes((stranger.certificate.parent / "ca.pem").read_bytes())
        assert _is_answered(port, elsewhere)
        assert not _is_answered(port, client)
        with client.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") as secured:
            subject = (secured.getpeercert() or {})["subject"]
        assert subject == ((("commonName", "pacs.hospital"),),)
