"""The page as it is really served: started, streaming news of a study that arrives, and stopped."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.settings import Settings
from db.user_tables import Role
from db.users import Accounts
from node.web.app import run_admin
from tests.node.web.conftest import CHEAP
from tests.node.web.demo import Case, Demo, settings_for


@contextmanager
def served(settings: Settings) -> Iterator[int]:
    """Serve the admin page in a thread; gives its port."""
    ready, stop = threading.Event(), threading.Event()
    ports: list[int] = []

    def note(port: int) -> None:
        ports.append(port)
        ready.set()

    thread = threading.Thread(target=run_admin, args=(settings, note, stop))
    thread.start()
    try:
        assert ready.wait(60)
        yield ports[0]
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return Demo(tmp_path / "store")


def test_a_study_that_arrives_is_news_and_the_server_stops_with_the_stream_open(demo: Demo) -> None:
    accounts = Accounts(demo.engine, CHEAP)
    _, secret = accounts.add_token("test", Role.VIEWER, datetime.now(UTC), actor="test")
    with served(settings_for(demo.folder)) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/events", headers={"Authorization": f"Bearer {secret}"})
        stream = connection.getresponse()
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert _event(stream)[0] == "hello"
        case = Case("Late^Arrival", "L-1", "F", "19800101", "Chest PA", 0, fate="waiting")
        # The first look at the table of events may come after this; another study is then the news.
        studies = []
        for number in range(50, 80):
            studies.append(demo.add(case, number, datetime.now(UTC)))
            stream.fp.raw._sock.settimeout(3)  # type: ignore[attr-defined]
            try:
                name, data = _event(stream)
            except TimeoutError:
                connection.close()
                connection.request("GET", "/events", headers={"Authorization": f"Bearer {secret}"})
                stream = connection.getresponse()
                continue
            if name == "change":
                break
        assert name == "change"
        assert set(json.loads(data)["studies"]) & set(studies)


def _event(stream: http.client.HTTPResponse) -> tuple[str, str]:
    """The next event that has a name."""
    name = data = ""
    while True:
        line = stream.readline().decode().rstrip("\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
        elif not line and name:
            return name, data


def test_probes_answer_without_log_in(demo: Demo) -> None:
    with served(settings_for(demo.folder)) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        # Not ready: there is no listener (tests/node/test_supervisor.py has a whole node).
        for path, status in (("/healthz", 200), ("/readyz", 503), ("/metrics", 200), ("/", 303), ("/events", 303)):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status, path
            assert "server" not in {name.lower() for name in answer.headers}
