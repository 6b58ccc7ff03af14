"""Requests to a web server that takes results: one connection, our credentials, TLS, time limits, and no redirects.

Nothing of an answer but its status gets into a message: a body may quote patient data.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import version
from typing import Any
from urllib.parse import SplitResult, urlsplit

from config.destinations import Destination
from config.tls import Tls
from models.remote.time_limit import within
from workers.destinations.destination_kind import NoAnswerError, PeerUnreachableError, Verdict
from workers.tls import load_identity, trust_authorities

_BUSY = (413, 429, 503, 507)
"""Statuses of a server that is busy or full."""

_ASTRAY = (401, 403, 404, 405, 421)
"""Statuses that are about the URL or the credentials, and no object: all others would get the same."""

_AWAY = (502, 504)
"""Statuses of a proxy that cannot reach the server behind it."""

_LARGEST_ANSWER = 4 * 1024 * 1024
_REFUSED = {401: "the server refuses the credentials", 403: "the server does not allow this node to do that"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its status and its body."""

    status: int
    body: bytes

    @property
    def problem(self) -> str:
        """Why this is no success, in words."""
        if self.status in (404, 405):
            return f"the server does not know the path of the URL (status {self.status})"
        if self.status in _AWAY:
            return f"the server behind the proxy cannot be reached (status {self.status})"
        if self.status in _BUSY:
            return f"the server is busy or full (status {self.status})"
        if self._redirects:
            return f"the server redirects from the path of the URL to another (status {self.status})"
        return _REFUSED.get(self.status, f"the server answers with status {self.status}")

    @property
    def _redirects(self) -> bool:
        return 300 <= self.status < 400

    @property
    def verdict(self) -> Verdict | None:
        """What the status says whatever was asked for; None where that is for the service to say."""
        if self._redirects or self.status in (*_ASTRAY, *_AWAY):
            return Verdict.UNREACHABLE
        if self.status in _BUSY or self.status >= 500:  # 500: a server whose database is away has nothing better to say
            return Verdict.LATER
        return Verdict.RETRY if self.status == 408 else None

    @property
    def json(self) -> Any:
        """The body as JSON; None where it is none, or too deep."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class WebServer:
    """Requests on one connection, which is opened again where the server has closed it."""

    def __init__(self, connection: HTTPConnection, seconds: float, root: str, headers: Mapping[str, str]) -> None:
        self._connection = connection
        self._seconds = seconds
        self._root = root
        self._headers = headers

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send a request to ``path`` below the root of the URL; ``headers`` have underscores for hyphens.

        Raises:
            PeerUnreachableError: no connection.
            NoAnswerError: no answer in time.
        """
        sent = {**self._headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            if self._connection.sock is None:
                self._connect()
            self._connection.request(method, f"{self._root}{path}", body, sent)
            with within(self._seconds, self._connection.sock):
                response = self._connection.getresponse()
                answer = Answer(response.status, response.read(_LARGEST_ANSWER))
            if not response.isclosed():
                self._connection.close()
        except ssl.SSLError as error:
            self._connection.close()
            raise NoAnswerError(f"no TLS connection: {error.reason or type(error).__name__}") from error
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise NoAnswerError(f"the server does not answer ({type(error).__name__})") from error
        return answer

    def _connect(self) -> None:
        try:
            self._connection.connect()
        except ssl.SSLError as error:
            self._connection.close()
            raise PeerUnreachableError(f"no TLS connection: {error.reason or type(error).__name__}") from error
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise PeerUnreachableError(f"the server cannot be reached ({type(error).__name__})") from error


@contextmanager
def web_server(address: str, destination: Destination, tls: Tls, **headers: str) -> Iterator[WebServer]:
    """The server at the URL ``address``, called as ``destination`` says.

    Raises:
        PeerUnreachableError: a file of ``tls`` cannot be used.
    """
    url = urlsplit(address)
    connection = _connection(url, destination, tls)
    try:
        headers = {"User-Agent": f"Pleura/{version('pleura')}", **headers}
        yield WebServer(connection, destination.timeout_seconds, url.path.rstrip("/"), headers)
    finally:
        connection.close()


def credentials(destination: Destination) -> dict[str, str]:
    """The header with the token, or with user and password, of the configuration."""
    if destination.token is not None:
        return {"Authorization": f"Bearer {destination.token.get_secret_value()}"}
    if destination.password is not None:
        pair = f"{destination.user}:{destination.password.get_secret_value()}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"}
    return {}


def _connection(url: SplitResult, destination: Destination, tls: Tls) -> HTTPConnection:
    host, seconds = url.hostname or "", destination.timeout_seconds
    if url.scheme != "https":
        return HTTPConnection(host, url.port, timeout=seconds)
    try:
        context = _context(tls) if destination.tls else ssl.create_default_context()
    except OSError as error:
        raise PeerUnreachableError(str(error)) from error
    return HTTPSConnection(host, url.port, timeout=seconds, context=context)


def _context(tls: Tls) -> ssl.SSLContext:
    """Trust the CAs of the settings and no others, and show our certificate where there is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert tls.ca is not None, "checked with the settings"
    trust_authorities(context, tls)
    if tls.certificate is not None:
        load_identity(context, tls.certificate, tls.key)
    return context
