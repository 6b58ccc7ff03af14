"""Messages come out as they went in, however TCP cuts them; what is no MLLP is refused without a word of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dripping import dripping
from workers.hl7.mllp import Deframer, ExchangeError, FramingError, exchange, frame

BODY = st.binary(min_size=1, max_size=300).map(lambda raw: bytes(b for b in raw if b not in (0x0B, 0x1C)))
MESSAGES = st.lists(BODY, min_size=1, max_size=5)


@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 2000), max_size=20), between=st.sampled_from([b"", b"\r\n"]))
def test_messages_survive_any_cutting(messages: list[bytes], cuts: list[int], between: bytes) -> None:
    stream = between.join(frame(message) for message in messages)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    deframer = Deframer(limit=1000)
    found: list[bytes] = []
    for start, end in itertools.pairwise(places):
        found += deframer.feed(stream[start:end])
    assert found == messages
    assert not deframer.unfinished


@given(message=BODY)
def test_one_byte_at_a_time(message: bytes) -> None:
    deframer = Deframer(limit=1000)
    found = [one for byte in frame(message) for one in deframer.feed(bytes([byte]))]
    assert found == [message]


@pytest.mark.parametrize(
    "stream",
    [
        b"MSH|^~\\&|",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x0bMSH\x1cPID\x1c\r",
        b"\x0bMSH\x0bPID\x1c\r",
        frame(b"MSH") + b"x",
    ],
)
def test_what_is_out_of_place_is_refused(stream: bytes) -> None:
    with pytest.raises(FramingError) as caught:
        Deframer(1000).feed(stream)
    assert "MSH" not in str(caught.value)
    assert "GET" not in str(caught.value)


def test_an_end_block_without_its_carriage_return_ends_the_message() -> None:
    deframer = Deframer(1000)
    assert deframer.feed(b"\x0bMSH|1\x1c") == [b"MSH|1"], "its sender waits for the answer"
    assert not deframer.unfinished
    assert deframer.feed(b"\x0bMSH|2\x1c\x0bMSH|3\x1c\n") == [b"MSH|2", b"MSH|3"]
    assert deframer.feed(b"\r") == []
    assert not deframer.unfinished


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_byte_order_mark_before_a_block_is_skipped(size: int) -> None:
    stream = b"\xef\xbb\xbf\x0bMSH|1\x1c\r\xef\xbb\xbf\x0bMSH|2\x1c\r"
    deframer = Deframer(1000)
    found = [one for at in range(0, len(stream), size) for one in deframer.feed(stream[at : at + size])]
    assert found == [b"MSH|1", b"MSH|2"]


def test_a_message_is_refused_before_it_has_filled_the_memory() -> None:
    deframer = Deframer(100)
    assert deframer.feed(b"\x0b" + b"x" * 100) == []
    with pytest.raises(FramingError, match="100 bytes"):
        deframer.feed(b"x")


def test_a_whole_message_that_is_too_long_is_refused_too() -> None:
    with pytest.raises(FramingError, match="100 bytes"):
        Deframer(100).feed(frame(b"x" * 101))
    assert Deframer(100).feed(frame(b"x" * 100)) == [b"x" * 100]


def test_a_message_cannot_end_its_own_block() -> None:
    with pytest.raises(FramingError):
        frame(b"MSH\x1c\rPID")


def test_a_peer_that_drips_meets_the_time_limit() -> None:
    """What stands between two blocks is skipped, however much it is."""
    with dripping(b"\r\n") as url, pytest.raises(ExchangeError, match="TimeoutError"):
        exchange(("127.0.0.1", int(url.rpartition(":")[2])), b"MSH|", 0.2)
