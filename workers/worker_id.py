"""Where a process works: names for a worker's claims, so that what it leaves behind when it dies can be found, and for
every part of the node a lock file by which others see that it runs, on this machine or another with the same store.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_LOCK = ".lock"
WORKER, PART = "worker", "part"
"""Kinds of lock files. The scheduler looks after those of workers, and holds one of the others itself."""


@dataclass(frozen=True, slots=True)
class WorkerId:
    """Where a child works. Claims are made under ``name``; whatever begins with ``prefix`` was claimed here."""

    prefix: str
    life: str

    @property
    def name(self) -> str:
        """A name that no other process has, had or will have."""
        return f"{self.prefix}{self.life}"


def take_slot(folder: Path, queue: str, kind: str = WORKER) -> tuple[int, IO[str]]:
    """Take the first free place of this host in ``queue``; it is free again when this process ends, however it ends.

    The lock is not inherited by children (fcntl(2), F_SETLK): a child that outlives a killed parent for a moment does
    not keep the place. The lock file names the place, so that the scheduler can release what a dead worker has claimed,
    also one whose container comes back under another host name.
    """
    slot = 0
    while True:
        path = folder / f"{kind}-{host_name()}-{queue}-{slot}{_LOCK}"
        lock = _locked(path)
        if lock is None:
            slot += 1
        elif _is_at(lock, path):
            lock.truncate()
            lock.write(_place(queue, slot))
            lock.flush()
            return slot, lock
        else:
            lock.close()  # it was removed between opening and locking: the next try makes a new one


def free_places(folder: Path) -> dict[Path, str]:
    """Lock files that no worker holds, each with the prefix of the claims made there: their workers have died."""
    places = {}
    for path in folder.glob(f"{WORKER}-*{_LOCK}"):
        with suppress(FileNotFoundError):
            if (lock := _locked(path)) is not None:
                places[path] = lock.read()
                lock.close()
    return places


def occupied_places(folder: Path) -> dict[str, str]:
    """The places that a process holds now, each with its part (``jobs``, ``deliveries``, ``listener``, …).

    Not for a process that holds one itself: to close a file lets go its locks (fcntl(2)).
    """
    places = {}
    for path in folder.glob(f"*-*-*-*{_LOCK}"):
        kind, _, place = path.name.removesuffix(_LOCK).partition("-")
        with suppress(FileNotFoundError):
            if kind not in (WORKER, PART):
                continue
            if (lock := _locked(path)) is None:
                places[place] = place.split("-")[-2]
            else:
                lock.close()
    return places


@contextmanager
def at_place(folder: Path, part: str) -> Iterator[str]:
    """Hold a place of ``part`` while the process runs; gives its name, which no other running process has."""
    slot, lock = take_slot(folder, part, PART)
    try:
        yield f"{host_name()}-{part}-{slot}"
    finally:
        lock.close()
        remove_place(Path(lock.name))


def remove_place(path: Path) -> None:
    """Remove the lock file of a dead worker, unless a worker holds it again."""
    with suppress(FileNotFoundError):
        if (lock := _locked(path)) is not None:
            path.unlink()
            lock.close()


def _locked(path: Path) -> IO[str] | None:
    """The open lock file, None where another process holds it."""
    lock = path.open("a+", encoding="ascii")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    lock.seek(0)
    return lock


def _is_at(lock: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _place(queue: str, slot: int) -> str:
    return f"{host_name()}/{queue}/{slot}/"


def worker_id_of(queue: str, slot: int, index: int) -> WorkerId:
    """The place of this process, with a name of its own."""
    return WorkerId(prefix=f"{_place(queue, slot)}{index}#", life=f"{os.getpid()}.{secrets.token_hex(4)}")


def host_name() -> str:
    """Host name as a part of names: nothing that a path or a SQL pattern would read as a sign."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
