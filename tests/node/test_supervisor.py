"""``pleura serve``: its parts are started, watched, started again, and gone when it is gone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from config.settings import Settings, load
from node.opening import ServeError
from node.startup import listener_answers
from node.supervisor import lock_store, pleura_command
from tests.integration.pleura import children, command_line
from tests.node.monitoring.test_doctor import Bench, bad, bench
from tests.orthanc import wait_until

__all__ = ["bench"]


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


def test_a_node_is_healthy_starts_a_killed_part_again_and_leaves_none_behind(bench: Bench) -> None:
    """All of it of one node, since starting one takes twenty seconds of CPU. The doctor is none of its peers.

    Where nothing could be tidied up, the kernel takes the parts down with their parent.
    """
    config = bench.config()
    settings = load(config)
    with config.with_name("node.log").open("wb") as log:
        process = subprocess.Popen(pleura_command(config, "serve"), stderr=log, stdout=log, cwd=config.parent)
    try:
        wait_until(lambda: listener_answers(settings), "the listener", seconds=120)
        wait_until(lambda: _get(settings, "/readyz")[0] == 200, "the node to be ready", seconds=120)
        _check_that_it_is_healthy(bench)
        parts = re.findall(r'pleura_part_up\{part="(\w+)"\} 1', _get(settings, "/metrics")[1])
        assert set(parts) == {"listener", "jobs", "deliveries", "scheduler", "hl7", "database", "broker", "store"}
        first = _listener_of(process.pid)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: _listener_of(process.pid) not in (first, None), "another listener", pause=0.05)
        wait_until(lambda: listener_answers(settings), "the other listener")
        left = children(process.pid)
        assert len(left) >= 6
    finally:
        process.kill()
        process.wait(60)
    wait_until(lambda: not any(map(command_line, left)), "the end of every part", pause=0.05)


def _check_that_it_is_healthy(bench: Bench) -> None:
    found = wait_until(lambda: None if bad(checks := bench.checks()) else checks, "a node without a fault")
    texts = {check.part: check.found for check in found}
    assert "PLEURA answers" in texts["listener"]
    assert "answers on http" in texts["admin page"]
    assert "accepts connections" in texts["HL7 listener"]
    assert "running" in texts["broker"]
    assert "callers" not in texts, "the doctor itself is no rejected caller"


def _listener_of(node: int) -> int | None:
    return next((child for child in children(node) if "listen" in command_line(child)), None)


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


def test_a_folder_named_config_in_the_working_directory_does_not_shadow_ours(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "__init__.py").write_text("raise SystemExit('the wrong config')")
    done = subprocess.run(
        pleura_command(None, "config"), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, "[listener]" in done.stdout) == (0, True), done.stderr
    assert pleura_command(None)[0] == sys.executable
