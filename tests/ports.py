"""Ports for servers that tests start: those that run beside each other do not take them from each other."""

from __future__ import annotations

import random
import socket
from collections import deque
from pathlib import Path

_LOWEST = 15_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_dice = random.SystemRandom()
_claims: deque[socket.socket] = deque(maxlen=64)
"""Those of the last ports that this process was given; what is older is bound by now, or over."""


def first_ephemeral() -> int:
    """From here on the system gives ports to whoever connects, at any moment."""
    first = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.is_file() else 32_768
    return max(first, _LOWEST + 1000)


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago, and that nobody else is given before its server has it.

    No outgoing connection is, by its number; no other test is, in any process, by a claim that ends with this process.
    """
    while True:
        port = _dice.randrange(_LOWEST, first_ephemeral())
        if _is_free(port) and (claim := _claimed(port)) is not None:
            _claims.append(claim)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _claimed(port: int) -> socket.socket | None:
    """An abstract Unix socket named after the port (unix(7)); None where another process has it."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0pleura-test-port-{port}")
    except OSError:
        claim.close()
        return None
    return claim


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a program takes connections there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
