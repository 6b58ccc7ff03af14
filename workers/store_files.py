"""Removing files of the store, by whichever part of the node: for their age, or because a study is erased."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from db.errors import RecordNotFoundError
from workers.durable_files import make_folder, sync_folder

log = logging.getLogger(__name__)

SET_ASIDE = "set-aside"
"""Folder of received files that could not be recorded."""

FAILED = ".failed"
"""End of the name of a spool file that was answered with a failure; the digest is before it."""

_REMOVING = "removing"


def remove_file(folder: Path, relative: str) -> bool:
    """Remove a file that a row of the database names; False where it is not there, or not in the store.

    Raises:
        OSError: it cannot be removed.
    """
    path = _inside(folder, relative)
    if path is None:
        return False
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def remove_unless_recorded(folder: Path, relative: str, is_recorded: Callable[[], bool]) -> bool:
    """Remove a file whose rows are gone, unless the same bytes have come again; whether it is gone.

    A listener that finds the file under its name keeps it, and looks after its commit whether it is still there. So the
    file is moved aside first: a row that is seen then gets it back, and one that comes later brings its own. Writes the
    names through to the disk.

    Raises:
        OSError: it cannot be removed.
    """
    path = _inside(folder, relative)
    if path is None:
        return False
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
