"""A bad day: one fault after another hits a real node, and the admin page alone says what is wrong and what to do.

Screenshots of each state are kept in ``$PLEURA_SHOTS``; somebody has to look at them, for a sentence that is there may
still be where nobody sees it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tomli_w
from sqlalchemy import create_engine

from db.user_tables import Role
from db.users import Accounts
from tests import postgres
from tests.browser.test_browser import node_modules
from tests.integration.pleura import Pleura, handwritten_network
from tests.integration.studies import frontal
from tests.migrated import migrate
from tests.node.web.conftest import CHEAP
from tests.node.web.demo import PASSWORD
from tests.orthanc import wait_until
from tests.ports import free_port

__all__ = ["node_modules"]

HERE = Path(__file__).parent
SPARE = 2 * 1024**3
"""Free space above the node's minimum at the start: others write to this disk as well."""
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.timeout(600),
    *(pytest.mark.peer(name) for name in ("chromium", "npm", "postgres", "storescp", "storescu")),
]


@dataclass
class Person:
    """Somebody in front of the admin page: opens it and reads."""

    process: subprocess.Popen[str]

    def read(self, name: str, address: str = "/system") -> str:
        """What the page says, in lower case (style sheets write headings in capitals); its picture is ``name``.png."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{name} {address}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the browser has ended"
        return " ".join(str(json.loads(line)).lower().split())

    def sees(self, name: str, *sentences: str, address: str = "/system", seconds: float = 60) -> str:
        """Wait until the page has all ``sentences``."""
        text = ""

        def there() -> bool:
            nonlocal text
            text = self.read(name, address)
            return all(sentence.lower() in text for sentence in sentences)

        try:
            wait_until(there, name, seconds, pause=1)
        except AssertionError:
            missing = [sentence for sentence in sentences if sentence.lower() not in text]
            raise AssertionError(f"{name}: {missing} not in: {text}") from None
        return text


@dataclass
class Bench:
    """A node with PostgreSQL, its destination, its sender, and its administrator."""

    folder: Path
    node: Pleura
    destination_port: int
    cluster: Path
    database: subprocess.Popen[bytes]
    destination: subprocess.Popen[bytes] | None = None
    _sent: list[int] = field(default_factory=list)

    def start_destination(self) -> None:
        (self.folder / "received").mkdir(exist_ok=True)
        command = ["storescp", "-aet", "PACS", "-od", str(self.folder / "received"), str(self.destination_port)]
        self.destination = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop_destination(self) -> None:
        assert self.destination is not None
        self.destination.terminate()
        self.destination.wait(20)

    def send(self, calling: str = "SENDER", called: str = "PLEURA") -> bool:
        """Send a chest radiograph of another patient by DCMTK; whether it was accepted."""
        self._sent.append(len(self._sent) + 1)
        image = self.folder / "image.dcm"
        frontal(self._sent[-1]).save_as(image, enforce_file_format=True)
        peer = ["127.0.0.1", str(self.node.port)]
        command = ["storescu", "-aet", calling, "-aec", called, *peer, str(image)]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0

    def pleura(self, *arguments: str) -> None:
        """Run a command of the node."""
        command = [sys.executable, "-P", "-m", "node.cli.main", "--config", str(self.node.config), *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def stop_database(self) -> None:
        if self.database.poll() is None:
            self.database.send_signal(signal.SIGINT)
            self.database.wait(60)

    def start_database(self) -> None:
        self.database = postgres.start_again(self.cluster, "-c", "fsync=off")


def _configure(folder: Path, destination_port: int, url: str, minimum_free_bytes: int) -> Pleura:
    port, admin_port = free_port(), free_port()
    values = {
        "listener": {"port": port, "peers": [{"ae_title": "SENDER", "addresses": ["127.0.0.1"]}]},
        "store": {"folder": str(folder / "store"), "minimum_free_bytes": minimum_free_bytes},
        "database": {"url": url},
        "workers": {"backoff_seconds": 1, "maximum_backoff_seconds": 5, "attempts": 20, "threads": 1},
        "triage": {"completion_seconds": 2},
        "admin": {"port": admin_port},
        "destinations": [
            {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": destination_port, "timeout_seconds": 5}
        ],
    }
    folder.mkdir(exist_ok=True)
    config = folder / "pleura.toml"
    config.write_text(tomli_w.dumps(values) + handwritten_network(folder / "models"), encoding="utf-8")
    return Pleura(folder, port, config)


@contextmanager
def _person(node: Pleura, shots: Path) -> Iterator[Person]:
    admin_port = next(line for line in node.config.read_text().split("[admin]")[1].splitlines() if "port" in line)
    environment = os.environ | {
        "BASE": f"http://127.0.0.1:{admin_port.split('=')[1].strip()}",
        "SHOTS": str(shots),
        "PASSWORD": PASSWORD,
        "CHROMIUM": shutil.which("chromium") or "",
    }
    process = subprocess.Popen(
        ["node", "look.js"], cwd=HERE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Person(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


@pytest.fixture
def shots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where screenshots go. The node would take the variable for a setting."""
    folder = Path(os.environ.get("PLEURA_SHOTS", tmp_path / "shots"))
    monkeypatch.delenv("PLEURA_SHOTS", raising=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def bench(tmp_path: Path, shots: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        cluster = Path(tempfile.mkdtemp(prefix="pleura-pg-"))  # not in tmp_path: PostgreSQL runs as another user
        stack.callback(shutil.rmtree, cluster)
        database = postgres.start(cluster, "-c", "fsync=off")
        url = postgres.PostgresServer(cluster).url("postgres")
        port = free_port()
        node = _configure(tmp_path, port, url, shutil.disk_usage(tmp_path).free - SPARE)
        made = Bench(tmp_path, node, port, cluster, database)
        stack.callback(made.stop_database)
        engine = create_engine(url)
        migrate(engine)
        Accounts(engine, CHEAP).add_user("anna", PASSWORD, Role.ADMIN, datetime.now(UTC), actor="test")
        engine.dispose()
        made.start_destination()
        stack.callback(made.stop_destination)
        node.start()
        stack.callback(node.stop)
        wait_until(lambda: b"Ready:" in node.log_file.read_bytes(), "every part", 120, alive=node.check_alive)
        yield made


def test_a_bad_day(bench: Bench, shots: Path, node_modules: Path) -> None:
    with _person(bench.node, shots) as anna:
        _a_usual_morning(bench, anna)
        _the_destination_is_down(bench, anna)
        _strangers_call(bench, anna)
        _the_disk_fills(bench, anna)
        _a_model_is_removed(bench, anna)
        _the_database_is_restarted(bench, anna)


def _a_usual_morning(bench: Bench, anna: Person) -> None:
    assert bench.send()
    anna.sees("1-usual", "No job and no delivery has failed.", "Accepts")


def _the_destination_is_down(bench: Bench, anna: Person) -> None:
    bench.stop_destination()
    assert bench.send()
    anna.sees(
        "2-destination-down",
        "Not called until",
        f"PACS at 127.0.0.1:{bench.destination_port}",
        "deliveries to pacs",
        "cannot be reached",
        "Check that the peer runs and that host and port are right.",
        "Retry all",
    )
    bench.start_destination()
    bench.pleura("retry", "--all")
    anna.sees("2-destination-back", "No job and no delivery has failed.", "Accepts")


def _strangers_call(bench: Bench, anna: Person) -> None:
    assert not bench.send(calling="CT9")
    assert not bench.send(called="PLEURA1")
    anna.sees(
        "3-strangers",
        "Rejected associations",
        "Calling AE title not recognized",
        '[[listener.peers]] ae_title = "CT9" addresses = ["127.0.0.1"]',
        "Let SENDER call PLEURA, not PLEURA1.",
    )


def _the_disk_fills(bench: Bench, anna: Person) -> None:
    filler = bench.folder / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 * SPARE)
    try:
        assert not bench.send()
        anna.sees(
            "4-disk-full",
            "Store:",
            "GB free in",
            "images are refused with 0xA700",
            "Free some space, or lower store.keep_days",
        )
    finally:
        filler.unlink()
    assert bench.send()


def _a_model_is_removed(bench: Bench, anna: Person) -> None:
    network = bench.folder / "models" / "bright.onnx"
    aside = network.rename(bench.folder / "bright.onnx")
    anna.sees("5-model-removed", "Models:", "bright.onnx", "no worker can start, and images wait", "Put the file back")
    bench.node.kill_part("worker")
    assert bench.send()
    anna.sees("5-worker-cannot-start", "Analysis worker Stopped", "bright.onnx")
    aside.rename(network)
    anna.sees("5-model-back", "Analysis worker Running", "the queue is empty", seconds=120)


def _the_database_is_restarted(bench: Bench, anna: Person) -> None:
    bench.stop_database()
    anna.sees("6-database-down", "The database cannot be reached", "images are refused with 0xA700", "pleura doctor")
    assert not bench.send()
    bench.start_database()
    assert bench.send()
    anna.sees("6-database-back", "No job and no delivery has failed.", "the queue is empty", seconds=120)
