"""Files of the store, for whichever part of the node: writing and removing them, and whether the store is there.

A file system that is not mounted leaves an empty folder, or none, in its place. What is written into that is hidden
when it comes back, and what is missing there is not gone. So the folder of what was received, which is made with a
store and never removed, tells a store from its place.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from db.errors import RecordNotFoundError
from workers.durable_files import make_folder, sync_folder, write_durably

log = logging.getLogger(__name__)

INSTANCES = "instances"
"""Folder of what was received: it is there as long as the store is."""

SET_ASIDE = "set-aside"
"""Folder of received files that could not be recorded."""

FAILED = ".failed"
"""End of the name of a spool file that was answered with a failure; the digest is before it."""

AWAY = "the store is away: is its file system mounted?"
"""Why a job or a file waits, in words."""

_REMOVING = "removing"
_PASSING = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN),
    }
)


class StoreAwayError(OSError):
    """The store is not in its place."""

    def __init__(self) -> None:
        super().__init__(errno.ESTALE, AWAY)


def is_away(folder: Path) -> bool:
    """Whether the store is not in its place."""
    try:
        return not (folder / INSTANCES).is_dir()
    except OSError:
        return True


def demand_store(folder: Path) -> None:
    """Raises :class:`StoreAwayError` where the store is not in its place."""
    if is_away(folder):
        raise StoreAwayError


def why_it_waits(folder: Path, error: BaseException) -> str:
    """Why nothing can be read or written in the store until a person, or its server, has done something; empty for an
    error of one file alone."""
    if is_away(folder):
        return AWAY
    if isinstance(error, OSError) and error.errno in _PASSING:
        return f"the store cannot be used: {error.strerror}"
    return ""


def write_file(folder: Path, relative: str, content: bytes) -> None:
    """Write a file of the store durably; see :func:`workers.durable_files.write_durably`.

    Raises:
        StoreAwayError: the store is not in its place, in which nothing is written.
        OSError: it cannot be written.
    """
    demand_store(folder)
    write_durably(folder / relative, [content])


def remove_file(folder: Path, relative: str) -> bool:
    """Remove a file that a row of the database names; False where it is not there, or not in the store.

    Raises:
        OSError: it cannot be removed.
        StoreAwayError: the store is not in its place, so it is not known to be gone.
    """
    path = _inside(folder, relative)
    if path is None:
        return False
    try:
        path.unlink()
    except FileNotFoundError:
        demand_store(folder)
        return False
    return True


def remove_unless_recorded(folder: Path, relative: str, is_recorded: Callable[[], bool]) -> bool:
    """Remove a file whose rows are gone, unless the same bytes have come again; whether it is gone.

    A listener that finds the file under its name keeps it, and looks after its commit whether it is still there. So the
    file is moved aside first: a row that is seen then gets it back, and one that comes later brings its own. Writes the
    names through to the disk.

    Raises:
        OSError: it cannot be removed.
        StoreAwayError: the store is not in its place, so it is not known to be gone.
    """
    path = _inside(folder, relative)
    if path is None:
        return False
    demand_store(folder)
    make_folder(folder / _REMOVING)
    # The same name whoever removes it: where a process was killed in between, the next one goes on here.
    aside = folder / _REMOVING / path.name
    if not is_recorded():
        for note in folder.glob(f"spool*/*.{path.stem}{FAILED}"):
            note.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            path.rename(aside)
    if back := is_recorded():
        with suppress(FileNotFoundError, FileExistsError):
            path.hardlink_to(aside)
    aside.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        sync_folder(path.parent)
    demand_store(folder)  # its file system may have gone in between
    return not back


@contextmanager
def kept_if_recorded(folder: Path, paths: Iterable[str]) -> Iterator[None]:
    """Files that were written for rows which this block writes: where the study is erased by then, they go, too."""
    try:
        yield
    except RecordNotFoundError:
        for path in paths:
            remove_file(folder, path)
        raise


def _inside(folder: Path, relative: str) -> Path | None:
    path = folder / relative
    if path.resolve().is_relative_to(folder.resolve()):
        return path
    log.error("a path of the database leads out of the store and is left alone")
    return None
