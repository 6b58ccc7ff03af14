"""The separate process in which the admin page reads untrusted image files, so that no file can stop the page.

It reads requests from standard input and writes responses to standard output (:mod:`node.web.image_reader` is the other
side), one after another until its input ends. Its memory is limited, it can write no file and leaves no core dump, so
that a patient's pixels do not reach a disk when a decoder crashes.
"""

from __future__ import annotations

import ctypes
import io
import json
import resource
import struct
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from models.contract import ModelInput
from models.radiograph.decode import UnreadablePixels
from models.radiograph.reading import read_model_input

MAXIMUM_PIXELS = 64_000_000
_TOO_LARGE = f"this picture has more than {MAXIMUM_PIXELS // 1_000_000} million pixels"
_LENGTH = struct.Struct(">Q")
_PR_SET_DUMPABLE = 4


class ImageError(ValueError):
    """A file cannot be shown or analysed; the message is the reason, for a user."""


def is_dicom(data: bytes) -> bool:
    """Whether a file has the prefix of DICOM (PS3.10 7.1)."""
    return data[128:132] == b"DICM"


def read_upload(data: bytes) -> ModelInput:
    """A DICOM, PNG or JPEG file as model input.

    Raises:
        ImageError: It is none of these, or its pixels cannot be read.
    """
    if is_dicom(data):
        try:
            return _bounded(read_model_input(dcmread(io.BytesIO(data))))
        except UnreadablePixels as error:
            raise ImageError(str(error)) from error
        except InvalidDicomError as error:
            raise ImageError("this DICOM file cannot be read") from error
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MAXIMUM_PIXELS:
                raise ImageError(_TOO_LARGE)
            deep = picture.mode in ("I", "I;16", "I;16B")
            grey = np.asarray(picture if deep else picture.convert("L"), dtype=np.float32)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(_TOO_LARGE) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ImageError("this is not a readable DICOM, PNG or JPEG file") from error
    pixels = np.clip(grey / (65535 if deep else 255), 0, 1).astype(np.float32)
    return ModelInput(pixels, "", notes=("a picture without DICOM header: no pixel spacing, contrast unchanged",))


def read_stored(path: Path) -> ModelInput:
    """A file of the store as model input; raises as :func:`read_upload` does."""
    try:
        return _bounded(read_model_input(path))
    except UnreadablePixels as error:
        raise ImageError(str(error)) from error


def _bounded(image: ModelInput) -> ModelInput:
    if image.pixels.size > MAXIMUM_PIXELS:
        raise ImageError(_TOO_LARGE)
    return image


def send(stream: IO[bytes], head: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Write one message: the length of a JSON object, the object, the length of a body, the body."""
    text = json.dumps(head).encode()
    stream.write(_LENGTH.pack(len(text)) + text + _LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes], maximum: int) -> tuple[dict[str, Any], bytearray]:
    """Read one message that :func:`send` has written.

    Raises:
        EOFError: The stream has ended.
        ValueError: It is not such a message, or larger than ``maximum`` bytes.
    """
    head = json.loads(_exactly(stream, _length(stream, 1 << 20)))
    if not isinstance(head, dict):
        raise ValueError("a message must begin with a JSON object")
    return head, _exactly(stream, _length(stream, maximum))


def _length(stream: IO[bytes], maximum: int) -> int:
    length = int(_LENGTH.unpack(_exactly(stream, _LENGTH.size))[0])
    if length > maximum:
        raise ValueError(f"a message of {length} bytes is too long")
    return length


def _exactly(stream: IO[bytes], length: int) -> bytearray:
    made = bytearray(length)
    view, filled = memoryview(made), 0
    while filled < length:
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the stream has ended")
        filled += count
    return made


def confine(memory_bytes: int) -> None:
    """Limit this process to ``memory_bytes`` more than it uses now; it can write no file and leaves no core dump."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # RLIMIT_CORE does not limit a piped core dump


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (wanted, wanted))


def _allow_processor(seconds: float) -> None:
    """Limit the CPU time of this process, in case the parent process no longer exists to stop it."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def answer(head: dict[str, Any], body: bytes | bytearray) -> tuple[dict[str, Any], bytes | memoryview]:
    """The response to one request; every error of reading is a response too."""
    try:
        if "eligibility" in head:
            # Most files need no settings and no rules: this process starts again after each that goes wrong.
            from node.web.header_preview import preview

            return preview(bytes(body), head["eligibility"]), b""
        image = read_stored(Path(head["path"])) if head["path"] else read_upload(bytes(body))
    except ImageError as error:
        return {"problem": str(error)}, b""
    except MemoryError:
        return {"problem": "reading this file needs more memory than is allowed"}, b""
    except Exception:  # a decoder may raise anything; the page logs the traceback: this process can write no log file
        return {"problem": "this file cannot be read", "traceback": traceback.format_exc()}, b""
    described = {
        "shape": image.shape,
        "sop_instance_uid": image.sop_instance_uid,
        "spacing": asdict(image.spacing) if image.spacing else None,
        "view": image.view,
        "patient_orientation": image.patient_orientation,
        "pixel_aspect": image.pixel_aspect,
        "notes": image.notes,
    }
    return described, np.ascontiguousarray(image.pixels, dtype=np.float32).data.cast("B")


def main() -> None:
    """Say that it is ready, and answer requests; the arguments limit memory and a request (bytes), and time (s)."""
    memory_bytes, maximum, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    confine(memory_bytes)
    send(answers, {"ready": True})
    while True:
        try:
            head, body = receive(requests, maximum)
        except EOFError:
            return
        _allow_processor(seconds)
        described, pixels = answer(head, body)
        del body
        send(answers, described, pixels)
        del pixels


if __name__ == "__main__":
    main()
