"""The server of page and DICOMweb: what it does before it says that it is ready, and how it answers."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette

from config.settings import Admin
from node.web.connection_limits import Deadlines, LimitedProtocol, limits_from
from node.web.server import ServerRules, run_server


@pytest.fixture
def nothing_kept() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("nothing_kept")
def test_what_a_server_has_loaded_is_not_examined_while_it_answers() -> None:
    stop = threading.Event()
    kept: list[int] = []

    def ready(port: int) -> None:
        assert port
        kept.append(gc.get_freeze_count())
        stop.set()

    run_server(Starlette(), ServerRules("127.0.0.1", 0, limits_from(Admin()), Deadlines(10)), ready, stop)
    (count,) = kept
    assert count > 10_000, "the modules alone are more"
    assert len(gc.get_objects()) < count, "what garbage collection still looks through"


def test_a_small_answer_does_not_wait_for_its_header_to_be_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a connection that is kept each took 40 ms more, the time after which Linux acknowledges by itself."""
    stop, connected = threading.Event(), threading.Event()
    without_delay: list[int] = []
    made = LimitedProtocol.connection_made

    def noted(protocol: LimitedProtocol, transport: asyncio.Transport) -> None:
        accepted = transport.get_extra_info("socket")
        without_delay.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(protocol, transport)
        connected.set()

    def ready(port: int) -> None:
        threading.Thread(target=connect, args=(port,)).start()

    def connect(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)):
            connected.wait(60)
        stop.set()

    monkeypatch.setattr(LimitedProtocol, "connection_made", noted)
    run_server(Starlette(), ServerRules("127.0.0.1", 0, limits_from(Admin()), Deadlines(10)), ready, stop)
    assert without_delay == [1]
