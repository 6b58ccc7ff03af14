"""Limits on data sets from peers, and the bounded sources of their bytes: plain, or inflated piece by piece."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, BytesIO
from typing import BinaryIO, Protocol

_CHUNK = 64 * 1024


class InvalidDataSetError(ValueError):
    """The bytes are no data set; the message says where and why, in words that hold no value of it."""


class DataSetLimitError(InvalidDataSetError):
    """The data set is more than is read: larger, deeper, of more elements, or it takes too long."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a data set is read.

    ``inflated_bytes`` bounds a deflated data set, ``depth`` the sequences within sequences, ``elements`` how many
    elements and items are walked through, ``seconds`` the processor time of this thread. A longer value than
    ``value_bytes`` is passed over.
    """

    inflated_bytes: int
    elements: int
    depth: int = 32
    value_bytes: int = 64 * 1024
    seconds: float = 10.0


IMAGE_LIMITS = Limits(inflated_bytes=1 << 29, elements=200_000, depth=64, value_bytes=1 << 32, seconds=30.0)
"""For a whole image, pixels included: more than the largest one that can be decoded, in grey or in colour."""


class Source(Protocol):
    """Bytes that are read forward. ``memory`` has all of them from its place ``begin`` on, where they are at hand."""

    memory: bytes
    begin: int

    def read(self, count: int) -> bytes:
        """The next bytes; fewer only at the end."""

    def skip(self, count: int) -> bool:
        """Pass bytes over; False where there are not so many."""


class PlainSource:
    """Bytes of a file from where it stands."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.memory = file.getvalue() if isinstance(file, BytesIO) else b""
        at = self.begin = file.tell()
        self.left = file.seek(0, SEEK_END) - at
        file.seek(at)

    def read(self, count: int) -> bytes:
        """See the protocol; asks for no more than there is, for the memory would be taken first."""
        if count > self.left:
            count = self.left
        self.left -= count
        return self._file.read(count)

    def skip(self, count: int) -> bool:
        """See the protocol."""
        step = min(count, self.left)
        if step:
            self._file.seek(step, SEEK_CUR)
        self.left -= step
        return step == count


class InflatedSource:
    """Bytes of a raw deflate stream (PS3.5 A.5: no zlib header), inflated piece by piece as they are asked for."""

    memory, begin = b"", 0

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._left = limit
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def read(self, count: int) -> bytes:
        """See the protocol."""
        pieces = []
        while count:
            piece = self._next(count)
            if not piece:
                break
            pieces.append(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip(self, count: int) -> bool:
        """See the protocol."""
        while count:
            piece = self._next(min(count, _CHUNK))
            if not piece:
                return False
            count -= len(piece)
        return True

    def _next(self, most: int) -> bytes:
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._file.read(_CHUNK)
            try:
                piece = self._inflater.decompress(packed, most)
            except zlib.error as error:
                raise InvalidDataSetError("the deflated data set is damaged") from error
            self._left -= len(piece)
            if self._left < 0:
                raise DataSetLimitError("the deflated data set inflates to more than is read")
            if piece or not packed:
                return piece
        return b""
