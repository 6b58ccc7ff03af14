"""Nobody can shut the others out of the admin page: silent, dripping and unreported connections make room."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from node.web.connection_limits import (
    ConnectionLimiter,
    Deadlines,
    Limits,
    OpenConnection,
    connection_to_close,
    group_of,
    limited_protocol,
)
from tests.node.web.demo import Demo, settings_for
from tests.node.web.test_live import served

ROOMY = Limits(total=500, of_one_address=100, waiting=64, waiting_of_one_address=16)
TIGHT = Limits(total=6, of_one_address=3, waiting=4, waiting_of_one_address=2)


@contextmanager
def small_server(deadlines: Deadlines, limits: Limits = ROOMY) -> Iterator[int]:
    """A page that reads a body and answers with eight megabytes, behind the limiter; gives its port."""

    async def answer(request: Request) -> Response:
        return Response(str(len(await request.body())).encode().ljust(8 * 1024 * 1024))

    app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"])])
    limiter = limited_protocol(ConnectionLimiter(limits, deadlines, time.monotonic))
    server = uvicorn.Server(uvicorn.Config(app, http=limiter, log_config=None, access_log=False, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def opened(port: int, stack: ExitStack, address: str = "127.0.0.1") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(address, 0))
    return stack.enter_context(made)


def status_of(port: int, address: str = "127.0.0.1") -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=(address, 0))
    client.request("GET", "/healthz")
    answer = client.getresponse()
    answer.read()
    client.close()
    return answer.status


def is_closed(connection: socket.socket, within: float = 20) -> bool:
    connection.settimeout(within)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize("first", [b"", b"GET / HT"], ids=["silent", "half a header"])
def test_210_connections_that_ask_for_nothing_shut_nobody_out(tmp_path: Path, first: bytes) -> None:
    with served(settings_for(Demo(tmp_path / "store").folder, header_timeout_seconds=60)) as port, ExitStack() as stack:
        crowd = [opened(port, stack) for _ in range(210)]
        for connection in crowd[-16:]:
            connection.sendall(first)
        assert status_of(port) == 200
        assert status_of(port, "127.0.0.2") == 200
        assert is_closed(crowd[0])
        assert all(is_closed(connection) for connection in crowd[:180])


def test_a_crowd_from_many_addresses_shuts_nobody_out(tmp_path: Path) -> None:
    with served(settings_for(Demo(tmp_path / "store").folder, header_timeout_seconds=60)) as port, ExitStack() as stack:
        for number in range(210):
            opened(port, stack, f"127.1.0.{1 + number // 3}")
        assert status_of(port, "127.0.0.9") == 200


def test_a_header_has_a_deadline_that_no_byte_puts_off(tmp_path: Path) -> None:
    with served(settings_for(Demo(tmp_path / "store").folder, header_timeout_seconds=1)) as port, ExitStack() as stack:
        dripping = opened(port, stack)
        begun = time.monotonic()
        with suppress(OSError):
            for letter in b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 400:
                dripping.sendall(bytes([letter]))
                time.sleep(0.05)
        assert is_closed(dripping)
        assert time.monotonic() - begun < 15


def test_a_connection_that_is_kept_alive_gets_no_longer_for_its_next_header(tmp_path: Path) -> None:
    with served(settings_for(Demo(tmp_path / "store").folder, header_timeout_seconds=1)) as port, ExitStack() as stack:
        kept = opened(port, stack)
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200")
        kept.sendall(b"G")
        assert is_closed(kept)


def test_a_body_has_to_move_by_more_than_some_byte() -> None:
    with small_server(Deadlines(header=60, body=2)) as port, ExitStack() as stack:
        slow, quick = opened(port, stack), opened(port, stack)
        for connection in (slow, quick):
            connection.sendall(b"POST / HTTP/1.1\r\nHost: node\r\nContent-Length: 200000\r\n\r\n")
        slow.sendall(b"x")
        for _ in range(10):
            quick.sendall(b"x" * 20_000)
            time.sleep(0.3)
        with quick.makefile(
            "rb"
        ) as answer:  # header and body come apart, and MSG_WAITALL does not wait under a timeout
            assert b"200000" in answer.read(4096)
        assert is_closed(slow)


def test_a_body_that_nobody_wants_does_not_cost_the_client_its_response(tmp_path: Path) -> None:
    """As a proxy sends it: `Connection: close`, and the body goes on after the response."""
    with served(settings_for(tmp_path)) as port, ExitStack() as stack:
        client = opened(port, stack)
        client.sendall(b"POST /login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 40000000\r\n\r\n")
        time.sleep(0.5)
        for _ in range(10):
            client.sendall(b"x" * 100_000)
            time.sleep(0.02)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 413
        assert b"is larger than" in answer.read()
        assert client.recv(1) == b"", "its response has ended"
        assert any(not _sent(client) for _ in range(300)), "it is not read for ever"


def _sent(client: socket.socket) -> bool:
    time.sleep(0.1)
    try:
        client.sendall(b"x")
    except OSError:
        return False
    return True


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    with small_server(Deadlines(header=60, answer=0.5)) as port, ExitStack() as stack:
        deaf = opened(port, stack)
        deaf.sendall(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
        time.sleep(3)
        received = 0
        with suppress(ConnectionResetError):
            while part := deaf.recv(1 << 20):
                received += len(part)
        assert received < 8 * 1024 * 1024


def on_hold(*groups: str, waiting: bool = True) -> list[OpenConnection]:
    return [OpenConnection(group, limited=True, waiting=waiting) for group in groups]


def test_the_one_that_has_waited_longest_at_the_fullest_address_makes_room() -> None:
    newcomer = OpenConnection("z", limited=True)
    assert connection_to_close(on_hold("a", "b"), newcomer, TIGHT) is None
    crowd = on_hold("a", "b", "b", "c")
    assert connection_to_close(crowd, newcomer, TIGHT) is crowd[1]
    assert connection_to_close(crowd, OpenConnection("b", limited=True), TIGHT) is crowd[1]
    assert connection_to_close(crowd[:3], OpenConnection("b", limited=False), TIGHT) is None


def test_a_connection_that_is_being_answered_never_makes_room() -> None:
    newcomer = OpenConnection("a", limited=True)
    own = on_hold("a", "a", "a", waiting=False)
    assert connection_to_close(own, newcomer, TIGHT) is newcomer
    others = on_hold("a", "b", "c", "d", "e", "f", waiting=False)
    assert connection_to_close(others, OpenConnection("z", limited=False), TIGHT) is not None
    assert (
        connection_to_close([*others[:5], *(one := on_hold("f"))], OpenConnection("z", limited=False), TIGHT) is one[0]
    )


def test_one_ipv6_customer_is_one_address() -> None:
    assert group_of("2001:db8:1:2::5") == group_of("2001:db8:1:2:ffff::1") != group_of("2001:db8:1:3::5")
    assert group_of("::ffff:10.0.0.1") == "10.0.0.1"


def test_the_log_tells_of_a_crowd_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    limiter = ConnectionLimiter(TIGHT, Deadlines(header=10), lambda: now[0])
    with caplog.at_level(logging.WARNING, logger="pleura.admin"):
        for _ in range(50):
            limiter.enter("10.0.0.1", lambda: None)
        assert len(caplog.records) == 1
        now[0] += 61
        limiter.enter("10.0.0.1", lambda: None)
    assert len(caplog.records) == 2
    assert "closed 48 connections, 48 of them from 10.0.0.1" in caplog.text
