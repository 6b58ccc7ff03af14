"""A small disk: ext4 in an image file, mounted by a loop device. It can be full, and its power can be cut.

ext4 keeps what was written in the memory of the machine until somebody asks for fsync, or half a minute has passed;
only then it is in the image. So a copy of the image is what a disk has that loses its power at this moment: what was
not synced is not in it. (The device-mapper, whose targets *flakey* and *log-writes* are made for this, is not in every
kernel; a loop device is.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_SYSTEM_FOLDERS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_OPTIONS = "loop,noatime,commit=300"  # no sync by the file system's own clock


class DiskError(OSError):
    """This machine does not let us mount a disk."""


class Disk:
    """One disk. ``folder`` is where its files are seen."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        """Make and mount it.

        Raises:
            DiskError: only root may, and not in every container.
        """
        self.folder = folder
        self._image = folder.with_suffix(".ext4")
        self._cuts = 0
        if os.geteuid() != 0 or shutil.which("mkfs.ext4", path=_SYSTEM_FOLDERS) is None:
            raise DiskError("a disk of its own needs root and mkfs.ext4 (Debian's e2fsprogs)")
        folder.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(megabytes * 1024 * 1024)
        _command("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        self._mount()

    def free(self) -> int:
        """Bytes that can still be written."""
        return shutil.disk_usage(self.folder).free

    def fill(self, leave: int = 0) -> None:
        """Let a file of somebody else take the room, all of it but ``leave`` bytes."""
        with (self.folder / "filler").open("wb") as filler:
            # Twice: the file system keeps a little back for what it has not placed yet.
            for _ in range(2):
                size = filler.seek(0, os.SEEK_END)
                try:
                    os.posix_fallocate(filler.fileno(), size, max(1, self.free() - leave))
                except OSError:
                    break
            while leave == 0 and _append(filler.fileno()):
                continue

    def empty(self) -> None:
        """Take that file away again."""
        (self.folder / "filler").unlink(missing_ok=True)
        self.sync()

    def sync(self) -> None:
        """Write through what is in memory."""
        _command("sync", "--file-system", str(self.folder))

    def cut_power(self) -> None:
        """Go on with what the disk has at this moment. Nobody may use it: kill before, or stop and then kill."""
        self._cuts += 1
        after = self._image.with_name(f"{self._image.stem}-{self._cuts}.ext4")
        _command("cp", "--sparse=always", str(self._image), str(after))
        _command("umount", str(self.folder))
        self._image.unlink()
        self._image = after
        self._mount()

    def unmount(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", str(self.folder)], check=False, capture_output=True)

    def _mount(self) -> None:
        try:
            _command("mount", "-o", _OPTIONS, str(self._image), str(self.folder))
        except subprocess.CalledProcessError as error:
            raise DiskError(f"no disk can be mounted here: {error.stderr.decode().strip()}") from error


def _append(descriptor: int) -> int:
    try:
        return os.pwrite(descriptor, bytes(4096), os.lseek(descriptor, 0, os.SEEK_END))
    except OSError:
        return 0


def _command(*arguments: str) -> None:
    subprocess.run(arguments, check=True, capture_output=True)
