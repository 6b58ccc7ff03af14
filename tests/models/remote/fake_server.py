"""A small server of the Open Inference Protocol that misbehaves as it is told; the real ones are asked beside it."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.models.samples import SIZE

NAME, VERSION = "tiny", "1"
_LENGTH = "Inference-Header-Content-Length"


def tiny(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """What the network answers: as :func:`tests.models.samples.classifier_graph` with two classes."""
    pooled = images.reshape(len(images), SIZE // 2, 2, SIZE // 2, 2).mean(axis=(2, 4))
    maps = np.stack([pooled, pooled**2], axis=-1)
    return {"probabilities": maps.mean(axis=(1, 2)), "maps": maps}


@dataclass
class FakeServer:
    """What it says, and what it was asked. ``statuses`` are answered first, one a request."""

    binary: bool = False
    name: str = NAME
    version: str = VERSION
    versions: list[str] = field(default_factory=lambda: [VERSION])
    shape: tuple[int, ...] = (-1, SIZE, SIZE, 1)
    network: Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]] = tiny
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    drip_seconds: float = 0.0
    closes: bool = False
    change: Callable[[dict[str, Any]], None] = lambda _answer: None
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    @property
    def sent(self) -> bytes:
        """Every byte that a client has sent."""
        parts = ((path, json.dumps(headers), body) for path, headers, body in self.requests)
        return b"\n".join(each if isinstance(each, bytes) else each.encode() for part in parts for each in part)

    def describe(self) -> dict[str, Any]:
        image = {"name": "image", "datatype": "FP32", "shape": list(self.shape)}
        outputs = [{"name": name, "datatype": "FP32", "shape": [-1]} for name in ("probabilities", "maps")]
        return {
            "name": self.name,
            "versions": self.versions,
            "platform": "fake",
            "inputs": [image],
            "outputs": outputs,
        }

    def infer(self, body: bytes, length: int) -> tuple[bytes, int]:
        """The answer, and the length of its JSON."""
        asked = json.loads(body[:length])
        (given,) = asked["inputs"]
        raw = body[length:]
        values = np.frombuffer(raw, "<f4") if raw else np.array(given["data"], np.float32)
        found = self.network(values.reshape(given["shape"])[..., 0])
        tail = b""
        outputs = []
        for name, array in found.items():
            output: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
            if self.binary:
                content = array.astype("<f4").tobytes()
                output["parameters"] = {"binary_data_size": len(content)}
                tail += content
            else:
                output["data"] = array.ravel().astype(float).tolist()
            outputs.append(output)
        answer = {"model_name": self.name, "model_version": self.version, "outputs": outputs}
        self.change(answer)
        head = json.dumps(answer).encode()
        return head + tail, len(head)


@contextmanager
def serving(server: FakeServer, context: ssl.SSLContext | None = None, port: int = 0) -> Iterator[FakeServer]:
    """Let ``server`` answer on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            self._noted(b"")
            if self._refused():
                return
            extensions = ["binary_tensor_data"] if server.binary else []
            found = {"name": "fake", "extensions": extensions} if self.path == "/v2" else server.describe()
            self._answer(json.dumps(found).encode(), {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._noted(body)
            if self._refused():
                return
            answer, length = server.infer(body, int(self.headers.get(_LENGTH, len(body))))
            self._answer(answer, {_LENGTH: str(length)} if server.binary else {})

        def _noted(self, body: bytes) -> None:
            server.requests.append((self.path, dict(self.headers), body))

        def _refused(self) -> bool:
            if not server.statuses:
                return False
            self._answer(b'{"error": "as told"}', server.headers, server.statuses.pop(0))
            return True

        def _answer(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if server.drip_seconds:
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(server.drip_seconds)
            else:
                self.wfile.write(content)
            self.close_connection = server.closes

        def handle(self) -> None:
            with suppress(OSError):  # the client has gone, as clients do
                super().handle()

    listening = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    listening.daemon_threads = True
    if context is not None:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
    server.url = f"{'https' if context else 'http'}://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
