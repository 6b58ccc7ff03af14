"""DICOM over TLS at the listener (PS3.15 B.12), with DCMTK and OpenSSL as callers."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from config.listener import Listener
from config.listener import Peer as KnownPeer
from config.tls import Tls
from db import rejected_associations
from node.dicom.association_policy import CALLING_WITHOUT_TLS, CALLING_WRONG_CERTIFICATE
from tests.certificates import Certificates, Issued, certificates
from tests.db.examples import NOW
from tests.fuzz.peer import CR, EXPLICIT, associate_rq, pdu
from tests.node.dicom.listening import Listening, chest, data_set_bytes, dcmtk, listening

__all__ = ["certificates"]
pytestmark = [pytest.mark.peer("openssl"), pytest.mark.peer("storescu"), pytest.mark.peer("echoscu")]

Layer = Literal["fast", "stock"]
over_both_layers = pytest.mark.parametrize("layer", ["fast", "stock"])
RULES: dict[str, object] = {"port": 0, "tls_port": 0, "transport": "tls"}


@pytest.fixture(scope="module")
def node(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """One listener for those who are refused; it knows PACS by name and CT1 by fingerprint, and both by TLS."""
    peers = (
        KnownPeer(ae_title="PACS", certificates=("PACS.hospital",)),
        KnownPeer(ae_title="CT1", certificates=("SHA256:" + _colons(certificates.pacs.fingerprint),)),
        KnownPeer(ae_title="XR1"),
    )
    rules = Listener(port=0, tls_port=0, transport="both", peers=peers)
    with listening(tmp_path_factory.mktemp("node"), rules, tls=certificates.tls) as running:
        yield running


def _colons(fingerprint: str) -> str:
    digits = fingerprint.removeprefix("sha256:").upper()
    return ":".join(digits[at : at + 2] for at in range(0, 64, 2))


def tls_options(shown: Issued, ca: Path) -> tuple[object, ...]:
    return ("+tls", shown.key, shown.certificate, "+cf", ca)


def echo(port: int, *options: object, calling: str = "PACS") -> subprocess.CompletedProcess[str]:
    return dcmtk("echoscu", *options, "-aet", calling, "-aec", "PLEURA", "127.0.0.1", port)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


# --- who is let in ----------------------------------------------------------------------------------------------------


@over_both_layers
def test_dcmtk_stores_by_tls(layer: Layer, certificates: Certificates, tmp_path: Path) -> None:
    rules = Listener(port=0, tls_port=0, transport="tls", upper_layer=layer)
    image = chest(Rows=4096, Columns=1024, PixelData=bytes(range(256)) * 16384)
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    options = tls_options(certificates.pacs, certificates.ca)
    with listening(tmp_path / "store", rules, tls=certificates.tls) as node:
        assert list(node.scp.ports) == ["tls_port"]
        sent = dcmtk("storescu", *options, "-aec", "PLEURA", "127.0.0.1", node.port, tmp_path / "image.dcm")
        assert sent.returncode == 0, sent.stderr
        (kept,) = node.files()
        assert data_set_bytes(kept) == data_set_bytes(tmp_path / "image.dcm")
        assert wait_for(lambda: node.scp.association_count == 0)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_sees_tls_1_2_and_1_3_with_authenticated_encryption(
    version: str, node: Listening, certificates: Certificates
) -> None:
    output = _s_client(node.scp.ports["tls_port"], certificates, certificates.pacs, version).stdout
    assert "Verify return code: 0 (ok)" in output
    assert "GCM" in output or "CHACHA20" in output
    assert "Hospital CA" in output, "the CA that callers need a certificate of is announced"


def _s_client(
    port: int, certificates: Certificates, shown: Issued | None, *options: str
) -> subprocess.CompletedProcess[str]:
    show = () if shown is None else ("-cert", shown.certificate, "-key", shown.key)
    command = ("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", certificates.ca, *show, *options)
    return subprocess.run(list(map(str, command)), input="", capture_output=True, text=True, timeout=60, check=False)


def test_a_peer_is_known_by_the_name_or_the_fingerprint_of_its_certificate(
    node: Listening, certificates: Certificates
) -> None:
    port, options = node.scp.ports["tls_port"], tls_options(certificates.pacs, certificates.ca)
    for title in ("PACS", "CT1", "XR1"):
        assert echo(port, *options, calling=title).returncode == 0


def test_a_peer_without_certificates_may_call_without_tls(node: Listening) -> None:
    assert echo(node.port, calling="XR1").returncode == 0


@pytest.mark.parametrize("title", ["PACS", "CT1"])
def test_the_certificate_of_another_does_not_make_it_that_peer(
    title: str, node: Listening, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    options = tls_options(certificates.other, certificates.ca)
    rejected = echo(node.scp.ports["tls_port"], *options, calling=title)
    assert "Calling AE Title Not Recognized" in rejected.stderr
    (line,) = [one.getMessage() for one in caplog.records if CALLING_WRONG_CERTIFICATE.why in one.getMessage()]
    assert f"'{title}'" in line
    assert "Its certificate: other.hospital" in line
    assert certificates.other.fingerprint in line


def test_a_peer_whose_certificate_is_known_may_not_call_without_tls(
    node: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    assert "Calling AE Title Not Recognized" in echo(node.port).stderr
    assert CALLING_WITHOUT_TLS.why in caplog.text


# --- who is refused ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caller:
    """How somebody calls who is refused, and the words that say why and what to do."""

    call: Callable[[int, Certificates], object]
    why: str
    remedy: str


def _shown(issued: Callable[[Certificates], Issued | None], *options: str) -> Callable[[int, Certificates], object]:
    return lambda port, certificates: _s_client(port, certificates, issued(certificates), *options)


CALLERS = {
    "certificate of another CA": Caller(_shown(lambda made: made.stranger), "not of a CA in tls.ca", "add its cert"),
    "expired certificate": Caller(_shown(lambda made: made.expired), "has expired", "Renew it"),
    "no certificate": Caller(_shown(lambda _: None), "shows no certificate", "Give the peer a certificate"),
    "certificate of a server": Caller(_shown(lambda made: made.server_only), "not for this use", "clientAuth"),
    "weak version": Caller(
        _shown(lambda made: made.pacs, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "neither TLS 1.2", "RFC 8996"
    ),
    "weak suite": Caller(
        _shown(lambda made: made.pacs, "-tls1_2", "-cipher", "AES128-SHA"), "no cipher suite", "ECDHE"
    ),
    "no TLS": Caller(lambda port, _: echo(port), "does not speak TLS", "use the port without TLS"),
    "does not trust the node": Caller(
        lambda port, made: echo(port, *tls_options(made.pacs, made.stranger.certificate.parent / "ca.pem")),
        "does not accept our certificate",
        "the CA of tls.certificate",
    ),
}


@pytest.mark.parametrize("case", CALLERS)
def test_who_is_refused_is_logged_once_and_kept_for_the_admin(
    case: str, node: Listening, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caller = CALLERS[case]
    before = _counts(node)
    for _ in range(2):
        caller.call(node.scp.ports["tls_port"], certificates)
    found = lambda: [one.getMessage() for one in caplog.records if caller.why in one.getMessage()]  # noqa: E731
    assert wait_for(found)
    assert wait_for(lambda: len(_new(node, before)) == 1 and next(iter(_new(node, before).values())) == 2)
    (line,) = found()
    assert "127.0.0.1" in line
    assert caller.remedy in line
    ((_, reason),) = _new(node, before)
    assert caller.why in reason
    assert not _connections(node)


def test_who_was_revoked_is_refused_from_the_next_list_on(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, given = certificates.authority, tmp_path / "given.crl"
    shutil.copy(authority.revoke(), given)
    rules = Listener.model_validate(RULES)
    shown = [tls_options(one, certificates.ca) for one in (certificates.pacs, certificates.other)]
    with listening(tmp_path / "node", rules, tls=certificates.tls.model_copy(update={"crl": given})) as node:

        def answered() -> list[int]:
            return [min(1, echo(node.port, *options).returncode) for options in shown]

        assert answered() == [0, 0]
        shutil.copy(authority.revoke(certificates.other), given)
        assert answered() == [0, 1]
        assert wait_for(lambda: "was revoked by its CA" in caplog.text)
        shutil.copy(authority.revoke(days=-1), given)
        assert answered() == [1, 1], "a list that is over lets nobody in"
        assert wait_for(lambda: "no valid revocation list" in caplog.text)


def _counts(node: Listening) -> dict[tuple[str, str], int]:
    node.rejected.write()
    with node.engine.connect() as connection:
        rows = rejected_associations.latest(connection, NOW.replace(year=2000))
    return {(row.address, row.reason): row.count for row in rows if row.reason.startswith("TLS")}


def _new(node: Listening, before: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    now = _counts(node)
    return {key: count - before.get(key, 0) for key, count in now.items() if count != before.get(key, 0)}


def _connections(node: Listening) -> int:
    return 0 if wait_for(lambda: not node.scp._connections._open) else len(node.scp._connections._open)


def test_the_cas_behind_the_certificate_of_the_node_sign_for_others(certificates: Certificates, tmp_path: Path) -> None:
    """They are sent to callers; who may call is told by tls.ca alone."""
    chain = tmp_path / "chain.pem"
    chain.write_text(certificates.node.certificate.read_text() + certificates.ca.read_text())
    elsewhere = certificates.stranger.certificate.parent / "ca.pem"
    tls = Tls(certificate=chain, key=certificates.node.key, ca=elsewhere)
    with listening(tmp_path / "store", Listener(port=0, tls_port=0, transport="tls"), tls=tls) as node:
        assert echo(node.port, *tls_options(certificates.pacs, certificates.ca)).returncode != 0
        assert echo(node.port, *tls_options(certificates.stranger, certificates.ca)).returncode == 0
        assert echo(node.port, *tls_options(certificates.node, certificates.ca)).returncode == 0, "the node itself"


# --- nobody is kept out -----------------------------------------------------------------------------------------------


def test_callers_that_do_not_shake_hands_keep_nobody_out(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rules = Listener(port=0, tls_port=0, transport="tls", maximum_unassociated=4, request_timeout_seconds=2)
    before = threading.active_count()
    with listening(tmp_path, rules, tls=certificates.tls) as node:
        listening_threads = threading.active_count()
        silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(40)]
        for connection in silent[::2]:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")  # a ClientHello that does not go on
        start = time.monotonic()
        assert echo(node.port, *tls_options(certificates.pacs, certificates.ca)).returncode == 0
        assert time.monotonic() - start < 10
        assert wait_for(lambda: threading.active_count() <= listening_threads), "each handshake ends"
        for connection in silent:
            connection.close()
        assert not _connections(node)
    assert threading.active_count() <= before
    assert "too many connections without an association request" in caplog.text
    assert "no association request within 2 s" in caplog.text or "no TLS handshake in time" in caplog.text
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING], "this is no refusal"


def test_the_deadline_of_an_association_request_begins_before_the_handshake(
    certificates: Certificates, tmp_path: Path
) -> None:
    rules = Listener(port=0, tls_port=0, transport="tls", request_timeout_seconds=4)
    with listening(tmp_path, rules, tls=certificates.tls) as node:
        start = time.monotonic()
        plain = socket.create_connection(("127.0.0.1", node.port), timeout=20)
        time.sleep(2)
        with client(certificates).wrap_socket(plain) as connection:
            shaken = time.monotonic()
            assert connection.recv(100) == b""
        assert time.monotonic() - shaken < 4, f"the handshake ended {shaken - start:.1f} s after the connection"


def client(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificates.ca)
    context.load_cert_chain(certificates.pacs.certificate, certificates.pacs.key)
    return context


class RawTls:
    """A TLS client whose records can be cut anywhere."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self._in.write(self.socket.recv(65536))
            else:
                break
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self._out.read())

    def records(self, data: bytes) -> bytes:
        """The TLS records of ``data``, not sent."""
        self._tls.write(data)
        return self._out.read()

    def read(self) -> bytes:
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                received = self.socket.recv(65536)
                if not received:
                    return b""
                self._in.write(received)


@over_both_layers
def test_records_may_be_cut_anywhere_and_half_of_one_holds_nobody(
    layer: Layer, certificates: Certificates, tmp_path: Path
) -> None:
    rules = Listener(port=0, tls_port=0, transport="tls", idle_timeout_seconds=2, upper_layer=layer)
    with listening(tmp_path, rules, tls=certificates.tls) as node:
        peer = RawTls(node.port, client(certificates))
        for byte in peer.records(associate_rq([(CR, EXPLICIT)])):
            peer.socket.sendall(bytes((byte,)))
        assert peer.read()[:1] == b"\x02"  # A-ASSOCIATE-AC
        start = time.monotonic()
        peer.socket.sendall(peer.records(pdu(4, bytes(20_000)))[:-100])
        with closing(peer.socket):
            while peer.read():
                pass
        assert time.monotonic() - start < 8
        assert wait_for(lambda: node.scp.association_count == 0)


# --- certificates that are renewed ------------------------------------------------------------------------------------


def test_a_renewed_certificate_is_shown_to_the_next_caller(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files = Issued(tmp_path / "node.pem", tmp_path / "node.key")
    _install(certificates.node, files)
    tls = Tls(certificate=files.certificate, key=files.key, ca=certificates.ca)
    with listening(tmp_path / "store", Listener(port=0, tls_port=0, transport="tls"), tls=tls) as node:
        assert _shown_by(node, certificates) == certificates.node.fingerprint
        with client(certificates).wrap_socket(socket.create_connection(("127.0.0.1", node.port))) as open_one:
            open_one.sendall(associate_rq([(CR, EXPLICIT)]))
            _install(certificates.other, files)
            assert _shown_by(node, certificates) == certificates.other.fingerprint
            assert open_one.recv(1) == b"\x02"
        assert "was read again" in caplog.text

        files.certificate.write_text("half a certificate")
        for _ in range(2):
            assert _shown_by(node, certificates) == certificates.other.fingerprint
    assert len([one for one in caplog.records if "keeps its TLS files" in one.getMessage()]) == 1


def _install(issued: Issued, files: Issued) -> None:
    shutil.copy(issued.key, files.key)
    shutil.copy(issued.certificate, files.certificate)


def _shown_by(node: Listening, certificates: Certificates) -> str:
    with client(certificates).wrap_socket(socket.create_connection(("127.0.0.1", node.port))) as connection:
        import hashlib

        return "sha256:" + hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
