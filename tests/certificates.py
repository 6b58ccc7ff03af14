"""Certificates for tests, made by OpenSSL's command: an authority, and what it signs.

``Authority(folder)`` makes a CA; ``issue`` gives a certificate with its key. Elliptic curves, for a key takes no time.
"""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.tls import Tls

LOCAL_NAMES = "DNS:localhost,IP:127.0.0.1"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, as two PEM files."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as the settings write it."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        return f"sha256:{hashlib.sha256(der).hexdigest()}"


class Authority:
    """A certification authority of its own."""

    def __init__(self, folder: Path, name: str = "Test CA", days: int = 30) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.certificate, self.key = folder / "ca.pem", folder / "ca.key"
        made = ("-subj", f"/CN={name}", "-days", str(days), "-keyout", self.key, "-out", self.certificate)
        _openssl("req", "-x509", *_NEW_KEY, *made)

    def issue(self, name: str, *, names: str = LOCAL_NAMES, days: int = 20, usage: str = "", file: str = "") -> Issued:
        """A certificate with ``name`` as common name; fewer than 0 ``days`` make an expired one."""
        file = file or name
        made = Issued(self.folder / f"{file}.pem", self.folder / f"{file}.key")
        request, extensions = self.folder / f"{file}.csr", self.folder / f"{file}.ext"
        lines = [f"subjectAltName={names}", *([f"extendedKeyUsage={usage}"] if usage else [])]
        extensions.write_text("\n".join(lines) + "\n")
        _openssl("req", "-new", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
        signed = ("-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-days", str(days))
        _openssl("x509", "-req", "-in", request, *signed, "-extfile", extensions, "-out", made.certificate)
        return made

    def revoke(self, *revoked: Issued, days: int = 20, file: str = "revoked") -> Path:
        """A revocation list of this authority with these certificates; fewer than 0 ``days`` make one that is over."""
        made, settings = self.folder / f"{file}.crl", self.folder / f"{file}.cnf"
        (self.folder / f"{file}.txt").write_text("")
        settings.write_text(
            f"[ca]\ndefault_ca = own\n[own]\ndatabase = {self.folder / file}.txt\ndefault_md = sha256\n"
            f"certificate = {self.certificate}\nprivate_key = {self.key}\ndefault_crl_days = 1\n"
        )
        command = ("ca", "-config", settings)
        for one in revoked:
            _openssl(*command, "-revoke", one.certificate)
        begin, end = datetime.now(UTC) - timedelta(days=30), datetime.now(UTC) + timedelta(days=days)
        times = ("-crl_lastupdate", f"{begin:%Y%m%d%H%M%SZ}", "-crl_nextupdate", f"{end:%Y%m%d%H%M%SZ}")
        _openssl(*command, "-gencrl", *times, "-out", made)
        return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@dataclass(frozen=True, slots=True)
class Certificates:
    """A hospital's authority and what it has signed, and a stranger's."""

    authority: Authority
    node: Issued
    pacs: Issued
    other: Issued
    """Of the same authority, for another name."""
    expired: Issued
    server_only: Issued
    """May be shown by servers only (extended key usage)."""
    stranger: Issued
    """For the same name as ``pacs``, of an authority that nobody knows."""

    @property
    def ca(self) -> Path:
        """The certificate of the hospital's authority."""
        return self.authority.certificate

    @property
    def tls(self) -> Tls:
        """The settings of the node."""
        return Tls(certificate=self.node.certificate, key=self.node.key, ca=self.ca)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Import it where it is needed, and mark the test with ``pytest.mark.peer("openssl")``."""
    folder = tmp_path_factory.mktemp("certificates")
    hospital, unknown = Authority(folder / "hospital", "Hospital CA"), Authority(folder / "unknown", "Unknown CA")
    return Certificates(
        hospital,
        node=hospital.issue("node.hospital"),
        pacs=hospital.issue("pacs.hospital"),
        other=hospital.issue("other.hospital", names="DNS:other.hospital"),
        expired=hospital.issue("pacs.hospital", days=-1, file="expired"),
        server_only=hospital.issue("pacs.hospital", usage="serverAuth", file="server-only"),
        stranger=unknown.issue("pacs.hospital"),
    )
