"""P-DATA-TF PDUs (PS3.8 9.3.5) as a stream of bytes, and how fast they must arrive; nothing here knows pynetdicom."""

from __future__ import annotations

import struct
from collections.abc import Callable

P_DATA = 0x04
_PDU_HEADER = 6
_ITEM_HEADER = 6


class MinimumRate:
    """Minimum rate of an arriving message: each of ``seconds`` spent waiting for the peer must bring ``minimum`` bytes.

    Only the time spent waiting counts, so a slow listener is not held against the peer.
    """

    def __init__(self, seconds: float, minimum: int) -> None:
        self._seconds = seconds
        self._least = seconds * minimum
        self._waited = 0.0
        self._received = 0

    def reset(self) -> None:
        """Start again; between messages there is no minimum."""
        self._waited, self._received = 0.0, 0

    def receive(self, count: int) -> None:
        """Count bytes."""
        self._received += count

    def wait(self, seconds: float) -> bool:
        """Count time spent waiting; False if too few bytes came in it."""
        self._waited += seconds
        if self._waited < self._seconds:
            return True
        enough = self._received >= self._least
        self.reset()
        return enough


class InvalidPduError(ValueError):
    """The peer sent an invalid P-DATA-TF PDU (PS3.8 9.3.5), or one longer than negotiated."""


Take = Callable[[int, int, memoryview, bool], None]
"""Handles a piece of a fragment: presentation context, message control header (PS3.8 annex E.2), the bytes, and whether
the fragment ends with them. The bytes are valid only until it returns."""


class FragmentReader:
    """Splits a stream of P-DATA-TF PDUs into pieces of fragments, wherever the network has split it."""

    def __init__(self, take: Take, longest: int) -> None:
        self._take = take
        self._longest = longest
        self._pdu_left = 0
        self._item_left = 0
        self._context_id = 0
        self._control = 0

    @property
    def between_pdus(self) -> bool:
        """Whether no PDU is incomplete."""
        return not self._pdu_left

    def read(self, data: memoryview) -> int:
        """Process the complete parts of ``data``; returns their number of bytes. Stops before a PDU of another type.

        Raises:
            InvalidPduError: lengths that contradict each other or the negotiated maximum.
        """
        at = 0
        while True:
            if self._item_left:
                piece = data[at : at + self._item_left]
                step = len(piece)
                self._item_left -= step
                self._pdu_left -= step
                if piece:
                    self._take(self._context_id, self._control, piece, not self._item_left)
            else:
                step = self._begin_item(data[at:]) if self._pdu_left else self._begin_pdu(data[at:])
            if not step:
                return at
            at += step

    def _begin_pdu(self, data: memoryview) -> int:
        if len(data) < _PDU_HEADER or data[0] != P_DATA:
            return 0
        (self._pdu_left,) = struct.unpack_from(">L", data, 2)
        if self._pdu_left > self._longest:
            raise InvalidPduError(f"a PDU of {self._pdu_left} bytes is longer than negotiated")
        return _PDU_HEADER

    def _begin_item(self, data: memoryview) -> int:
        if self._pdu_left < _ITEM_HEADER:
            raise InvalidPduError("a PDU ends within a header")
        if len(data) < _ITEM_HEADER:
            return 0
        length, self._context_id, self._control = struct.unpack_from(">LBB", data)
        if not 2 <= length <= self._pdu_left - 4:
            raise InvalidPduError("a fragment does not fit into its PDU")
        self._pdu_left -= _ITEM_HEADER
        self._item_left = length - 2
        if not self._item_left:
            self._take(self._context_id, self._control, data[:0], True)
        return _ITEM_HEADER
