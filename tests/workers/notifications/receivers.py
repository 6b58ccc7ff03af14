"""Receivers at the other end: a real HTTP server, a real SMTP server and a real MLLP server, on this machine."""

from __future__ import annotations

import socketserver
import ssl
import subprocess
import threading
from asyncio import Server
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from workers.hl7.mllp import Deframer, frame


def make_certificate(folder: Path) -> Path:
    """A certificate for this machine with its key, in one file."""
    path, key = folder / "both.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*command, *names, "-keyout", str(key), "-out", str(path)], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@dataclass
class Request:
    """One HTTP request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Web:
    """A web server; ``status`` answers every POST, ``before`` is called before it does."""

    status: int = 200
    before: Callable[[Request], None] = lambda _: None
    requests: list[Request] = field(default_factory=list)
    port: int = 0


@contextmanager
def web(certificate: Path | None = None, **options: Any) -> Iterator[Web]:
    state = Web(**options)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            state.requests.append(request)
            state.before(request)
            self.send_response(state.status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        server.socket = server_side(certificate).wrap_socket(server.socket, server_side=True)
    with _serving(server):
        state.port = server.server_address[1]
        yield state


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Mail:
    """A mail server; ``envelopes`` is what it has taken, ``refuse`` the recipients that it does not know."""

    envelopes: list[Envelope] = field(default_factory=list)
    refuse: frozenset[str] = frozenset()
    answer: str = "250 taken"
    secured: list[bool] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    port: int = 0

    async def handle_RCPT(  # noqa: N802  (called so by aiosmtpd)
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refuse:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.envelopes.append(envelope)
            self.secured.append(session.ssl is not None)
        return self.answer

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and data == LoginPassword(b"pleura", b"secret")
        self.users.append(data.login.decode())
        return AuthResult(success=good, handled=False)  # the server answers


def content_of(envelope: Envelope) -> bytes:
    """The mail as it came."""
    assert isinstance(envelope.content, bytes)
    return envelope.content


class FreePortController(Controller):
    """Greets the port that it has got, and not the 0 that it was asked for."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def mail(certificate: Path | None = None, *, log_in: bool = False, **options: Any) -> Iterator[Mail]:
    """A mail server; with ``certificate`` it wants STARTTLS, with ``log_in`` user pleura and password secret."""
    state = Mail(**options)
    more: dict[str, Any] = {}
    if certificate is not None:
        more |= {"tls_context": server_side(certificate), "require_starttls": True}
    if log_in:
        more |= {"authenticator": state.authenticate, "auth_required": True, "auth_require_tls": True}
    controller = FreePortController(state, hostname="127.0.0.1", port=0, ready_timeout=60, **more)
    controller.start()
    try:
        state.port = controller.port
        yield state
    finally:
        controller.stop()


@dataclass
class Hospital:
    """An HL7 receiver; ``reply`` makes the answer of a message."""

    reply: Callable[[str], str]
    messages: list[str] = field(default_factory=list)
    port: int = 0


def accept(message: str, code: str = "AA") -> str:
    """The acknowledgement of a message, as a hospital's engine writes it."""
    number = message.split("\r")[0].split("|")[9]
    return f"MSH|^~\\&|EHR|HOSPITAL|PLEURA||20260301030000||ACK^R01|X{number}|P|2.5.1\rMSA|{code}|{number}\r"


@contextmanager
def hospital(certificate: Path | None = None, reply: Callable[[str], str] = accept) -> Iterator[Hospital]:
    state = Hospital(reply)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            deframer = Deframer(100_000)
            while chunk := self.request.recv(65536):
                for raw in deframer.feed(chunk):
                    state.messages.append(raw.decode())
                    answer = state.reply(raw.decode())
                    if not answer:
                        return
                    self.request.sendall(frame(answer.encode()))

    class Server(socketserver.ThreadingTCPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing of clients that leave."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        server.socket = server_side(certificate).wrap_socket(server.socket, server_side=True)
    with _serving(server):
        state.port = server.server_address[1]
        yield state
