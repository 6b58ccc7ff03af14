"""TLS for DICOM in both directions, by BCP 195 (PS3.15 B.12: RFC 8996, RFC 9325): contexts, whose certificate a peer
shows, and why a handshake failed.

Both sides show a certificate of a CA that the other one trusts. Files are read again when they change, so that a
renewed certificate is used for the next association.
"""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from config.destinations import Destination
from config.tls import Tls

TLS_PROBLEM = "TLS: "
"""Each reason of a :class:`TlsProblem` begins so; whoever is refused for one has not said an AE title yet."""

# RFC 9325 4.2: ephemeral keys and authenticated encryption. TLS 1.3 has no other suites.
_TLS_1_2_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"

log = logging.getLogger(__name__)


class TlsError(Exception):
    """There is no TLS connection with a peer; the message says why."""


@dataclass(frozen=True, slots=True)
class TlsProblem:
    """Why a handshake failed, in the same words for both directions, and the remedy."""

    why: str
    remedy: str


NO_HANDSHAKE = TlsProblem("TLS: the handshake failed", "The log of the peer says more.")
ENDED = TlsProblem(
    "TLS: the peer ended the handshake", "Perhaps it does not speak TLS on this port; the log of the peer says more."
)
FILES = TlsProblem("TLS: the files of [tls] cannot be used", "Run `pleura doctor`, and correct what it says of TLS.")
WRONG_NAME = TlsProblem(
    "TLS: the peer's certificate is for another name",
    "Correct destinations[].host, or name the peer's certificate in destinations[].certificates.",
)
WRONG_USE = TlsProblem(
    "TLS: the peer's certificate is not for this use",
    "Get one with the extended key usage clientAuth for a peer that calls, serverAuth for one that is called.",
)
_NOT_ACCEPTED = TlsProblem(
    "TLS: the peer does not accept our certificate",
    "Give the peer the CA of tls.certificate; it must allow that certificate for clients and servers.",
)
_NO_CERTIFICATE = TlsProblem("TLS: the peer shows no certificate", "Give the peer a certificate and its key.")
_NO_TLS = TlsProblem(
    "TLS: the peer does not speak TLS on this port", "Switch TLS on at the peer, or use the port without TLS."
)
_OLD = TlsProblem(
    "TLS: the peer offers neither TLS 1.2 nor TLS 1.3", "Update the peer: older versions are not secure (RFC 8996)."
)
_NO_SUITE = TlsProblem(
    "TLS: no cipher suite in common", "Let the peer offer ECDHE with AES-GCM or ChaCha20 (RFC 9325), or TLS 1.3."
)
_UNKNOWN_CA = TlsProblem(
    "TLS: the peer's certificate is not of a CA in tls.ca", "If you trust that CA, add its certificate to tls.ca."
)
_NO_LIST = TlsProblem(
    "TLS: there is no valid revocation list for the peer's certificate",
    "Fetch the newest list of each CA in tls.ca into tls.crl.",
)
_BY_VERIFICATION: Mapping[int, TlsProblem] = {
    # X509_V_ERR_… (openssl/x509_vfy.h)
    **dict.fromkeys((3, 8, 11, 12), _NO_LIST),
    23: TlsProblem("TLS: the peer's certificate was revoked by its CA", "Get a new one for the peer, if it is yours."),
    2: _UNKNOWN_CA,
    18: _UNKNOWN_CA,
    19: _UNKNOWN_CA,
    20: _UNKNOWN_CA,
    21: _UNKNOWN_CA,
    9: TlsProblem("TLS: the peer's certificate is not valid yet", "Compare the clocks of both machines."),
    10: TlsProblem("TLS: the peer's certificate has expired", "Renew it at the peer."),
    26: WRONG_USE,
    62: WRONG_NAME,
    64: WRONG_NAME,
}
_BY_REASON = (
    (r"PEER_DID_NOT_RETURN_A_CERTIFICATE", _NO_CERTIFICATE),
    (r"ALERT_CERTIFICATE_REQUIRED", TlsProblem("TLS: the peer asks for our certificate", "Set tls.certificate.")),
    (r"UNSUPPORTED_PROTOCOL|VERSION_TOO_LOW|ALERT_PROTOCOL_VERSION", _OLD),
    (r"WRONG_VERSION_NUMBER|HTTP_REQUEST|HTTPS_PROXY_REQUEST|RECORD_LAYER_FAILURE|PACKET_LENGTH_TOO_LONG", _NO_TLS),
    (r"NO_SHARED_CIPHER|ALERT_HANDSHAKE_FAILURE|NO_SUITABLE|INSUFFICIENT_SECURITY", _NO_SUITE),
    (r"ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_\w+|ACCESS_DENIED)", _NOT_ACCEPTED),
)


def ended_without_notice(error: OSError) -> bool:
    """Whether the peer has closed the connection without ``close_notify``. What OpenSSL 3 says of it has a class of its
    own only in newer releases of Python 3.11."""
    return isinstance(error, ssl.SSLEOFError) or getattr(error, "reason", None) == "UNEXPECTED_EOF_WHILE_READING"


def tls_problem(error: OSError) -> TlsProblem:
    """Why a handshake failed with ``error``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _BY_VERIFICATION.get(error.verify_code, NO_HANDSHAKE)
    if isinstance(error, ConnectionError) or ended_without_notice(error):
        return ENDED
    reason = getattr(error, "reason", None) or ""
    return next((problem for pattern, problem in _BY_REASON if re.search(pattern, reason)), NO_HANDSHAKE)


def tls_remedy(text: str) -> str | None:
    """What to do about the problem that ``text`` tells; None if it tells none."""
    known = (NO_HANDSHAKE, ENDED, FILES, *_BY_VERIFICATION.values(), *(problem for _, problem in _BY_REASON))
    return next((problem.remedy for problem in known if problem.why in text), None)


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """Whose certificate a peer has shown: common names and alternative names in lower case, and the SHA-256 digest."""

    names: tuple[str, ...]
    fingerprint: str

    def is_one_of(self, certificates: Collection[str]) -> bool:
        """Whether one of ``certificates`` (names and fingerprints, as the settings have them) is this one."""
        return self.fingerprint in certificates or any(name in certificates for name in self.names)

    def __str__(self) -> str:
        return f"{', '.join(self.names) or 'no name'} ({self.fingerprint})"


def peer_certificate(connection: ssl.SSLSocket) -> PeerCertificate:
    """The certificate that the peer of a connection has shown and that was verified."""
    fields: Mapping[str, Any] = connection.getpeercert() or {}
    subject = [value for part in fields.get("subject", ()) for key, value in part if key == "commonName"]
    others = [value for _, value in fields.get("subjectAltName", ()) if isinstance(value, str)]
    digest = hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
    return PeerCertificate(tuple(dict.fromkeys(name.lower() for name in (*subject, *others))), f"sha256:{digest}")


class TlsSocket(ssl.SSLSocket):
    """A connection that ends in good order (RFC 8446 6.1). Other threads than its own use :func:`shut_down`."""

    def shutdown(self, how: int) -> None:
        """Say that nothing more is sent, without waiting for the peer to say the same, and shut down."""
        with suppress(OSError, ValueError):
            self.settimeout(0)
            self.unwrap()
        super().shutdown(how)


def shut_down(connection: socket.socket) -> None:
    """Cut a connection at once, from any thread: TLS, which another thread may be using, is left alone."""
    with suppress(OSError):  # it is closed
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def load_identity(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Load a certificate and its key, which must not need a passphrase.

    Raises:
        OSError: a file cannot be read, or the key needs a passphrase or belongs to another certificate.
    """

    where = key or certificate

    def refuse() -> NoReturn:
        raise OSError(f"the key in {where} needs a passphrase; write it without one (`openssl pkey`)")

    for path in {certificate, where}:
        _look_at(path)
    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise OSError(f"the key in {where} does not belong to the certificate in {certificate}") from error
        raise OSError(f"{certificate} holds no certificate, or {where} no key, in PEM format") from error


def load_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Trust the certificates in a file.

    Raises:
        OSError: it cannot be read, or holds none.
    """
    _look_at(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise OSError(f"{path} holds nothing in PEM format that belongs there") from error


def trust_authorities(context: ssl.SSLContext, tls: Tls) -> None:
    """Trust what ``tls.ca`` names, and refuse what ``tls.crl`` says was revoked.

    Raises:
        OSError: one of them cannot be read, or holds none.
    """
    if tls.ca is not None:
        load_authorities(context, tls.ca)
    if tls.crl is None:
        return
    load_authorities(context, tls.crl)
    if not context.cert_store_stats()["crl"]:
        raise OSError(f"{tls.crl} holds no certificate revocation list in PEM format")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _look_at(path: Path) -> None:
    """Raise an OSError that names the file, where it cannot be read: OpenSSL's does not."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise OSError(f"{path}: {error.strerror}") from error


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS_1_2_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _prepare(context: ssl.SSLContext, tls: Tls) -> None:
    _harden(context)
    # No resumption: each association shows its certificate, which is looked at anew.
    context.options |= ssl.OP_NO_TICKET
    context.verify_mode = ssl.CERT_REQUIRED
    # tls.ca may name single certificates too, without the CA that signed them.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if tls.certificate is not None:
        load_identity(context, tls.certificate, tls.key)
    trust_authorities(context, tls)


def server_context(tls: Tls) -> ssl.SSLContext:
    """The context of the listener: callers must show a certificate of ``tls.ca``, or the node's own.

    Raises:
        OSError: a file cannot be read or used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = TlsSocket
    _prepare(context, tls)
    context.num_tickets = 0
    if tls.certificate is not None:
        # `pleura doctor` calls the listener of its own node. Not the CAs behind it in that file: they sign for others.
        context.load_verify_locations(cadata=_first_certificate(tls.certificate))
    return context


class ServerContexts:
    """The context of a server, made anew when one of its files has changed. Safe to share between threads.

    Raises:
        OSError: a file cannot be read or used, when it is made.
    """

    def __init__(self, server: str, files: Sequence[Path | None], make: Callable[[], ssl.SSLContext]) -> None:
        self._server = server
        self._files = tuple(path for path in files if path is not None)
        self._make = make
        self._lock = threading.Lock()
        self._seen = self._state()
        self._context = make()

    def current(self) -> ssl.SSLContext:
        """The context for the next connection; where the changed files cannot be used, the one before."""
        with self._lock:
            now = self._state()
            if now != self._seen:
                self._seen = now
                try:
                    self._context = self._make()
                    log.info("the TLS certificate of the %s was read again", self._server)
                except OSError as error:
                    log.error("the %s keeps its TLS files, the changed ones cannot be used: %s", self._server, error)
            return self._context

    def front(self) -> ssl.SSLContext:
        """A context for a server that takes one for all its time: each handshake goes on with the current one."""
        front = self._make()
        front.sni_callback = self._go_on_with_the_current_one
        return front

    def _go_on_with_the_current_one(self, connection: ssl.SSLObject, _name: str, _front: ssl.SSLContext) -> None:
        connection.context = self.current()

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes with the files; None stands for one that is not there."""
        return tuple(map(_state_of, self._files))


def listener_contexts(tls: Tls) -> ServerContexts:
    """The context of the listener; see :func:`server_context`.

    Raises:
        OSError: a file cannot be read or used.
    """
    return ServerContexts("listener", (tls.certificate, tls.key, tls.ca, tls.crl), lambda: server_context(tls))


def page_contexts(
    certificate: Path, key: Path | None, client_ca: Path | None = None, part: str = "admin page"
) -> ServerContexts:
    """The context of the admin page, which asks browsers for no certificate, or of a ``part`` that wants one.

    Raises:
        OSError: a file cannot be read or used.
    """

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _harden(context)
        load_identity(context, certificate, key)
        if client_ca is not None:
            load_authorities(context, client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    return ServerContexts(part, (certificate, key, client_ca), make)


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def fingerprint_of(certificate: Path) -> str:
    """The fingerprint of the first certificate in a PEM file, as the settings write it.

    Raises:
        OSError: the file cannot be read, or holds no certificate.
    """
    return f"sha256:{hashlib.sha256(_first_certificate(certificate)).hexdigest()}"


def _first_certificate(certificate: Path) -> bytes:
    begin, end = ssl.PEM_HEADER, ssl.PEM_FOOTER
    _, found, rest = certificate.read_text(encoding="ascii", errors="replace").partition(begin)
    body, closed, _ = rest.partition(end)
    if not (found and closed):
        raise OSError(f"there is no certificate in {certificate}")
    return ssl.PEM_cert_to_DER_cert(begin + body + end)


class ClientContext(ssl.SSLContext):
    """The context of one association that this node requests. It keeps why TLS failed, which pynetdicom forgets."""

    certificates: tuple[str, ...] = ()
    failure: str = ""

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep why the block fails."""
        try:
            yield
        except TimeoutError:
            self.failure = self.failure or f"{NO_HANDSHAKE.why}: no answer in time"
            raise
        except OSError as error:
            problem = tls_problem(error)
            detail = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.strerror or ""
            self.failure = self.failure or f"{problem.why} ({detail})"
            raise


class _ClientSocket(TlsSocket):
    """Looks whose certificate the peer shows, and says what goes wrong to its context."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands; a certificate that is not one of the expected ones ends it."""
        context = self.context
        assert isinstance(context, ClientContext)
        with context.noting():
            super().do_handshake(block)
        if context.certificates and not (shown := peer_certificate(self)).is_one_of(context.certificates):
            context.failure = f"{WRONG_NAME.why} ({shown})"
            raise ssl.SSLCertVerificationError(WRONG_NAME.why)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read; with TLS 1.3 the answer to our certificate comes only now (RFC 8446 4.4.2.4)."""
        context = self.context
        assert isinstance(context, ClientContext)
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            context.failure = context.failure or f"{tls_problem(error).why} ({error.reason})"
            raise


def client_context(tls: Tls, certificates: tuple[str, ...] = ()) -> ClientContext:
    """The context of an association with a peer whose certificate is one of ``certificates``.

    Without them, it must be valid for the host that is called.

    Raises:
        TlsError: a file cannot be read or used.
    """
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _ClientSocket
    context.certificates = certificates
    context.check_hostname = not certificates
    try:
        _prepare(context, tls)
    except OSError as error:
        raise TlsError(f"{FILES.why}: {error}") from error
    return context


def destination_context(tls: Tls, destination: Destination) -> ClientContext | None:
    """The context of an association with ``destination``; None where it is called without TLS.

    Raises:
        TlsError: a file cannot be read or used.
    """
    return client_context(tls, destination.certificates) if destination.tls else None
