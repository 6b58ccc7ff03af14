"""Header of a compressed frame, read from its first bytes before any decoder allocates memory for it."""

from __future__ import annotations

from dataclasses import dataclass

_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # ISO/IEC 10918-1 table B.1, 14495-1 C.1
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_JP2_SIGNATURE = b"jP  "  # type of the first box, ISO/IEC 15444-1 I.5.1


class CodestreamError(ValueError):
    """A frame's bytes are not the codestream that its transfer syntax promises, or they end too early."""


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Size of a compressed frame as its own header gives it; ``precision`` is in bits a sample."""

    rows: int
    columns: int
    samples: int
    precision: int


def jpeg_header(frame: bytes) -> FrameHeader:
    """Read the frame header of a JPEG (ISO/IEC 10918-1 B.2.2) or JPEG-LS (14495-1 C.2.2) codestream.

    Raises:
        CodestreamError: No start of image, no frame header, or no end of image: libjpeg would fill what is missing
            with grey and say nothing.
    """
    if frame[:2] != b"\xff\xd8":
        raise CodestreamError("the frame does not begin with a JPEG start of image")
    if not frame.rstrip(b"\x00\xff").endswith(b"\xd9"):
        raise CodestreamError("the JPEG codestream has no end of image")
    at = 2
    while at + 4 <= len(frame):
        if frame[at] != 0xFF:
            break
        marker = frame[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _START_OF_FRAME:
            return _frame_header(frame[at + 4 : at + 10])
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise CodestreamError("the JPEG codestream has no frame header")


def jpeg_2000_header(frame: bytes) -> FrameHeader:
    """Read the SIZ segment of a JPEG 2000 codestream (ISO/IEC 15444-1 A.5.1), wrapped in a JP2 file or not.

    Raises:
        CodestreamError: There is no such segment.
    """
    start = _jpeg_2000_start(frame)
    siz = frame[start + 4 : start + 4 + 41]
    if frame[start : start + 4] != b"\xff\x4f\xff\x51" or len(siz) < 41:
        raise CodestreamError("the frame holds no JPEG 2000 codestream")
    width, height, left, top = (int.from_bytes(siz[4 + 4 * n : 8 + 4 * n], "big") for n in range(4))
    return FrameHeader(height - top, width - left, int.from_bytes(siz[36:38], "big"), (siz[38] & 0x7F) + 1)


def _jpeg_2000_start(frame: bytes) -> int:
    """Where the codestream begins: at once, or in the first Contiguous Codestream box of a JP2 file (15444-1 I.4)."""
    if frame[4:8] != _JP2_SIGNATURE:
        return 0
    at = 0
    while at + 8 <= len(frame):
        size, kind, head = int.from_bytes(frame[at : at + 4], "big"), frame[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(frame[at + 8 : at + 16], "big"), 16
        if kind == b"jp2c":
            return at + head
        if size < head:  # 0: this is the last box, and no codestream
            break
        at += size
    return len(frame)


def _frame_header(body: bytes) -> FrameHeader:
    if len(body) < 6:
        raise CodestreamError("the JPEG frame header is cut off")
    rows, columns = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    return FrameHeader(rows, columns, body[5], body[0])
