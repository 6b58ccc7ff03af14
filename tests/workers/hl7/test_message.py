"""Messages are read as they were meant, in other delimiters and character sets too, and written for others to read."""

from __future__ import annotations

import contextlib
from typing import get_args

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.hl7 import CharacterSet
from workers.hl7.encoding import CODECS, Delimiters, codec_of, escape, stripped, unescape
from workers.hl7.message import MessageError, composed, read_header, read_message, write_message

USUAL = Delimiters()
OTHER = Delimiters("$", "!", "%", "?", "#")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(text=TEXT, delimiters=st.sampled_from([USUAL, OTHER]))
def test_what_is_escaped_comes_back(text: str, delimiters: Delimiters) -> None:
    written = escape(text, delimiters)
    marks = {delimiters.field, delimiters.component, delimiters.repetition, delimiters.subcomponent}
    assert not marks & set(written)
    assert not any(ord(character) < 0x20 for character in written)
    assert unescape(written, delimiters) == text


@given(text=TEXT)
def test_unescaping_never_fails(text: str) -> None:
    assert len(unescape(text, USUAL)) <= 100 * max(len(text), 1)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"a\F\b\S\c\T\d\R\e\E\f", r"a|b^c&d~e\f"),
        (r"M\X76\ller", "Mvller"),
        (r"M\XC3BC\ller", "Müller"),
        (r"one\.br\two", "one\ntwo"),
        (r"one\.sp2\two", "one\n\ntwo"),
        (r"\H\loud\N\ ", "loud "),
        (r"\Zlocal\ stays", r"\Zlocal\ stays"),
        (r"no end \T", r"no end \T"),
        (r"odd \Xzz\ stays", r"odd \Xzz\ stays"),
        (r"\.sp99999999999\ ", "\n" * 100 + " "),
    ],
)
def test_sequences(written: str, read: str) -> None:
    assert unescape(written, USUAL) == read


def message(*lines: str) -> bytes:
    return "".join(f"{line}\r" for line in lines).encode()


HEADER = r"MSH|^~\&|RIS|HOSPITAL|PLEURA|NODE|20260301030000||ORU^R01^ORU_R01|M1|P|2.5.1"


def test_values_are_asked_for_by_number() -> None:
    read = read_message(message(HEADER, r"PID|1||P1^^^NORTH&1.2.3&ISO^MR~77^^^SOUTH|| Doe^Jane\T\Ann |||F"))
    assert read.kind == "ORU^R01"
    assert read.header.text(1) == "|"
    pid = read.first("PID")
    assert pid is not None
    assert pid.text(3) == "P1"
    assert (pid.text(3, 4), pid.text(3, 4, 2)) == ("NORTH", "1.2.3")
    assert [pid.part(one, 4) for one in pid.repetitions(3)] == ["NORTH", "SOUTH"]
    assert (pid.text(5), pid.text(5, 2)) == ("Doe", "Jane&Ann")
    assert pid.text(9) == pid.text(99) == pid.text(5, 9) == ""


def test_a_null_is_no_value() -> None:
    read = read_message(message(HEADER, 'PID|1||""||""^""'))
    pid = read.first("PID")
    assert pid is not None
    assert (pid.text(3), pid.text(5), pid.text(5, 2)) == ("", "", "")


def test_other_delimiters() -> None:
    read = read_message(b"MSH$!%?#$RIS$H$$$2026$$ADT!A08$M1$P$2.5\rPID$1$$P1!!!N#1%P2$$Doe?S?x!Jane\r")
    pid = read.first("PID")
    assert pid is not None
    assert read.kind == "ADT^A08"
    assert [pid.part(one) for one in pid.repetitions(3)] == ["P1", "P2"]
    assert pid.text(3, 4, 2) == "1"
    assert pid.text(5) == "Doe!x"


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("UNICODE UTF-8", "utf-8"),
        ("8859/1", "latin-1"),
        ("8859/15", "iso8859-15"),
        ("8859/2", "iso8859-2"),
    ],
)
def test_character_sets(name: str, codec: str) -> None:
    raw = f"{HEADER}||||||{name}\rPID|1||P1||Müller\r".encode(codec)
    pid = read_message(raw).first("PID")
    assert pid is not None
    assert pid.text(5) == "Müller"


@pytest.mark.parametrize(
    ("name", "codec", "text"),
    [
        ("UTF8", "utf-8", "Müller"),
        ("utf-8", "utf-8", "Müller"),
        ("UNICODE", "utf-8", "Müller"),
        ("ISO_IR 192", "utf-8", "Müller"),
        ("8859-1", "latin-1", "Müller"),
        ("ISO-8859-1", "latin-1", "Müller"),
        ("iso8859/1", "latin-1", "Müller"),
        ("ISO_IR 100", "latin-1", "Müller"),
        ("Latin1", "latin-1", "Müller"),
        ("ISO8859-15", "iso8859-15", "Müller €"),
        ("Windows-1252", "cp1252", "Müller €"),
        ("CP1252", "cp1252", "Müller €"),
        ("windows1250", "cp1250", "Łódź"),
        ("WINDOWS-1251", "cp1251", "Иванов"),
        ("ISO_IR 144", "iso8859-5", "Иванов"),
        ("GB18030", "gb18030", "张伟"),
        ("GBK", "gbk", "张伟"),
        ("EUC-KR", "euc_kr", "김철수"),
        ("Shift_JIS", "shift_jis", "山田"),
        ("IBM850", "cp850", "Müller"),
    ],
)
def test_character_sets_as_senders_write_them(name: str, codec: str, text: str) -> None:
    raw = f"{HEADER}||||||{name}\rPID|1||P1||{text}\r".encode(codec)
    read = read_message(raw)
    pid = read.first("PID")
    assert pid is not None
    assert pid.text(5) == text
    assert read.unreadable == ()


def test_a_site_says_what_its_own_name_means() -> None:
    raw = f"{HEADER}||||||HOUSE SET\rPID|1||P1||Müller\r".encode("cp1252")
    with pytest.raises(MessageError):
        read_message(raw)
    pid = read_message(raw, character_sets={"house-set": "WINDOWS-1252"}).first("PID")
    assert pid is not None
    assert pid.text(5) == "Müller"


def test_every_character_set_of_the_settings_is_known() -> None:
    assert set(get_args(CharacterSet)) == set(CODECS)
    assert all(codec_of(name) == codec for name, codec in CODECS.items())


@pytest.mark.parametrize(
    ("name", "bad"), [("UNICODE UTF-8", b"\xfc"), ("ASCII", b"\xfc"), ("Windows-1252", b"\x81"), ("ISO IR87", b"\xfc")]
)
def test_a_bad_byte_spoils_its_field_and_no_other(name: str, bad: bytes) -> None:
    raw = HEADER.encode() + f"||||||{name}".encode() + b"\rPID|1||P1||Doe^Jane||||||Stra" + bad + b"e 1\rOBR|1|PL-1\r"
    read = read_message(raw)
    assert read.unreadable == ("PID-11",)
    pid, obr = read.first("PID"), read.first("OBR")
    assert pid is not None
    assert obr is not None
    assert (pid.text(3), pid.text(5, 2), obr.text(2)) == ("P1", "Jane", "PL-1")


def test_a_byte_order_mark_is_read_and_says_utf_8() -> None:
    raw = b"\xef\xbb\xbf" + f"{HEADER}\rPID|1||P1||Müller\r".encode()
    read = read_message(raw)
    pid = read.first("PID")
    assert read.header.text(10) == "M1"
    assert pid is not None
    assert pid.text(5) == "Müller"


def test_japanese_switches_sets_in_the_middle() -> None:
    raw = f"{HEADER}||||||~ISO IR87\rPID|1||P1||山田^太郎\r".encode("iso2022_jp")
    pid = read_message(raw).first("PID")
    assert pid is not None
    assert (pid.text(5), pid.text(5, 2)) == ("山田", "太郎")


def test_an_empty_character_set_is_the_configured_one() -> None:
    raw = f"{HEADER}\rPID|1||P1||Müller\r"
    for name, codec in (("8859/1", "latin-1"), ("UNICODE UTF-8", "utf-8")):
        pid = read_message(raw.encode(codec), name).first("PID")
        assert pid is not None
        assert pid.text(5) == "Müller"


@pytest.mark.parametrize("ending", ["\r", "\r\n", "\n"])
def test_line_ends_that_senders_write(ending: str) -> None:
    read = read_message(f"{HEADER}{ending}PID|1||P1{ending}".encode())
    assert [segment.name for segment in read.segments] == ["MSH", "PID"]


@pytest.mark.parametrize(
    ("raw", "code", "reject"),
    [
        (b"", "100", True),
        (b"PID|1", "100", True),
        (b"MSH", "100", True),
        (b"MSH||||||||||", "102", True),
        (rb"MSH|^^\&|RIS||||||ORU^R01|1|P|2.5", "102", True),
        (rb"MSH|abcd|RIS||||||ORU^R01|1|P|2.5", "102", True),
        (HEADER.encode() + b"||||||KLINGON\r", "103", True),
        (HEADER.encode() + b"\rDoe Jane was here\r", "100", False),
    ],
)
def test_what_cannot_be_read_says_why_and_quotes_nothing(raw: bytes, code: str, reject: bool) -> None:
    with pytest.raises(MessageError) as caught:
        read_message(raw)
    assert (caught.value.code, caught.value.reject) == (code, reject)
    assert "Doe" not in str(caught.value)


@given(raw=st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"MSH|^~\\&|" + tail))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for read in (read_header, read_message):
        with contextlib.suppress(MessageError):
            read(raw)


@given(values=st.lists(TEXT.map(stripped), min_size=1, max_size=5))
def test_what_is_written_is_read_back_here_and_by_python_hl7(values: list[str]) -> None:
    written = write_message(
        [("MSH", "A", "B", "C", "D", "2026", "", "ORU^R01", "1", "P", "2.5"), ("NTE", "1", composed(*values))]
    )
    ours = read_message(written.encode(), "UNICODE UTF-8").first("NTE")
    assert ours is not None
    expected = [*values]
    while expected and not expected[-1]:
        expected.pop()
    assert [ours.text(2, number) for number in range(1, len(expected) + 1)] == expected
    theirs = hl7.parse(written)
    assert str(theirs) == written


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\0", ""),
        ("4711\0\0", "4711"),
        (" \0 4711 \0 ", "4711"),
        ("47\0" + "11", "47 11"),
        (r"47\X00\11", "47 11"),
    ],
)
def test_a_nul_is_padding_at_the_end_and_never_makes_one_value_of_another(written: str, read: str) -> None:
    segment = read_message(message(r"MSH|^~\&|A|B|C|D|2026||ADT^A08|1|P|2.5", f"PID|1||{written}^^^B")).first("PID")
    assert segment is not None
    assert segment.text(3) == read


def test_an_encoded_value_is_no_null_and_no_more_than_one_field() -> None:
    line = write_message([("NTE", "1", composed("a|b^c", "d"))])
    assert line == "NTE|1|a\\F\\b\\S\\c^d\r"
