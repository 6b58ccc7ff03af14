"""The HTTP server of the admin page and of the DICOMweb server: uvicorn with limits on connections, and TLS."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from config.garbage_collection import keep_what_is_loaded
from node.web.connection_limits import ConnectionLimiter, Deadlines, LimitedLoop, Limits, limited_protocol
from workers.tls import ServerContexts


@dataclass(frozen=True, slots=True)
class ServerRules:
    """Where a server listens, how many connections it takes and how long it waits, and its TLS if it has any."""

    host: str
    port: int
    limits: Limits
    deadlines: Deadlines
    tls: ServerContexts | None = None


def run_server(
    app: ASGIApp,
    rules: ServerRules,
    ready: Callable[[int], None],
    stop: threading.Event,
    before_end: Callable[[], None] = lambda: None,
) -> None:
    """Serve ``app`` until ``stop`` is set; ``ready`` is called with the port once it is listening.

    ``before_end`` ends answers that would go on for ever.

    Raises:
        OSError: the address cannot be bound.
    """
    with socket.create_server((rules.host, rules.port)) as listening:
        # Connections inherit it (tcp(7)). asyncio sets it only where a socket names its protocol, and here none is: a
        # small body, which is written after its header, would wait until the client acknowledges that.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = int(listening.getsockname()[1])
        limiter = ConnectionLimiter(rules.limits, rules.deadlines, time.monotonic)
        server = _Server(_configuration(app, rules, limiter), lambda: ready(port))
        with asyncio.Runner(loop_factory=partial(LimitedLoop, limiter)) as runner:
            runner.run(_serve(server, listening, stop, before_end))


def _configuration(app: ASGIApp, rules: ServerRules, limiter: ConnectionLimiter) -> uvicorn.Config:
    """What uvicorn needs to know; its own way of TLS would read the certificate once."""
    configuration = uvicorn.Config(
        app,
        http=limited_protocol(limiter),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=5,
    )
    configuration.load()
    if rules.tls is not None:
        configuration.ssl = rules.tls.front()
    return configuration


class _Server(uvicorn.Server):
    """Calls ``ready`` after the start, and leaves signals to the command that runs it."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call ``ready``."""
        await super().startup(sockets)
        if self.started:
            keep_what_is_loaded()
            self._ready()


async def _serve(
    server: _Server, listening: socket.socket, stop: threading.Event, before_end: Callable[[], None]
) -> None:
    async def wait_for_stop() -> None:
        while not stop.is_set():
            await asyncio.sleep(0.1)
        before_end()
        server.should_exit = True

    waiting = asyncio.create_task(wait_for_stop())
    await server.serve([listening])
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
