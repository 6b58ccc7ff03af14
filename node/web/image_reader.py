"""Reads radiographs for the admin page in a separate process, with limits on memory and time.

A file that crashes a decoder, inflates without end or takes too long ends that process; the next file gets a new one.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from config.settings import Eligibility
from models.contract import ModelInput, Spacing
from node.dicom.received_header import is_stat
from node.web.header_preview import header_of
from node.web.image_process import MAXIMUM_PIXELS, ImageError, receive, send
from workers.services.expected_route import ImageHeader

T = TypeVar("T")

log = logging.getLogger("pleura.admin")
_TOO_SLOW = "reading this file takes longer than is allowed"
_NO_START = "the process that reads files does not start on this machine; try again later"
_ENDED = "the process that read this file has crashed"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """Limits for one file: bytes of the file, bytes of memory, seconds."""

    file_bytes: int
    memory_bytes: int = 2 * 1024**3
    seconds: float = 30.0


class ImageReader:
    """Reads one file at a time. Its process is started with the first file and kept for the next."""

    def __init__(self, limits: ReadingLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def read_upload(self, data: bytes) -> ModelInput:
        """A DICOM, PNG or JPEG file as model input.

        Raises:
            ImageError: It cannot be read within the limits.
        """
        return self._ask({"path": ""}, data, _model_input)

    def read_stored(self, path: Path) -> ModelInput:
        """A file of the store as model input; raises as :meth:`read_upload` does."""
        return self._ask({"path": str(path)}, b"", _model_input)

    def read_header(self, data: bytes, rules: Eligibility, stat_descriptions: Sequence[str]) -> ImageHeader:
        """What the header of a DICOM file says; raises as :meth:`read_upload` does."""

        def made(values: dict[str, Any], _: bytearray) -> ImageHeader:
            described = str(values.get("study_description", ""))
            stat = is_stat(described, stat_descriptions, from_stat_peer=False, high_priority=False)
            return header_of(values, stat=stat)

        return self._ask({"eligibility": rules.model_dump(mode="json")}, data, made)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, head: dict[str, Any], data: bytes, made: Callable[[dict[str, Any], bytearray], T]) -> T:
        """Send one request, and make something of the answer."""
        with self._lock:
            process = self._running()
            with self._limited(process, self._limits.seconds, _TOO_SLOW):
                return made(*self._exchange(process, head, data))

    @contextmanager
    def _limited(self, process: subprocess.Popen[bytes], seconds: float, too_slow: str) -> Iterator[None]:
        """Kill the process after ``seconds``; whatever ends it is an :class:`ImageError`."""
        late = threading.Event()
        timer = threading.Timer(seconds, _stop, (process, late))
        timer.start()
        try:
            yield
        except (OSError, EOFError, ValueError) as error:
            if isinstance(error, ImageError):
                raise
            self._end()
            log.warning("the process that reads images ended with %s", process.returncode)
            raise ImageError(too_slow if late.is_set() else _ENDED) from error
        finally:
            timer.cancel()

    def _exchange(
        self, process: subprocess.Popen[bytes], request: dict[str, Any], data: bytes
    ) -> tuple[dict[str, Any], bytearray]:
        assert process.stdin is not None
        assert process.stdout is not None
        send(process.stdin, request, data)
        head, body = receive(process.stdout, MAXIMUM_PIXELS * 4)
        if "traceback" in head:
            log.warning("an unexpected error in a decoder: %s", head["traceback"])
        if "problem" in head:
            raise ImageError(str(head["problem"]))
        return head, body

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        limits = self._limits
        numbers = (str(limits.memory_bytes), str(limits.file_bytes), str(limits.seconds))
        command = [sys.executable, "-P", "-m", "node.web.image_process", *numbers]
        process = self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(os.environ)
        )
        # Its start takes a second, on a busy machine many; a file has its own time.
        with self._limited(process, _START_SECONDS, _NO_START):
            assert process.stdout is not None
            receive(process.stdout, 0)
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with suppress(OSError):  # data that was not read is lost with the process
                stream.close()


class Readers:
    """One reader for files of the store and one for uploads, so that neither waits for the other."""

    def __init__(self, limits: ReadingLimits) -> None:
        self.store, self.uploads = ImageReader(limits), ImageReader(limits)

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()
        self.uploads.close()


def _stop(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Environment of the process: the paths of Python and its packages, no secrets, one thread for each library."""
    kept = {name: ours[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in ours}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


def _model_input(head: dict[str, Any], body: bytearray) -> ModelInput:
    """Make a model input from a response.

    Raises:
        ValueError: the response is malformed.
    """
    try:
        rows, columns = (int(length) for length in head["shape"])
        orientation, spacing = head["patient_orientation"], head["spacing"]
        return ModelInput(
            pixels=np.frombuffer(body, dtype=np.float32).reshape(rows, columns),
            sop_instance_uid=str(head["sop_instance_uid"]),
            spacing=Spacing(**spacing) if spacing else None,
            view=str(head["view"]),
            patient_orientation=(str(orientation[0]), str(orientation[1])) if orientation else None,
            pixel_aspect=float(head["pixel_aspect"]),
            notes=tuple(map(str, head["notes"])),
        )
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError("the process that reads images sent a malformed response") from error
