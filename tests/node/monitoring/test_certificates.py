"""Until when certificates are valid, as OpenSSL says it, and what doctor says of those of a node."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.listener import Listener, Peer
from config.settings import Settings, Store
from config.tls import Tls
from node.monitoring.certificates import Validity, check_certificates, check_tls, validity
from node.monitoring.check import Check
from node.monitoring.permissions import check_permissions
from tests.certificates import Certificates, certificates

__all__ = ["certificates"]
pytestmark = pytest.mark.peer("openssl")


def _as_openssl_says(certificate: Path) -> Validity:
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-dates"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    begins, ends = (
        datetime.strptime(line.partition("=")[2], "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
        for line in output.splitlines()
    )
    return Validity(begins, ends)


def test_the_validity_is_what_openssl_says(certificates: Certificates) -> None:
    for path in (certificates.ca, certificates.node.certificate, certificates.expired.certificate):
        assert validity(path) == _as_openssl_says(path)


@pytest.mark.parametrize("days", [12_000, 40_000])
def test_a_root_that_is_valid_beyond_2049_has_its_time_in_another_form(days: int, tmp_path: Path) -> None:
    made = tmp_path / "long.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -days {days} -out {made} -keyout {made}.key"
    subprocess.run(command.split(), check=True, capture_output=True)
    assert validity(made) == _as_openssl_says(made)


def test_of_several_certificates_in_a_file_the_first_to_end_counts(certificates: Certificates, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_text(f"# text\n{certificates.ca.read_text()}\n{certificates.node.certificate.read_text()}")
    assert validity(chain) == _as_openssl_says(certificates.node.certificate)


def test_a_revocation_list_ends_too(certificates: Certificates, tmp_path: Path) -> None:
    listed = certificates.authority.revoke(certificates.other, days=3)
    assert (validity(listed).ends - datetime.now(UTC)).days == 2
    own = certificates.node
    rules = Tls(certificate=own.certificate, key=own.key, ca=certificates.ca, crl=listed)
    found = [check.found for check in check_certificates(Settings(tls=rules))]
    assert any(text.startswith(f"tls.crl: a list in {listed} ends in 2 days") for text in found), found
    wrong = rules.model_copy(update={"crl": certificates.ca})
    (check,) = check_tls(Settings(tls=wrong, listener=Listener(transport="tls")))
    assert check.found == f"{certificates.ca} holds no certificate revocation list in PEM format"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "cannot be read"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "cannot be read"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "cannot be read"),
    ],
)
def test_what_is_no_certificate_is_an_os_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "none.pem").write_text(text)
    with pytest.raises(OSError, match=message):
        validity(tmp_path / "none.pem")
    with pytest.raises(OSError, match=r"missing\.pem: No such file"):
        validity(tmp_path / "missing.pem")


@pytest.mark.parametrize(
    ("life", "left", "soon"),
    [
        (365, 31, False),
        (365, 29, True),
        (40, 11, False),
        (40, 9, True),
        (1, 0.3, False),
        (1, 0.2, True),
        (30, -1, True),
    ],
)
def test_it_is_time_to_renew_before_the_end(life: float, left: float, soon: bool) -> None:
    now = datetime(2026, 11, 29, tzinfo=UTC)
    ends = now + timedelta(days=left)
    assert Validity(ends - timedelta(days=life), ends).ends_soon(now) is soon


# --- doctor -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(certificates: Certificates, tmp_path: Path) -> Tls:
    """The node's files, to spoil."""
    made = Tls(certificate=tmp_path / "node.pem", key=tmp_path / "node.key", ca=tmp_path / "ca.pem")
    for path, original in (
        (made.certificate, certificates.node.certificate),
        (made.key, certificates.node.key),
        (made.ca, certificates.ca),
    ):
        assert path is not None
        shutil.copy(original, path)
        path.chmod(0o600)
    return made


def checks(tls: Tls, folder: Path, *peers: Peer, days: float = 0) -> list[Check]:
    listener = Listener(transport="both", peers=peers)
    settings = Settings(tls=tls, listener=listener, store=Store(folder=folder / "var"))
    later = datetime.now(UTC) + timedelta(days=days)
    return [*check_tls(settings), *check_certificates(settings, later), check_permissions(settings)]


def test_sound_certificates_are_one_sentence(files: Tls, tmp_path: Path) -> None:
    found = checks(files, tmp_path, Peer(ae_title="CT1", certificates=("ct1.hospital",)))
    assert all(check.ok for check in found)
    assert [check.found for check in found if check.part == "certificates"] == [
        "valid: tls.certificate 19 days, tls.ca 29 days"
    ]


def test_peers_that_any_certificate_makes_are_named(files: Tls, tmp_path: Path) -> None:
    found = checks(files, tmp_path, Peer(ae_title="CT1"), Peer(ae_title="XR1", certificates=("xr1.hospital",)))
    (hint,) = [check for check in found if check.part == "TLS"]
    assert hint.ok
    assert hint.found == "any certificate of tls.ca may call as CT1"
    assert "[[listener.peers]]" in hint.remedy


@dataclass(frozen=True)
class Fault:
    """What is wrong, in which part, and words of what is found and of the remedy."""

    make: Callable[[Tls, Certificates], object]
    part: str
    found: str
    remedy: str
    days: float = 0


def _encrypt(tls: Tls, _: Certificates) -> None:
    command = ["openssl", "pkey", "-in", str(tls.key), "-aes256", "-passout", "pass:secret"]
    encrypted = subprocess.run(command, check=True, capture_output=True).stdout
    _path(tls.key).write_bytes(encrypted)


def _path(path: Path | None) -> Path:
    assert path is not None
    return path


FAULTS = {
    "ends soon": Fault(lambda *_: None, "certificates", "tls.certificate: a certificate in", "without a restart", 17),
    "has ended": Fault(lambda *_: None, "certificates", "has expired, on", "renew it", 25),
    "begins later": Fault(lambda *_: None, "certificates", "is valid from", "compare the clocks", -3),
    "another key": Fault(
        lambda tls, made: shutil.copy(made.pacs.key, _path(tls.key)), "TLS", "does not belong to", "tls.key"
    ),
    "key with a passphrase": Fault(_encrypt, "TLS", "needs a passphrase", "tls.key"),
    "no key": Fault(lambda tls, _: _path(tls.key).unlink(), "TLS", "No such file", "tls.key"),
    "for servers only": Fault(
        lambda tls, made: [
            shutil.copy(made.server_only.certificate, _path(tls.certificate)),
            shutil.copy(made.server_only.key, _path(tls.key)),
        ],
        "TLS",
        "not for both uses",
        "serverAuth and clientAuth",
    ),
    "open key": Fault(lambda tls, _: _path(tls.key).chmod(0o644), "permissions", "may read 1 TLS keys", "chmod o-rwx"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_doctor_tells_each_fault_with_its_fix(
    fault: str, files: Tls, certificates: Certificates, tmp_path: Path
) -> None:
    case = FAULTS[fault]
    case.make(files, certificates)
    bad = [check for check in checks(files, tmp_path, days=case.days) if not check.ok]
    assert {check.part for check in bad} == {case.part}
    assert any(case.found in check.found and case.remedy in check.remedy for check in bad), bad
    refused = [check for check in bad if "has expired, on" in check.found]
    assert all("refuses the connection" in check.effect for check in refused)
