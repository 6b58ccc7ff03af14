"""Digest a file and start its write-back while it is written.

A large data set takes as long to digest as to receive, and as long again to sync. A :class:`BackgroundDigest` digests
the pages that were just written, in a thread of its own, and asks the kernel to start the write-back.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from functools import cache
from queue import SimpleQueue
from typing import Any

# Each step takes the interpreter lock from the writer for a moment, so steps are large.
_CHUNK = 512 * 1024
_WRITE_BACK = 1024 * 1024
_SYNC_FILE_RANGE_WRITE = 2  # sync_file_range(2)

log = logging.getLogger(__name__)


class BackgroundDigest:
    """Digests an open, growing file from ``offset`` on; ``digest`` is a hash object of :mod:`hashlib`.

    Until :meth:`finish` returns, ``digest`` must not be used elsewhere and the file must stay open.
    """

    def __init__(self, descriptor: int, offset: int, digest: Any) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._written_back = 0
        self._digest = digest
        self._error: OSError | None = None
        self._ends: SimpleQueue[int | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="background-digest", daemon=True)
        self._thread.start()

    def advance(self, end: int) -> None:
        """Allow digesting up to ``end`` bytes from the beginning of the file."""
        self._ends.put(end)

    def finish(self) -> None:
        """Wait until all written bytes are digested.

        Raises:
            OSError: the file could not be read back.
        """
        self._ends.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        view = memoryview(bytearray(_CHUNK))
        try:
            while (end := self._ends.get()) is not None:
                while self._offset < end:
                    self._step(view[: end - self._offset])
        except OSError as error:
            self._error = error

    def _step(self, view: memoryview) -> None:
        count = os.preadv(self._descriptor, [view], self._offset)
        if not count:
            raise OSError("a file is shorter than what was written to it")
        self._digest.update(view[:count])
        self._offset += count
        if self._offset - self._written_back >= _WRITE_BACK:
            begin_write_back(self._descriptor, self._written_back, self._offset - self._written_back)
            self._written_back = self._offset


def begin_write_back(descriptor: int, offset: int, count: int) -> None:
    """Ask the kernel to start writing this part of a file to the disk, so that fsync has less to wait for.

    It is only a hint: it may be unavailable, and fsync reports a disk that fails.
    """
    function = _sync_file_range()
    if function is not None and function(descriptor, offset, count, _SYNC_FILE_RANGE_WRITE):
        log.debug("the write-back cannot be started early")


@cache
def _sync_file_range() -> Any:
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function
