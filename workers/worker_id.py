"""Where a worker process works: names for its claims, so that what it leaves behind when it dies can be found."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True, slots=True)
class WorkerId:
    """Where a child works. Claims are made under ``name``; whatever begins with ``prefix`` was claimed here."""

    prefix: str
    life: str

    @property
    def name(self) -> str:
        """A name that no other process has, had or will have."""
        return f"{self.prefix}{self.life}"


def take_slot(folder: Path, queue: str) -> tuple[int, IO[str]]:
    """Take the first free place of this host in ``queue``; it is free again when this process ends, however it ends.

    The lock is not inherited by children (fcntl(2), F_SETLK): a child that outlives a killed parent for a moment does
    not keep the place.
    """
    slot = 0
    while True:
        lock = (folder / f"worker-{host_name()}-{queue}-{slot}.lock").open("w", encoding="ascii")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            slot += 1
        else:
            return slot, lock


def worker_id_of(queue: str, slot: int, index: int) -> WorkerId:
    """The place of this process, with a name of its own."""
    return WorkerId(prefix=f"{host_name()}/{queue}/{slot}/{index}#", life=f"{os.getpid()}.{secrets.token_hex(4)}")


def host_name() -> str:
    """Host name as a part of names: nothing that a path or a SQL pattern would read as a sign."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
