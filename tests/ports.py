"""Ports for servers that tests start: those that run beside each other do not take them from each other."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 15_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_dice = random.SystemRandom()


def first_ephemeral() -> int:
    """From here on the system gives ports to whoever connects, at any moment."""
    first = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.is_file() else 32_768
    return max(first, _LOWEST + 1000)


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago, and that no outgoing connection will be given."""
    while True:
        port = _dice.randrange(_LOWEST, first_ephemeral())
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a program takes connections there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
