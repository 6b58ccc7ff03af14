from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import Settings, Store
from node.embedded_broker import (
    BrokerError,
    answers,
    prepare_socket,
    server_binary,
    server_command,
    wait_until_ready,
)
from node.monitoring.broker_health import broker_facts


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "broker.sock"


@pytest.fixture
def server(socket_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    prepare_socket(socket_path, socket_path.parent)
    process = subprocess.Popen(server_command(server_binary(None), socket_path))
    yield process
    process.kill()
    process.wait()


def test_the_server_of_the_wheel_answers_on_its_socket(server: subprocess.Popen[bytes], socket_path: Path) -> None:
    wait_until_ready(server, socket_path)
    assert answers(socket_path)
    assert socket_path.stat().st_mode & 0o077 == 0, "nobody else may enqueue"


def test_the_running_server_says_its_version_and_age(server: subprocess.Popen[bytes], socket_path: Path) -> None:
    wait_until_ready(server, socket_path)
    settings = Settings(store=Store(folder=socket_path.parent))
    assert settings.broker_socket == socket_path
    facts = broker_facts(settings)
    assert facts is not None
    assert facts.version.startswith("Valkey ")
    assert facts.seconds is not None
    assert 0 <= facts.seconds < 60
    server.kill()
    server.wait()
    assert broker_facts(settings) is None


def test_a_killed_server_leaves_a_socket_that_is_replaced(server: subprocess.Popen[bytes], socket_path: Path) -> None:
    wait_until_ready(server, socket_path)
    server.kill()
    server.wait()
    assert socket_path.exists()
    assert not answers(socket_path)
    prepare_socket(socket_path, socket_path.parent)
    assert not socket_path.exists()


def test_nothing_is_written_to_disk(server: subprocess.Popen[bytes], socket_path: Path, tmp_path: Path) -> None:
    wait_until_ready(server, socket_path)
    server.terminate()
    assert server.wait(10) == 0
    assert list(tmp_path.iterdir()) in ([], [socket_path])


def test_a_server_that_ends_at_once_is_an_error(tmp_path: Path) -> None:
    process = subprocess.Popen(["false"])
    with pytest.raises(BrokerError, match="ended at once"):
        wait_until_ready(process, tmp_path / "broker.sock")


def test_a_configured_server_must_be_executable(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="not an executable"):
        server_binary(tmp_path / "redis-server")


@pytest.mark.peer("redis-server")
def test_debians_redis_can_be_embedded_instead(socket_path: Path) -> None:
    prepare_socket(socket_path, socket_path.parent)
    process = subprocess.Popen(server_command(server_binary(Path("/usr/bin/redis-server")), socket_path))
    try:
        wait_until_ready(process, socket_path)
        assert answers(socket_path)
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize(
    ("in_store", "mode", "allowed"), [(True, 0o775, True), (True, 0o777, False), (False, 0o775, False)]
)
def test_a_folder_of_another_user_is_taken_only_where_the_configuration_names_it(
    tmp_path: Path, in_store: bool, mode: int, allowed: bool
) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    folder.chmod(mode)
    os.chown(folder, 10001, 0)
    store = folder if in_store else tmp_path
    if allowed:
        prepare_socket(folder / "broker.sock", store)
    else:
        with pytest.raises(BrokerError, match="another user"):
            prepare_socket(folder / "broker.sock", store)
