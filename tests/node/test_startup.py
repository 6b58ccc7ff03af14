"""How ``pleura serve`` starts: what can never work is one sentence and an exit code, what will pass is waited for."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner

from config.settings import load
from node.cli.main import cli
from node.embedded_broker import server_binary
from node.opening import ServeError, open_database
from node.startup import Parts, check_configuration
from node.supervisor import Node, Part, pleura_command
from tests.integration.pleura import children, command_line
from tests.orthanc import wait_until
from tests.ports import free_port
from tests.workers.conftest import Broker


@pytest.fixture
def values(tmp_path: Path) -> dict[str, dict[str, Any]]:
    return {
        "listener": {"port": free_port()},
        "admin": {"port": free_port()},
        "store": {"folder": str(tmp_path / "var"), "minimum_free_bytes": 0},
    }


def configured(folder: Path, values: dict[str, dict[str, Any]]) -> Path:
    path = folder / "pleura.toml"
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


def ended(config: Path) -> tuple[int, list[str]]:
    """Exit code and sentences of a node that ends by itself."""
    done = subprocess.run(pleura_command(config, "serve"), capture_output=True, text=True, check=False, timeout=120)
    lines = done.stderr.splitlines()
    found = [line for line in lines if line.startswith("pleura: ")]
    assert "Ready" not in done.stdout
    assert "Traceback" not in done.stderr
    return done.returncode, found


def test_a_port_that_is_taken_ends_the_start(tmp_path: Path, values: dict[str, dict[str, Any]]) -> None:
    with socket.create_server(("127.0.0.1", values["listener"]["port"])):
        code, output = ended(configured(tmp_path, values))
    assert code == os.EX_UNAVAILABLE, "a service manager tries again: the port may be free then"
    (sentence,) = output
    assert f"127.0.0.1:{values['listener']['port']} is in use by another program" in sentence


@pytest.mark.parametrize("part", ["admin", "hl7"])
def test_each_port_is_looked_at(tmp_path: Path, values: dict[str, dict[str, Any]], part: str) -> None:
    values.setdefault("hl7", {"port": free_port(), "enabled": True})
    hurried = threading.Event()
    hurried.set()
    with (
        socket.create_server(("127.0.0.1", values[part]["port"])),
        pytest.raises(ServeError, match=rf"is in use by another program; stop it, or set {part}\.port"),
    ):
        check_configuration(load(configured(tmp_path, values)), hurried)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("models", "active", ["no-such-model"], "no-such-model"),
        ("listener", "host", "192.0.2.1", "192.0.2.1 is no address of this machine"),
        ("database", "url", "mysql://u@localhost/pleura", "not supported"),
        (
            "admin",
            "tls_certificate",
            "/nowhere.pem",
            "/nowhere.pem: No such file or directory; fix admin.tls_certificate",
        ),
    ],
)
def test_what_no_waiting_mends_is_one_sentence(
    tmp_path: Path, values: dict[str, dict[str, Any]], part: str, key: str, value: object, message: str
) -> None:
    values.setdefault(part, {})[key] = value
    settings, stop = load(configured(tmp_path, values)), threading.Event()

    def start() -> None:
        check_configuration(settings, stop)
        open_database(settings, stop, pytest.fail)

    with pytest.raises(ServeError, match=re.escape(message)) as raised:
        start()
    assert "\n" not in str(raised.value)


def test_a_model_that_is_not_there_leaves_no_node_without_workers(
    tmp_path: Path, values: dict[str, dict[str, Any]]
) -> None:
    values["models"] = {"active": ["no-such-model"]}
    code, output = ended(configured(tmp_path, values))
    assert (code, len(output)) == (os.EX_CONFIG, 1)
    assert "no-such-model" in output[0]


def test_a_broken_sqlite_file_is_one_sentence(tmp_path: Path, values: dict[str, dict[str, Any]]) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "pleura.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(ServeError, match="no SQLite database"):
        open_database(load(configured(tmp_path, values)), threading.Event(), pytest.fail)


@contextmanager
def serving(config: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A node, and the file that has what it says."""
    output = config.with_name("output.txt")
    with output.open("wb") as shown, config.with_name("node.log").open("wb") as log:
        node = subprocess.Popen(pleura_command(config, "serve"), stdout=shown, stderr=log)
    try:
        yield node, output
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(60)


def test_a_database_that_is_down_is_waited_for(tmp_path: Path, values: dict[str, dict[str, Any]]) -> None:
    port = free_port()
    values["database"] = {"url": f"postgresql://pleura@127.0.0.1:{port}/pleura"}
    with serving(configured(tmp_path, values)) as (node, printed):
        wait_until(lambda: "Waiting for the database" in printed.read_text(), "the node to say what it waits for")
        node.send_signal(signal.SIGTERM)
        assert node.wait(60) == 0
    assert f"no PostgreSQL answers at 127.0.0.1:{port}" in printed.read_text()
    assert "Ready" not in printed.read_text()
    assert "Traceback" not in (tmp_path / "node.log").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("listen",),
        ("worker", "--queue", "jobs"),
        *(pytest.param((name,), marks=pytest.mark.campaign) for name in ("scheduler", "admin", "hl7")),
    ],
    ids=" ".join,
)
def test_a_part_alone_waits_for_its_database(
    tmp_path: Path, values: dict[str, dict[str, Any]], arguments: tuple[str, ...]
) -> None:
    values["database"] = {"url": f"postgresql://pleura@127.0.0.1:{free_port()}/pleura"}
    shown = tmp_path / "output.txt"
    with shown.open("wb") as output:
        part = subprocess.Popen(pleura_command(configured(tmp_path, values), *arguments), stderr=output)
    try:
        wait_until(lambda: "Waiting for the database" in shown.read_text(), "the part to say what it waits for")
    finally:
        part.send_signal(signal.SIGTERM)
    assert part.wait(60) == 0
    assert "Traceback" not in shown.read_text()


def test_a_node_is_ready_when_its_parts_have_answered(
    tmp_path: Path, socket_folder: Path, values: dict[str, dict[str, Any]]
) -> None:
    """The broker comes last: until then images are received, and nobody says that the node is ready."""
    broker = Broker(server_binary(None), socket_folder / "broker.sock")
    values["broker"] = {"url": broker.url}
    config = configured(tmp_path, values)
    with serving(config) as (node, printed):
        parts = Parts(load(config))
        wait_until(lambda: list(parts.missing()) == ["the broker"], "the listener and the page", seconds=120)
        assert "Ready" not in printed.read_text()
        broker.start()
        try:
            wait_until(lambda: "Ready: PLEURA" in printed.read_text(), "the node to be ready", seconds=120)
            assert list(parts.missing()) == []
            assert CliRunner().invoke(cli, ["--config", str(config), "probe", "serve"]).exit_code == 0
            running = children(node.pid)
            assert len(running) >= 4
        finally:
            parts.close()
    broker.stop()
    assert not any(map(command_line, running)), "no part outlives SIGTERM"


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pleura-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("code", "ends"), [(os.EX_CONFIG, True), (os.EX_UNAVAILABLE, False), (1, False)])
def test_a_part_that_is_misconfigured_at_each_start_ends_that_of_the_node(
    tmp_path: Path, values: dict[str, dict[str, Any]], code: int, ends: bool
) -> None:
    tries = tmp_path / "tries"
    program = f"open({str(tries)!r}, 'a').write('.'); raise SystemExit({code})"
    node, part = _one_part(tmp_path, values, program)
    if ends:
        with pytest.raises(ServeError, match="the worker cannot run") as raised:
            node.supervise(threading.Event())
        assert (raised.value.exit_code, tries.read_text()) == (os.EX_CONFIG, "...")
    else:
        _supervise_until(node, lambda: part.pause > 1, "the end of the third start")
        assert tries.read_text().startswith("...")
    node.stop()
    assert part.pause > 1


def test_a_part_that_was_wrong_about_its_configuration_once_leaves_the_node_alone(
    tmp_path: Path, values: dict[str, dict[str, Any]]
) -> None:
    """As in the outage of a database of which it heard something that it did not know."""
    once, again = tmp_path / "once", tmp_path / "again"
    program = f"import os, time; once, again = {str(once)!r}, {str(again)!r}\n"
    program += "if os.path.exists(once): os.mkdir(again); time.sleep(300)\n"
    program += "os.mkdir(once); raise SystemExit(78)"
    node, part = _one_part(tmp_path, values, program)
    _supervise_until(node, again.exists, "the second start")
    assert part.process is not None
    assert part.process.poll() is None
    node.stop()


def test_a_part_that_the_machine_cannot_start_now_is_started_later(
    tmp_path: Path, values: dict[str, dict[str, Any]]
) -> None:
    program = tmp_path / "program"
    node, part = _one_part(tmp_path, values, "raise SystemExit(1)")
    part.command = [str(program)]
    _supervise_until(node, lambda: part.pause > 1, "a start that fails")
    assert part.started_at == 0
    program.symlink_to("/bin/cat")
    _supervise_until(node, lambda: part.started_at > 0, "a start")
    node.stop()


def _supervise_until(node: Node, condition: Callable[[], object], what: str) -> None:
    stop = threading.Event()

    def watch() -> None:
        try:
            wait_until(condition, what, pause=0.05)
        finally:
            stop.set()

    watching = threading.Thread(target=watch)
    watching.start()
    node.supervise(stop)  # in this thread: the kernel ends a part with the thread that has started it
    watching.join()
    assert condition(), what


def _one_part(tmp_path: Path, values: dict[str, dict[str, Any]], program: str) -> tuple[Node, Part]:
    """A node whose only part is started."""
    node = Node(load(configured(tmp_path, values)))
    part = Part("worker", [sys.executable, "-c", program])
    node._parts = [part]
    part.start(0.0)
    assert part.process is not None
    return node, part
