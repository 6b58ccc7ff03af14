"""HTTP requests to the server of a network: one connection that is kept, one host, no redirects and no proxies."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from models.endpoint import EndpointSpec
from models.remote.calling import NotReachedError
from models.remote.time_limit import within
from models.runtime.executor import ModelOutputError, ModelUnavailableError

LARGEST_ANSWER = 256 * 1024 * 1024
_CHUNK = 1 << 16
_BUSY = (408, 425, 429, 502, 503, 504)
_LONGEST_ERROR = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """A success."""

    headers: Message
    body: bytes


class HttpServer:
    """The server of ``endpoint``."""

    def __init__(self, endpoint: EndpointSpec) -> None:
        self._endpoint = endpoint
        self._url = urlsplit(endpoint.url)
        self._connection: HTTPConnection | None = None

    def request(
        self, path: str, seconds: float, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """GET ``path`` below the endpoint's URL, or POST ``body`` to it.

        Raises:
            NotReachedError: no answer within ``seconds``, or the server is busy.
            ModelUnavailableError: it refuses the credentials, or does not know what is asked for.
            ModelOutputError: it answers with an error, or with too much.
        """
        deadline, kept = time.monotonic() + seconds, self._connection is not None
        try:
            status, answer = self._exchange(path, deadline, body, headers or {})
        except ssl.SSLError as error:
            self.close()
            raise NotReachedError(f"no TLS connection ({error.reason or type(error).__name__})") from error
        except (OSError, HTTPException) as error:
            self.close()
            if kept and isinstance(error, ConnectionError):  # it has closed the connection while nobody used it
                return self.request(path, deadline - time.monotonic(), body, headers)
            raise NotReachedError(f"it cannot be reached ({type(error).__name__})") from error
        return self._checked(status, answer)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(
        self, path: str, deadline: float, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, Answer]:
        if self._connection is None:
            self._connection = _connected(self._endpoint)
        connection = self._connection
        connection.timeout = _left(deadline)
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(connection.timeout)
        method = "GET" if body is None else "POST"
        sent = {
            "Accept": "application/json",
            "User-Agent": f"Pleura/{version('pleura')}",
            **headers,
            **_token(self._endpoint),
        }
        connection.request(method, f"{self._url.path.rstrip('/')}/{path}", body, sent)
        with within(_left(deadline), connection.sock):
            response = connection.getresponse()
            found = self._read(response)
        return response.status, Answer(response.headers, found)

    def _read(self, response: HTTPResponse) -> bytes:
        parts, size = [], 0
        while part := response.read1(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > LARGEST_ANSWER:
                self.close()
                raise ModelOutputError(
                    f"{self._endpoint.model}: the server's answer has more than {LARGEST_ANSWER} bytes"
                )
        response.close()  # before Python 3.12 read1 leaves it open, and with it no further request is sent
        return b"".join(parts)

    def _checked(self, status: int, answer: Answer) -> Answer:
        if status in (200, 201):
            return answer
        who = f"the model server {self._endpoint.url}"
        if status in _BUSY:
            raise NotReachedError(f"it is busy or not ready (status {status})")
        if status in (401, 403):
            raise ModelUnavailableError(f"{who} cannot be used: it refuses the credentials (status {status})")
        message = _printable(answer.body)
        if status == 404:
            raise ModelUnavailableError(
                f"{who} cannot be used: it has no model '{self._endpoint.model}' {self._endpoint.version}".rstrip()
                + message
            )
        raise ModelOutputError(f"{self._endpoint.model}: {who} answers with status {status}{message}")


def client_context(endpoint: EndpointSpec) -> ssl.SSLContext:
    """TLS as the endpoint says.

    Raises:
        ModelUnavailableError: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=endpoint.ca or None)
        if endpoint.certificate:
            context.load_cert_chain(endpoint.certificate, endpoint.key or None)
    except OSError as error:  # ssl.SSLError, too
        files = ", ".join(filter(None, (endpoint.ca, endpoint.certificate, endpoint.key)))
        raise ModelUnavailableError(f"the TLS files of {endpoint.url} cannot be used ({files}): {error}") from error
    return context


def bearer_token(endpoint: EndpointSpec) -> str:
    """The token of the endpoint; empty where it has none.

    Raises:
        ModelUnavailableError: its file cannot be read.
    """
    if not endpoint.token_file:
        return ""
    try:
        return Path(endpoint.token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelUnavailableError(
            f"the token of {endpoint.url} cannot be read from {endpoint.token_file} ({type(error).__name__})"
        ) from error


def _token(endpoint: EndpointSpec) -> dict[str, str]:
    token = bearer_token(endpoint)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _connected(endpoint: EndpointSpec) -> HTTPConnection:
    url = urlsplit(endpoint.url)
    host = url.hostname or ""
    if not endpoint.secure:
        return HTTPConnection(host, url.port)
    return HTTPSConnection(host, url.port, context=client_context(endpoint))


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time limit is over")
    return left


def _printable(body: bytes) -> str:
    """The server's message about an error; it has got nothing of a patient that it could quote."""
    text = "".join(each if each.isprintable() else " " for each in body[:_LONGEST_ERROR].decode("utf-8", "replace"))
    return f": {text}" if text.strip() else ""
