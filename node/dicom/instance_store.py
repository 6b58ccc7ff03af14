"""Where received bytes lie: one file for each data set, named by its digest and never by what a peer says.

A data set arrives in ``incoming/`` under a random name. :meth:`InstanceStore.keep` writes it through to the disk and
links it to ``instances/<2 hex>/<digest>.dcm``; the name in ``incoming/`` goes when its database row is committed. So
after a crash ``incoming/`` tells the two kinds of leftover apart: a file with one name was never whole and is removed,
a file with two names is whole and durable, and :meth:`InstanceStore.unfinished` hands it out to be recorded. One that
cannot be recorded goes to ``set-aside/``: its sender never heard 0x0000 for it. One whose sender has heard a failure
gets another name in ``incoming/``, so that nobody records it (:meth:`InstanceStore.disown`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from node.dicom.spool_digest import Follower
from workers.durable_files import make_folder, sync_folder

SPOOL = "spool"
INSTANCES = "instances"
SET_ASIDE = "set-aside"

# A file whose recording was begun so often and never ended has ended the listener each time.
_MOST_ATTEMPTS = 2

# Free space is looked at once for so many bytes of a data set: statvfs is cheap, but not free.
_LOOK_EVERY = 16 * 1024 * 1024


_DISOWNED = ".disowned"

# From here on a data set is digested in a thread of its own: for less it would take longer to hand it over.
_LARGE = 1024 * 1024
_FOLLOW_EVERY = 512 * 1024
# Most headers end before; what is longer is read from the file.
_BEGINNING = 16 * 1024


class StoreError(OSError):
    """The store cannot take these bytes: no space, over a quota, or the disk does not answer (C-STORE: 0xA700)."""


class SpoolFile:
    """A data set while it arrives: written to a temporary file and digested meanwhile, in constant memory.

    ``preface`` (preamble and file meta information, PS3.10 7.1) goes in front and does not count: ``digest`` and
    ``byte_count`` are those of the data set alone. ``beginning`` is its beginning, for who wants to look at its header.
    """

    def __init__(self, store: InstanceStore, preface: bytes) -> None:
        self._store = store
        self._digest = hashlib.sha256()
        self._look_at = _LOOK_EVERY
        self._follower: Follower | None = None
        self._follow_at = 0
        self.byte_count = 0
        self.beginning = b""
        self.preface_length = len(preface)
        store.check_space()
        try:
            name = f"{store.folder}/{SPOOL}/{secrets.token_hex(8)}.part"
            self._descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(error.errno, "no file can be made in the store") from error
        self.path = Path(name)
        self._put(preface)

    @property
    def digest(self) -> str:
        """SHA-256 of the data set, hexadecimal; for a large one only once it is synced."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Add a fragment of the data set.

        Raises:
            StoreError: it cannot be written; the temporary file is gone.
        """
        if self.byte_count >= self._look_at:
            self._look_at = self.byte_count + _LOOK_EVERY
            try:
                self._store.check_space()
            except StoreError:
                self.discard()
                raise
        self._put(data)
        if self.byte_count < _BEGINNING:
            self.beginning += data[: _BEGINNING - self.byte_count]
        self.byte_count += len(data)
        if self._follower is None:
            self._digest.update(data)
            if self.byte_count >= _LARGE:
                self._follower = Follower(self._descriptor, self._length, self._digest)
        elif self.byte_count >= self._follow_at:
            self._follow_at = self.byte_count + _FOLLOW_EVERY
            self._follower.follow(self._length)

    def sync(self) -> None:
        """Write the bytes through to the disk and close the file.

        Raises:
            StoreError: the disk did not take them; the temporary file is gone.
        """
        try:
            if self._follower is not None:
                self._follower.follow(self._length)
            os.fsync(self._descriptor)
            self._close()
        except OSError as error:
            self.discard()
            raise StoreError(error.errno, "the disk did not take the data set") from error

    def discard(self) -> None:
        """Forget the data set and remove its temporary file. Does no harm twice."""
        with suppress(OSError):  # what is thrown away need not have been digested
            self._close()
        self.path.unlink(missing_ok=True)

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
        follower, self._follower = self._follower, None
        try:
            if follower is not None:
                follower.finish()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1


class InstanceStore:
    """The files below one folder. Safe to share between threads; one listener at a time owns ``incoming/``."""

    def __init__(self, folder: Path, minimum_free_bytes: int = 0) -> None:
        self.folder = folder
        self._minimum_free_bytes = minimum_free_bytes
        self._claimed = -1

    def prepare(self) -> None:
        """Make the folders, so that nothing but the file itself is missing when an image arrives.

        Raises:
            OSError: the folder cannot be written, its file system has no hard links, or another listener uses it.
        """
        make_folder(self.folder / SPOOL)
        make_folder(self.folder / INSTANCES)
        self._claim()
        for shard in range(256):
            (self.folder / INSTANCES / f"{shard:02x}").mkdir(exist_ok=True)
        sync_folder(self.folder / INSTANCES)
        self._try_link()

    def close(self) -> None:
        """Let another listener have the store."""
        if self._claimed >= 0:
            os.close(self._claimed)
            self._claimed = -1

    def check_space(self) -> None:
        """Look whether there is room.

        Raises:
            StoreError: less than the configured minimum is free.
        """
        if self._minimum_free_bytes and shutil.disk_usage(self.folder).free < self._minimum_free_bytes:
            raise StoreError(errno.ENOSPC, "less space is free than store.minimum_free_bytes asks for")

    def temporary(self, preface: bytes = b"") -> SpoolFile:
        """Begin to receive a data set.

        Raises:
            StoreError: there is no room, or the store cannot be written.
        """
        return SpoolFile(self, preface)

    def keep(self, spool: SpoolFile) -> str:
        """Make a received data set durable and give it its name; returns the path relative to the store folder.

        A data set that is there already is left alone: same digest, same bytes. Call :meth:`complete` once its row is
        committed.

        Raises:
            StoreError: the disk did not take it; nothing is left behind.
        """
        spool.sync()
        relative = self.path_of(spool.digest)
        try:
            self._link(spool.path, self.folder / relative)
            sync_folder((self.folder / relative).parent)
        except OSError as error:
            spool.discard()
            raise StoreError(error.errno, "the data set cannot be given its name") from error
        return relative

    def settle(self, spool: SpoolFile) -> None:
        """Remove the temporary name of a data set whose row is committed."""
        spool.discard()

    def disown(self, spool: SpoolFile) -> None:
        """Note that a kept data set was answered with a failure: it is not to be recorded later.

        Whether its row was committed may be unknown, so its bytes stay until :meth:`disowned` hands them out. A copy of
        what was there already is dropped.
        """
        if spool.path.stat().st_nlink > 1:
            spool.path.rename(spool.path.with_suffix(f".{spool.digest}{_DISOWNED}"))
            sync_folder(self.folder / SPOOL)
        spool.discard()

    def disowned(self) -> dict[Path, str]:
        """What was disowned, with the paths of its bytes relative to the store folder."""
        notes = sorted((self.folder / SPOOL).glob(f"*{_DISOWNED}"))
        return {note: self.path_of(note.name.split(".")[1]) for note in notes}

    def unfinished(self) -> Iterator[Path]:
        """Clean up after a crash: remove what was never whole, and yield each file whose row may be missing.

        The caller records a yielded file (a repeat, where the row is there already) and removes it.
        """
        for path in sorted((self.folder / SPOOL).glob("*.part")):
            if path.stat().st_nlink > 1:
                yield path
            else:
                path.unlink(missing_ok=True)

    def begin_attempt(self, path: Path) -> Path | None:
        """Count in the name of an unfinished file that its recording begins, and give the new name.

        So the file that kills the listener is known by its name at the next start. The second time it is set aside
        instead, and None is given.

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
        """Put a file of ``incoming/`` where nobody reads it, for a person to look at.

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
        """Say where the data set with this digest lies, relative to the store folder."""
        return f"{INSTANCES}/{digest[:2]}/{digest}.dcm"

    def _claim(self) -> None:
        # Cleaning up after a crash would take the files that a second listener is just receiving.
        self._claimed = os.open(self.folder / SPOOL, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise OSError(error.errno, f"another listener receives into {self.folder}") from error

    def _link(self, source: Path, target: Path) -> None:
        try:
            target.hardlink_to(source)
        except FileExistsError:
            # A file is only ever linked whole. Another length means that somebody or something has damaged it since.
            if target.stat().st_size != source.stat().st_size:
                target.unlink()
                target.hardlink_to(source)

    def _try_link(self) -> None:
        descriptor, name = tempfile.mkstemp(dir=self.folder / SPOOL, suffix=".probe")
        os.close(descriptor)
        probe = Path(name)
        second = probe.with_suffix(".second")
        try:
            second.hardlink_to(probe)
        except OSError as error:
            raise OSError(
                error.errno, f"the store folder {self.folder} lies on a file system without hard links; move it"
            ) from error
        finally:
            probe.unlink(missing_ok=True)
            second.unlink(missing_ok=True)
