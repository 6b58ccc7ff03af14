"""Files that survive a power cut: write, fsync, rename, fsync of the folder.

A name in the store is only ever given to bytes that are already on the disk, so a reader never meets half a file, and
what :func:`write_durably` has returned for is still there after the power comes back.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from config.private_files import FILE_MODE

_UNFINISHED = ".part"


def write_durably(path: Path, chunks: Iterable[bytes]) -> int:
    """Write ``chunks`` to ``path`` so that the file is there whole or not at all; returns the number of bytes.

    An existing file is replaced in one step. Missing folders are made, and survive too.

    Raises:
        OSError: the disk is full or cannot be written. Nothing is left behind.
    """
    make_folder(path.parent)
    temporary = path.parent / f".{secrets.token_hex(8)}{_UNFINISHED}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            byte_count = sum(file.write(chunk) for chunk in chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return byte_count


def is_unfinished(path: Path) -> bool:
    """Whether a file is one that :func:`write_durably` has not written to its end: so it stays where it was killed."""
    return path.name.startswith(".") and path.suffix == _UNFINISHED


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its missing parents, and write each new name through to the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path | str) -> None:
    """Write the names in ``folder`` through to the disk: fsync of a file does not save its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
