"""The TLS certificates of a node: until when they are valid, and whether it can use its own in both directions."""

from __future__ import annotations

import binascii
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from config.settings import Settings
from config.tls import Tls
from node.monitoring.check import Check
from workers.clock import for_people, utc_now
from workers.tls import WRONG_USE, TlsProblem, client_context, fingerprint_of, server_context, tls_problem

_SOON = timedelta(days=30)
_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----(.+?)-----END \1-----", re.DOTALL)
_REVOCATION_LIST = b"X509 CRL"
_VERSION = 0xA0  # [0] EXPLICIT, RFC 5280 4.1
_UTC_TIME = 0x17
_INTEGER = 0x02
_MOST_STEPS = 10
_OF_PARTS = ("tls.", "admin.", "hl7.", "dicomweb.")
"""Settings whose files the checks of TLS, admin page and HL7 listener load, and tell what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Validity:
    """From when and until when a certificate is valid (RFC 5280 4.1.2.5)."""

    begins: datetime
    ends: datetime

    def ends_soon(self, now: datetime) -> bool:
        """Whether it is time to renew it: 30 days before its end, or a quarter of its life if that is shorter."""
        return now > self.ends - min(_SOON, (self.ends - self.begins) / 4)


def validity(certificate: Path) -> Validity:
    """The validity of the certificate or revocation list in a PEM file; of several, of the one that ends first.

    Raises:
        OSError: the file cannot be read, or holds no certificate.
    """
    try:
        blocks = _PEM.findall(certificate.read_bytes())
    except OSError as error:
        raise OSError(f"{certificate}: {error.strerror}") from error
    try:
        found = [_validity(binascii.a2b_base64(body), kind) for kind, body in blocks]
    except (ValueError, IndexError) as error:
        raise OSError(f"{certificate} holds a certificate that cannot be read") from error
    if not found:
        raise OSError(f"{certificate} holds no certificate in PEM format")
    return min(found, key=lambda one: one.ends)


def _validity(encoded: bytes, kind: bytes) -> Validity:
    """Walk in DER to ``Certificate.tbsCertificate.validity``, or to ``CertificateList.tbsCertList.thisUpdate`` (RFC
    5280 5.1); the standard library reads it of verified peers only.
    """
    _, at, _ = _element(encoded, 0)
    _, at, _ = _element(encoded, at)
    if kind == _REVOCATION_LIST:
        if encoded[at] == _INTEGER:
            _, _, at = _element(encoded, at)
        for _ in ("signature", "issuer"):
            _, _, at = _element(encoded, at)
    else:
        if encoded[at] == _VERSION:
            _, _, at = _element(encoded, at)
        for _ in ("serialNumber", "signature", "issuer"):
            _, _, at = _element(encoded, at)
        _, at, _ = _element(encoded, at)
    begins, at = _time(encoded, at)
    ends, _ = _time(encoded, at)
    return Validity(begins, ends)


def _element(encoded: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the contents of an element (X.690 8.1)."""
    tag, length, start = encoded[at], encoded[at + 1], at + 2
    if length >= 0x80:
        start += length - 0x80
        length = int.from_bytes(encoded[at + 2 : start], "big")
    return tag, start, start + length


def _time(encoded: bytes, at: int) -> tuple[datetime, int]:
    tag, start, end = _element(encoded, at)
    text = encoded[start:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC), end


REFUSED = "Whoever checks it refuses the connection: images, results or log-ins do not get through."


def certificates_in_use(settings: Settings) -> dict[str, Path]:
    """The files with certificates that this node shows, or that it trusts, by their keys in the settings."""
    tls, admin, hl7, notifications = settings.tls, settings.admin, settings.hl7, settings.notifications
    web = settings.dicomweb
    used = {
        "tls.certificate": tls.certificate,
        "tls.ca": tls.ca,
        "tls.crl": tls.crl,
        "admin.tls_certificate": admin.tls_certificate if admin.enabled else None,
        "hl7.tls_certificate": hl7.tls_certificate if hl7.enabled else None,
        "hl7.tls_client_ca": hl7.tls_client_ca if hl7.enabled else None,
        "dicomweb.tls_certificate": web.tls_certificate if web.enabled else None,
        "dicomweb.tls_client_ca": web.tls_client_ca if web.enabled else None,
    }
    for name, channel in notifications.channels.items():
        used[f"notifications.{name}.ca_file"] = getattr(channel, "ca_file", None) if channel.enabled else None
    for repository in settings.audit.repositories:
        used[f"audit.repositories[{repository.name}].ca_file"] = repository.ca_file
    return {key: path for key, path in used.items() if path is not None}


def check_certificates(settings: Settings, now: datetime | None = None) -> Iterator[Check]:
    """Each certificate that cannot be read or ends soon; one sentence about all of them if there are none such."""
    now, left = now or utc_now(), dict[str, int]()
    for key, path in certificates_in_use(settings).items():
        try:
            valid = validity(path)
        except OSError as error:
            if not key.startswith(_OF_PARTS):
                yield Check("certificates", False, f"{key}: {error}", f"correct {key}, or write that file")
            continue
        days = (valid.ends - now).days
        if now < valid.begins:
            found = f"{key}: {path} is valid from {for_people(valid.begins, settings.site.zone)} only"
            yield Check("certificates", False, found, "compare the clocks of this machine and of the CA", REFUSED)
        elif valid.ends_soon(now):
            ends = f"ends in {days} days" if days > 1 else "ends within a day" if days >= 0 else "has expired"
            what = "list" if key == "tls.crl" else "certificate"
            found = f"{key}: a {what} in {path} {ends}, on {for_people(valid.ends, settings.site.zone)}"
            effect = "" if now < valid.ends else REFUSED
            yield Check("certificates", False, found, "renew it; the new file is used without a restart", effect)
        else:
            left[key] = days
    if left and len(left) == len(certificates_in_use(settings)):
        text = ", ".join(f"{key} {days} days" for key, days in left.items())
        yield Check("certificates", True, f"valid: {text}")


def check_tls(settings: Settings) -> Iterator[Check]:
    """Whether the node can use the files of [tls], and who may show any certificate of the CA."""
    tls = settings.tls
    if tls.certificate is None or tls.ca is None:
        return
    try:
        server_context(tls)
        problem = own_problem(tls)
    except OSError as error:
        yield Check("TLS", False, str(error), "correct tls.certificate, tls.key, tls.ca and tls.crl")
        return
    if problem is WRONG_USE:
        found = "tls.certificate is not for both uses: callers see it, and destinations that ask for one"
        yield Check("TLS", False, found, _BOTH_USES)
        return
    anyone = [peer.ae_title for peer in settings.listener.peers if not peer.certificates]
    if settings.listener.has_tls and anyone:
        found = f"any certificate of tls.ca may call as {', '.join(anyone)}"
        yield Check("TLS", True, found, "name the certificates of each of them in [[listener.peers]]")


_BOTH_USES = "get a certificate with the extended key usages serverAuth and clientAuth, or without any"


def own_problem(tls: Tls) -> TlsProblem | None:
    """Why this node would refuse its own certificate, as a server's or as a client's; None if it would not.

    A handshake is made in memory, between this process and itself.

    Raises:
        OSError: a file cannot be read or used.
    """
    assert tls.certificate is not None
    own = Tls(certificate=tls.certificate, key=tls.key, ca=tls.certificate)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    calling = client_context(own, (fingerprint_of(tls.certificate),))
    client = calling.wrap_bio(to_client, to_server)
    server = server_context(own).wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(_MOST_STEPS):
            if all([_shake_hands(client), _shake_hands(server)]):
                break
    except ssl.SSLError as error:
        return tls_problem(error)
    return None


def _shake_hands(side: ssl.SSLObject) -> bool:
    """Go on with the handshake as far as the other side has answered; whether it is complete."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def open_keys(settings: Settings) -> list[Path]:
    """Files with keys of this node that other users of the machine may read."""
    servers = (settings.admin, settings.hl7, settings.dicomweb)
    keys = (settings.tls.key or settings.tls.certificate, *(one.tls_key or one.tls_certificate for one in servers))
    return [path for path in dict.fromkeys(keys) if path is not None and path.exists() and path.stat().st_mode & 0o007]
