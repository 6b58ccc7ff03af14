"""The instance store: one file for each received data set, named by its digest and never by peer input.

A data set arrives in ``spool/`` under a random name; each kind of process that receives has such a folder of its own.
:meth:`InstanceStore.keep` writes it through to the disk and links it to ``instances/<2 hex>/<digest>.dcm``. The name in
``spool/`` is removed when the database row is committed. So after a crash ``spool/`` holds two kinds of files. A file
with one name is incomplete and is removed. A file with two names is complete and durable, and
:meth:`InstanceStore.unfinished` yields it to be recorded. A file that cannot be recorded is moved to ``set-aside/``; it
was never acknowledged with 0x0000. A file that was answered with a failure gets another name in ``spool/``, so that it
is not recorded later (:meth:`InstanceStore.mark_failed`).

Several listeners, on several machines, may share the folder. Each has an owner token, with which the names of its
files in ``spool/`` begin, and holds the lock file ``spool-<token>.lock`` while it runs. What a listener has left whose
lock is free is renamed to the token of the one that starts next, so that of two that start together one has it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from config.private_files import FILE_MODE
from node.dicom.spool_digest import BackgroundDigest
from workers.durable_files import make_folder, sync_folder
from workers.store_files import FAILED, INSTANCES, SET_ASIDE

SPOOL = "spool"

# A file whose recording was started this often and never finished has ended the listener each time.
_MOST_ATTEMPTS = 2

# Free space is checked once for so many bytes of a data set: statvfs is cheap, but not free.
_CHECK_SPACE_EVERY = 16 * 1024 * 1024

# From this size on a data set is digested in a separate thread; for less the thread costs more than it saves.
_LARGE = 1024 * 1024
_ADVANCE_EVERY = 512 * 1024
# Most headers are shorter; a longer one is read from the file.
_BEGINNING = 16 * 1024


class StoreError(OSError):
    """The store cannot be written: no space, a quota, or a failing disk (C-STORE: 0xA700)."""


class SpoolFile:
    """A data set that is being received: written to a spool file and digested meanwhile, in constant memory.

    ``preface`` (preamble and file meta information, PS3.10 7.1) is written first and not counted: ``digest`` (SHA-256,
    hexadecimal, known after :meth:`sync`) and ``byte_count`` are those of the data set alone. ``beginning`` holds its
    first bytes, for reading the header. ``name`` is that of the file, with its folder: to make paths of it takes longer
    than what is done with them.
    """

    def __init__(self, store: InstanceStore, preface: bytes) -> None:
        self._store = store
        self._digest = hashlib.sha256()
        self._check_space_at = _CHECK_SPACE_EVERY
        self._background_digest: BackgroundDigest | None = None
        self._advance_at = 0
        self.byte_count = 0
        self.beginning = b""
        self.digest = ""
        self.preface_length = len(preface)
        store.check_space()
        try:
            self.name = f"{store.spool}/{store.owner}-{secrets.token_hex(8)}.part"
            self._descriptor = os.open(self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise StoreError(error.errno, "no file can be created in the store") from error
        self._preface = preface

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.name)

    def write(self, data: bytes | memoryview) -> None:
        """Add a fragment of the data set.

        Raises:
            StoreError: it cannot be written; the spool file is removed.
        """
        if self.byte_count >= self._check_space_at:
            self._check_space_at = self.byte_count + _CHECK_SPACE_EVERY
            try:
                self._store.check_space()
            except StoreError:
                self.discard()
                raise
        if self._preface:
            self._put_preface(data)
        else:
            self._put(data)
        if self.byte_count < _BEGINNING:
            self.beginning += data[: _BEGINNING - self.byte_count]
        self.byte_count += len(data)
        if self._background_digest is None:
            self._digest.update(data)
            if self.byte_count >= _LARGE:
                self._background_digest = BackgroundDigest(self._descriptor, self._length, self._digest)
        elif self.byte_count >= self._advance_at:
            self._advance_at = self.byte_count + _ADVANCE_EVERY
            self._background_digest.advance(self._length)

    def sync(self) -> None:
        """Write the bytes through to the disk and close the file.

        Raises:
            StoreError: they could not be written; the spool file is removed.
        """
        try:
            if self._preface:
                self._put_preface(b"")
            if self._background_digest is not None:
                self._background_digest.advance(self._length)
            os.fsync(self._descriptor)
            self._close()
        except OSError as error:
            self.discard()
            raise StoreError(error.errno, "the data set cannot be written to the disk") from error
        self.digest = self._digest.hexdigest()

    def discard(self) -> None:
        """Remove the spool file. May be called twice."""
        with suppress(OSError):  # a failed digest does not matter for a file that is removed
            self._close()
        with suppress(FileNotFoundError):
            os.unlink(self.name)  # noqa: PTH108 - see name

    def _put_preface(self, data: bytes | memoryview) -> None:
        """Write the preface with the first fragment: at each call of the system another thread may come first."""
        preface, self._preface = self._preface, b""
        try:
            written = os.writev(self._descriptor, (preface, data))
        except OSError as error:
            self.discard()
            raise StoreError(error.errno, "the data set cannot be written") from error
        if written < len(preface) + len(data):
            self._put(b"".join((preface, data))[written:])

    def _put(self, data: bytes | memoryview) -> None:
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:])
        except OSError as error:
            self.discard()
            raise StoreError(error.errno, "the data set cannot be written") from error

    @property
    def _length(self) -> int:
        return self.preface_length + self.byte_count

    def _close(self) -> None:
        if self._descriptor < 0:
            return
        background_digest, self._background_digest = self._background_digest, None
        try:
            if background_digest is not None:
                background_digest.finish()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1


class InstanceStore:
    """The files below one folder. Safe to share between threads; ``owner`` is the token of this process' files."""

    def __init__(self, folder: Path, minimum_free_bytes: int = 0, spool: str = SPOOL) -> None:
        self.folder = folder
        self.spool = folder / spool
        self.owner = ""
        self._minimum_free_bytes = minimum_free_bytes
        self._lock: IO[str] | None = None

    def prepare(self) -> None:
        """Create all folders, so that receiving creates only files.

        Raises:
            OSError: the folder cannot be written, or its file system has no hard links or no locks.
        """
        make_folder(self.spool)
        make_folder(self.folder / INSTANCES)
        self._claim()
        for shard in range(256):
            (self.folder / INSTANCES / f"{shard:02x}").mkdir(exist_ok=True)
        sync_folder(self.folder / INSTANCES)
        self._try_link()

    def close(self) -> None:
        """Let another process take over what is left in ``spool/``."""
        if self._lock is not None:
            if not any(self.spool.glob(f"{self.owner}-*")):
                Path(self._lock.name).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def check_space(self) -> None:
        """Check the free space.

        Raises:
            StoreError: less than the configured minimum is free, or the store is not there.
        """
        try:
            lacks = self._minimum_free_bytes and shutil.disk_usage(self.folder).free < self._minimum_free_bytes
        except OSError as error:
            raise StoreError(error.errno, "the store cannot be used") from error
        if lacks:
            raise StoreError(errno.ENOSPC, "free space is below store.minimum_free_bytes")

    def temporary(self, preface: bytes = b"") -> SpoolFile:
        """Begin to receive a data set.

        Raises:
            StoreError: there is no space, or the store cannot be written.
        """
        return SpoolFile(self, preface)

    def keep(self, spool: SpoolFile) -> str:
        """Make a received data set durable under its final name; returns the path relative to the store folder.

        A data set that exists already is left unchanged: same digest, same bytes. Call :meth:`complete` after its row
        is committed.

        Raises:
            StoreError: it could not be written; the spool file is removed.
        """
        spool.sync()
        relative = self.path_of(spool.digest)
        try:
            self._name(spool, relative)
        except OSError as error:
            spool.discard()
            raise StoreError(error.errno, "the data set cannot be linked to its final name") from error
        return relative

    def complete(self, spool: SpoolFile) -> None:
        """Remove the spool name of a data set whose row is committed.

        Another process may have received the same bytes, failed, and removed them under their final name meanwhile.
        """
        relative = self.path_of(spool.digest)
        if not os.access(f"{self.folder}/{relative}", os.F_OK):
            self._name(spool, relative)
        spool.discard()

    def remove_failed(self, note: Path, is_recorded: Callable[[], bool]) -> None:
        """Remove a file of :meth:`failed_files` with its bytes, unless ``is_recorded`` or gets so at this moment.

        Raises:
            OSError: the store cannot be written.
        """
        kept = self.folder / self.path_of(note.name.split(".")[1])
        if not is_recorded():
            kept.unlink(missing_ok=True)
        if is_recorded() and not kept.is_file():
            self._link(note, kept)
            sync_folder(kept.parent)
        note.unlink(missing_ok=True)

    def mark_failed(self, spool: SpoolFile) -> None:
        """Mark a kept data set that was answered with a failure, so that it is not recorded later.

        It may be unknown whether its row was committed, so its bytes stay until :meth:`remove_failed`
        decides. A copy of a data set that existed before is removed.
        """
        if spool.path.stat().st_nlink > 1:
            spool.path.rename(spool.path.with_suffix(f".{spool.digest}{FAILED}"))
            sync_folder(self.spool)
        spool.discard()

    def failed_files(self) -> dict[Path, str]:
        """Files that :meth:`mark_failed` has marked, with the paths of their bytes relative to the store folder."""
        self._take_over()
        notes = sorted(self.spool.glob(f"{self.owner}-*{FAILED}"))
        return {note: self.path_of(note.name.split(".")[1]) for note in notes}

    def unfinished(self) -> Iterator[Path]:
        """Clean up after a crash: remove incomplete files, and yield each complete file whose row may be missing.

        The caller records a yielded file (a repeat if its row exists already) and removes it. Not for a store that is
        receiving: what it receives at the moment is incomplete.
        """
        self._take_over()
        for path in sorted(self.spool.glob(f"{self.owner}-*.part")):
            if path.stat().st_nlink > 1:
                yield path
            else:
                path.unlink(missing_ok=True)

    def begin_attempt(self, path: Path) -> Path | None:
        """Count this attempt to record an unfinished file in its name; returns the new path.

        So a file that kills the listener is recognised by its name at the next start. After two attempts it is set
        aside and None is returned.

        Raises:
            OSError: the store cannot be written.
        """
        stem, _, count = path.stem.partition(".")
        attempts = int(count) if count.isdecimal() else 0
        if attempts >= _MOST_ATTEMPTS:
            self.set_aside(path)
            return None
        counted = path.with_name(f"{stem}.{attempts + 1}{path.suffix}")
        path.rename(counted)
        sync_folder(counted.parent)
        return counted

    def set_aside(self, path: Path) -> Path:
        """Move a file of ``spool/`` to ``set-aside/``, for a person to examine.

        Raises:
            OSError: the store cannot be written.
        """
        make_folder(self.folder / SET_ASIDE)
        aside = self.folder / SET_ASIDE / path.name
        path.rename(aside)
        sync_folder(aside.parent)
        return aside

    @staticmethod
    def path_of(digest: str) -> str:
        """Path of the data set with this digest, relative to the store folder."""
        return f"{INSTANCES}/{digest[:2]}/{digest}.dcm"

    def _claim(self) -> None:
        """Take a token that no other process has, with its lock; the lock ends with this process, however it ends."""
        self.close()
        while self._lock is None:
            self.owner = secrets.token_hex(4)
            self._lock = _locked(self._lock_of(self.owner), "a+")

    def _lock_of(self, owner: str) -> Path:
        return self.folder / f"{self.spool.name}-{owner}.lock"

    def _take_over(self) -> None:
        """Rename to this owner what processes have left in ``spool/`` that do not run any more, on any machine."""
        locks = self.folder.glob(f"{self.spool.name}-????????.lock")
        left: dict[str, list[Path]] = {path.stem.removeprefix(f"{self.spool.name}-"): [] for path in locks}
        # The files first: their owner has had its lock before it made them.
        for path in sorted(self.spool.iterdir()):
            if path.suffix in (".part", FAILED):
                left.setdefault(_owner_of(path), []).append(path)
        left.pop(self.owner, None)
        for owner, paths in left.items():
            if (lock := _unheld(self._lock_of(owner))) is None:
                continue
            for path in paths:
                with suppress(FileNotFoundError):  # another one that starts now has it
                    path.rename(path.with_name(f"{self.owner}-{path.name.removeprefix(f'{owner}-')}"))
            lock.unlink(missing_ok=True)
            sync_folder(self.spool)

    def _name(self, spool: SpoolFile, relative: str) -> None:
        """Give a file its final name, and write that through to the disk."""
        kept = f"{self.folder}/{relative}"
        self._link(spool.name, kept)
        sync_folder(kept.rpartition("/")[0])

    def _link(self, source: Path | str, target: Path | str) -> None:
        try:
            os.link(source, target)
        except FileExistsError:
            # Only complete files are linked. A different length means that the file was damaged later.
            if Path(target).stat().st_size != Path(source).stat().st_size:
                Path(target).unlink()
                os.link(source, target)

    def _try_link(self) -> None:
        descriptor, name = tempfile.mkstemp(dir=self.spool, suffix=".probe")
        os.close(descriptor)
        probe = Path(name)
        second = probe.with_suffix(".second")
        try:
            second.hardlink_to(probe)
        except OSError as error:
            raise OSError(
                error.errno, f"the store folder {self.folder} is on a file system without hard links; move it"
            ) from error
        finally:
            probe.unlink(missing_ok=True)
            second.unlink(missing_ok=True)


def _owner_of(path: Path) -> str:
    """The token of the process that has made a file in ``spool/``; empty for a name without one."""
    return path.name.partition("-")[0] if "-" in path.name else ""


def _locked(path: Path, mode: str) -> IO[str] | None:
    """The open lock file; None where another process holds it, or has removed it meanwhile.

    Opened for writing, and no folder: NFS turns flock(2) into a lock of bytes, which needs that.
    """
    lock = path.open(mode, encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    lock.close()
    return None


def _unheld(path: Path) -> Path | None:
    """``path`` where no process holds this lock file, also where it is not there; None where one does."""
    try:
        lock = _locked(path, "r+")
    except FileNotFoundError:
        return path
    if lock is None:
        return None
    lock.close()
    return path
