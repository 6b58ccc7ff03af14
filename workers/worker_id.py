"""Worker ids and lock files of the parts of a node.

The claims of a worker carry its id, so that they can be released when it dies. By the lock file of a part others see
that it runs, on this machine or on another one with the same store.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO

from config.logging import keeping_warnings
from workers.clock import utc_now

_LOCK = ".lock"
WARNINGS = ".warnings"
WORKER, PART = "worker", "part"
"""Kinds of lock files."""

# A process that opens its own lock file again and closes it lets its lock go (fcntl(2)).
_held: dict[Path, IO[str]] = {}


@dataclass(frozen=True, slots=True)
class WorkerId:
    """Where a child works. Claims are made under ``name``; whatever begins with ``prefix`` was claimed here."""

    prefix: str
    life: str

    @property
    def name(self) -> str:
        """A name that no other process has, had or will have."""
        return f"{self.prefix}{self.life}"

    @property
    def index(self) -> int:
        """Which of its worker's children this is, from 0."""
        return int(self.prefix.rpartition("/")[2].removesuffix("#"))


@dataclass(frozen=True, slots=True)
class RunningPart:
    """A process that holds a place. ``claims``: how the names of a worker's claims begin. ``device``: as it was set.

    What is None or empty was not written: the process is just starting, or of an older version of this node.
    """

    place: str
    part: str
    host: str
    claims: str = ""
    version: str = ""
    process: int | None = None
    started_at: datetime | None = None
    device: str = ""


def take_slot(folder: Path, queue: str, kind: str = WORKER, device: str = "") -> tuple[int, IO[str]]:
    """Take the first free place of this host in ``queue``; it is free again when this process ends, however it ends.

    The lock is not inherited by children (fcntl(2), F_SETLK): a child that outlives a killed parent for a moment does
    not keep the place. The lock file names the place, so that the scheduler can release what a dead worker has claimed,
    also one whose container comes back under another host name. A second line says what holds it.
    """
    slot = 0
    while True:
        path = folder / f"{kind}-{host_name()}-{queue}-{slot}{_LOCK}"
        lock = _locked(path, "a+")
        if lock is None:
            slot += 1
        elif _is_at(lock, path):
            lock.truncate()
            lock.write(f"{_place(queue, slot)}\n{_holder(device)}\n")
            lock.flush()
            _held[path] = lock
            return slot, lock
        else:
            lock.close()  # it was removed between opening and locking: the next try makes a new one


def warnings_beside(lock: IO[str]) -> Path:
    """The file for the latest warnings of the process that holds ``lock``."""
    return Path(lock.name).with_suffix(WARNINGS)


def free_places(folder: Path) -> dict[Path, str]:
    """Lock files that no process holds, each with the prefix of the claims made there: their processes have died."""
    places = {}
    for path in _lock_files(folder):
        with suppress(FileNotFoundError):
            if (lock := _locked(path, "r+")) is not None:
                places[path] = lock.readline().rstrip("\n")
                lock.close()
    return places


def occupied_places(folder: Path) -> dict[str, str]:
    """The places that a process holds now, each with its part (``jobs``, ``deliveries``, ``listener``, …)."""
    return {one.place: one.part for one in running_parts(folder)}


def running_parts(folder: Path) -> tuple[RunningPart, ...]:
    """The processes that hold a place now, with what they say of themselves, in the order of their places."""
    found = []
    for path in _lock_files(folder):
        place = path.name.removesuffix(_LOCK).partition("-")[2]
        with suppress(FileNotFoundError):
            if (lock := _locked(path, "r")) is not None:  # not for writing: the file system may be read-only
                lock.close()
                continue
            found.append(_described(place, _text_of(path)))
    return tuple(found)


def _lock_files(folder: Path) -> list[Path]:
    return sorted(path for kind in (WORKER, PART) for path in folder.glob(f"{kind}-*-*-*{_LOCK}"))


def _text_of(path: Path) -> str:
    """What a lock file says; this process' own one is not opened again."""
    if path not in _held:
        return path.read_text(encoding="ascii")
    _held[path].seek(0)
    return _held[path].read()


def _holder(device: str) -> str:
    """What this process says of itself in the lock file that it holds."""
    started = utc_now().isoformat()
    return json.dumps({"version": version("pleura"), "process": os.getpid(), "started_at": started, "device": device})


def _described(place: str, text: str) -> RunningPart:
    host, part, _ = place.rsplit("-", 2)
    claims, _, content = text.partition("\n")
    try:
        status = json.loads(content)
        started = datetime.fromisoformat(status["started_at"])
        return RunningPart(place, part, host, claims, status["version"], status["process"], started, status["device"])
    except (ValueError, KeyError, TypeError):
        return RunningPart(place, part, host, claims)


@contextmanager
def at_place(folder: Path, part: str) -> Iterator[str]:
    """Hold a place of ``part`` while the process runs; gives its name, which no other running process has."""
    slot, lock = take_slot(folder, part, PART)
    try:
        with keeping_warnings(warnings_beside(lock)):
            yield f"{host_name()}-{part}-{slot}"
    finally:
        lock.close()
        remove_place(Path(lock.name))


def claims_at(place: str) -> str:
    """How the names of claims begin that are made at a place (``host-part-0``), as in its lock file."""
    host, part, slot = place.rsplit("-", 2)
    return f"{host}/{part}/{slot}/"


def remove_place(path: Path) -> None:
    """Remove the lock file of a dead process, unless one holds it again."""
    with suppress(FileNotFoundError):
        if (lock := _locked(path, "r+")) is not None:
            path.unlink()
            lock.close()


def _locked(path: Path, mode: str) -> IO[str] | None:
    """The open lock file, None where a process holds it; ``a+`` makes one that is missing, ``r+`` and ``r`` do not.

    ``r`` is enough to see whether a process holds it, and needs no right to write.
    """
    if path in _held:
        if not _held[path].closed:
            return None
        del _held[path]
    lock = path.open(mode, encoding="ascii")
    try:
        fcntl.lockf(lock, (fcntl.LOCK_SH if mode == "r" else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
