from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
import tomli_w

from config.settings import Settings, load
from node.dicom.storage_scu import Peer, SendError, echo
from node.opening import ServeError
from node.supervisor import Node, lock_store, pleura_command
from tests.ports import free_port


def _wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def _answers(settings: Settings) -> bool:
    listener = settings.listener
    try:
        echo(Peer(listener.host, listener.port, listener.ae_title, "TEST", timeout_seconds=5))
    except SendError:
        return False
    return True


def _get(settings: Settings, path: str) -> tuple[int, str]:
    """Status and text of the admin page's answer; 0 while it does not answer."""
    connection = HTTPConnection(settings.admin.host, settings.admin.port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "pleura.toml"
    values = {
        "listener": {"port": free_port()},
        "admin": {"port": free_port()},
        "store": {"folder": str(tmp_path / "var"), "minimum_free_bytes": 0},
    }
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


@pytest.fixture
def node(config: Path) -> Iterator[Node]:
    node = Node(load(config), config, config.with_name("node.log"))
    stop = threading.Event()
    tending = threading.Thread(target=node.supervise, args=(stop,))
    node.start()
    tending.start()
    yield node
    stop.set()
    tending.join()
    node.stop()


def test_a_killed_listener_is_started_again(node: Node, config: Path) -> None:
    settings = load(config)
    assert node.wait_for_listener()
    _wait(lambda: _answers(settings))
    _wait(lambda: _get(settings, "/readyz")[0] == 200)
    assert set(re.findall(r'pleura_part_up\{part="(\w+)"\} 1', _get(settings, "/metrics")[1])) == {
        *("listener", "jobs", "deliveries", "scheduler", "database", "broker")
    }
    first = node.processes()["listener"]
    os.kill(first, signal.SIGKILL)
    _wait(lambda: node.processes().get("listener", first) != first)
    _wait(lambda: _answers(settings))


def test_a_second_node_on_the_same_store_is_refused(tmp_path: Path) -> None:
    lock = lock_store(tmp_path)
    with pytest.raises(ServeError, match="another node"):
        lock_store(tmp_path)
    lock.close()
    lock_store(tmp_path).close()


def test_a_store_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServeError, match="cannot be written"):
        lock_store(tmp_path / "file" / "store")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_part_outlives_the_tree(config: Path, number: signal.Signals) -> None:
    """Even where nothing could be tidied up, the kernel takes the parts down with their parent."""
    settings = load(config)
    process = subprocess.Popen(
        pleura_command(config, "serve"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=config.parent
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    parts: list[int] = []
    try:
        _wait(lambda: _answers(settings))
        parts = [int(pid) for pid in children.read_text().split()]
        assert len(parts) >= 5
    finally:
        process.send_signal(number)
        process.wait(60)
    end = time.monotonic() + 60
    while (left := {pid: _command(pid) for pid in parts if _alive(pid)}) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == {}


def test_a_folder_named_config_in_the_working_directory_does_not_shadow_ours(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "__init__.py").write_text("raise SystemExit('the wrong config')")
    done = subprocess.run(
        pleura_command(None, "config"), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, "[listener]" in done.stdout) == (0, True), done.stderr
    assert pleura_command(None)[0] == sys.executable
