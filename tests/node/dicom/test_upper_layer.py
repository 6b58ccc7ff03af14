"""P-DATA as it is cut out of the stream, and an association that waits instead of looking."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from node.dicom.upper_layer.fragments import FragmentReader, InvalidPduError
from tests.node.dicom.listening import listening
from tests.orthanc import wait_until

LONGEST = 4096
Fragment = tuple[int, int, bytes]

fragments = st.lists(st.tuples(st.integers(1, 255), st.integers(0, 3), st.binary(max_size=50)), max_size=4)


def pdu(items: list[Fragment]) -> bytes:
    body = b"".join(struct.pack(">LBB", len(data) + 2, context, control) + data for context, control, data in items)
    return struct.pack(">BBL", 4, 0, len(body)) + body


class Taker:
    """Puts the pieces of fragments together again."""

    def __init__(self) -> None:
        self.fragments: list[Fragment] = []
        self._open = b""

    def take(self, context_id: int, control: int, piece: memoryview, complete: bool) -> None:
        self._open += piece
        if complete:
            self.fragments.append((context_id, control, self._open))
            self._open = b""


def feed(stream: bytes, cuts: list[int]) -> tuple[Taker, bytes, bool]:
    """Read a stream that arrives in pieces; what was taken, what was left, and whether that begins with a PDU."""
    taker = Taker()
    reader = FragmentReader(taker.take, LONGEST)
    waiting = b""
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        waiting += stream[start:end]
        waiting = waiting[reader.read(memoryview(waiting)) :]
    return taker, waiting, reader.between_pdus


@settings(deadline=None)
@given(st.lists(fragments, max_size=5), st.lists(st.integers(0, 10_000), max_size=30))
def test_the_network_may_cut_anywhere(pdus: list[list[Fragment]], cuts: list[int]) -> None:
    taker, left, between = feed(b"".join(map(pdu, pdus)), cuts)

    assert taker.fragments == [fragment for items in pdus for fragment in items]
    assert (left, between) == (b"", True)


@settings(deadline=None)
@given(fragments, st.lists(st.integers(0, 10_000), max_size=10))
def test_it_stops_before_another_pdu(items: list[Fragment], cuts: list[int]) -> None:
    release = struct.pack(">BBLL", 5, 0, 4, 0)
    taker, left, between = feed(pdu(items) + release + pdu(items), cuts)

    assert taker.fragments == items
    assert left == release + pdu(items)
    assert between


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack(">BBL", 4, 0, LONGEST + 1),
        struct.pack(">BBL", 4, 0, 0xFFFFFFFF),
        struct.pack(">BBL", 4, 0, 3) + b"abc",
        struct.pack(">BBLLBB", 4, 0, 6, 1, 1, 0),
        struct.pack(">BBLLBB", 4, 0, 6, 3, 1, 0),
        struct.pack(">BBLLBB", 4, 0, 6, 0xFFFFFFFF, 1, 0),
    ],
)
def test_lengths_that_cannot_be(stream: bytes) -> None:
    with pytest.raises(InvalidPduError):
        feed(stream, [])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_taken_left_or_refused(stream: bytes) -> None:
    try:
        taker, left, _ = feed(stream, [])
    except InvalidPduError:
        return
    assert sum(len(data) for _, _, data in taker.fragments) + len(left) <= len(stream)


def test_an_echo_and_a_release_do_not_wait_for_a_timer(tmp_path: Path) -> None:
    """Sixty echoes, each a message from one thread to the other, in less than the pauses of one thread."""
    with listening(tmp_path) as listener:
        entity = AE("SCU")
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", listener.port, ae_title="PLEURA")
        for _ in range(60):
            assert association.send_c_echo().Status == 0
        association.release()
        assert association.is_released


def _waits() -> int:
    """How often a thread of this process has waited for something."""
    waits = 0
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread has ended meanwhile
            text = task.joinpath("status").read_text()
            waits += int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return waits


def test_a_connection_that_says_nothing_costs_nothing(tmp_path: Path) -> None:
    """pynetdicom looks a thousand times a second whether an association is requested."""
    with listening(tmp_path) as listener, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
        time.sleep(0.3)
        before = _waits()
        time.sleep(0.5)
        assert _waits() - before < 500


def test_threads_and_pipes_end_with_their_association(tmp_path: Path) -> None:
    with listening(tmp_path) as listener:
        entity = AE("SCU")
        entity.add_requested_context(Verification)
        before = _open_files()
        for _ in range(5):
            entity.associate("127.0.0.1", listener.port, ae_title="PLEURA").release()
        wait_until(lambda: not listener.scp.association_count, "the end of the associations", pause=0.02)
        wait_until(lambda: _open_files() <= before, "both sides to close what they opened", pause=0.02)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
