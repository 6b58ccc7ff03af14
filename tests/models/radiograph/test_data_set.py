"""Reading data sets: what pydicom reads, and nothing beyond the limits, whatever the bytes claim."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from dataclasses import replace
from io import BufferedReader, BytesIO
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from models.radiograph.bounded_source import IMAGE_LIMITS, DataSetLimitError, InvalidDataSetError, Limits
from models.radiograph.data_set import Reader, read_part_10, read_path

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LIMITS = Limits(inflated_bytes=1 << 20, elements=10_000, depth=8)
EXPLICIT = uid.ExplicitVRLittleEndian


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"SQ", b"UN", b"OB", b"OW", b"UT", b"ZZ")
    return head + (struct.pack("<HL", 0, size) if long else struct.pack("<H", size)) + value


def item(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content) if length is None else length) + content


NAME = element(0x00100010, b"PN", b"Test^One")


def read(data: bytes, limits: Limits = LIMITS, syntax: str = EXPLICIT) -> Dataset:
    return Reader(BytesIO(data), syntax, limits).read().data_set()


def nested(depth: int, *, endless: bool) -> bytes:
    inner = b""
    for _ in range(depth):
        content = item(inner)
        inner = element(0x00081140, b"SQ", content, 0xFFFFFFFF if endless else None)
        inner += struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) if endless else b""
    return inner


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "image_dfl.dcm",
        "JPEG2000.dcm",
        "rtplan.dcm",
        "reportsi.dcm",
        "UN_sequence.dcm",
        "nested_priv_SQ.dcm",
        "no_meta_group_length.dcm",
        "SC_rgb_jpeg.dcm",
    ],
)
def test_what_pydicom_reads(name: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))
    try:
        expected = dcmread(path)
    except ValueError:
        with pytest.raises(InvalidDataSetError):
            read_path(path)
        return
    found = read_path(path)

    assert str(found) == str(expected)
    assert found.file_meta == expected.file_meta


def test_without_pixels_it_stops_before_them() -> None:
    found = read_path(Path(str(get_testdata_file("CT_small.dcm", download=False))), pixels=False)
    assert found.Rows == 128
    assert "PixelData" not in found


CHARACTERS = element(0x00080005, b"CS", b"ISO_IR 192")
PIECES = (
    NAME,
    CHARACTERS,
    element(0x00020010, b"UI", b"1.2.840.10008.1.2.1"),
    element(0x00080060, b"CS", b""),
    element(0x00280010, b"US", b"\0\1"),
    element(0x00091001, b"UN", b"private"),
    element(0x00091002, b"ZZ", b"four"),
    element(0x00091003, b"??", b"four"),
    element(0x00100020, b"LO", b"ID-1", 9),
    element(0x00081140, b"SQ", item(NAME)),
    element(0x00400008, b"SQ", item(NAME) * 2, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0),
    element(0x00420011, b"OB", bytes(50)),
    element(0x7FE00010, b"OW", bytes(70)),
    struct.pack("<HHL", 0x0010, 0x0020, 4) + b"ID-1",
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=12),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
    st.integers(0, 500),
    st.sampled_from([EXPLICIT, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian]),
    st.sampled_from([None, frozenset({0x00100010, 0x00400008, 0x00420011})]),
    st.sampled_from([LIMITS, replace(LIMITS, elements=3), replace(LIMITS, value_bytes=9)]),
)
@example([NAME] * 3, [], 500, EXPLICIT, None, replace(LIMITS, elements=3))  # as many as may be
def test_what_lies_in_memory_is_read_as_a_file_is(
    pieces: list[bytes],
    damage: list[tuple[int, int]],
    end: int,
    syntax: str,
    tags: frozenset[int] | None,
    limits: Limits,
) -> None:
    data = bytearray(b"before" + b"".join(pieces))
    for where, byte in damage:
        data[where % len(data)] = byte
    data = data[: max(end, 6)]
    asked: list[list[int]] = []

    def outcome(file: BytesIO | BufferedReader) -> object:
        file.seek(6)
        reader = Reader(file, syntax, limits, tags)
        asked.append([])

        def enough(tag: int) -> bool:
            asked[-1].append(tag)
            return tag > 0x7FDFFFFF

        try:
            reader.read(enough, 0x00080060)
        except InvalidDataSetError as error:
            return str(error), reader.in_order, list(reader.elements)
        return reader.length, reader.in_order, dict(reader.elements), str(reader.data_set())

    assert outcome(BytesIO(data)) == outcome(BufferedReader(BytesIO(data)))
    assert asked[0] == asked[1]


def test_a_data_set_that_inflates_for_ever_takes_no_memory() -> None:
    bomb = deflated(element(0x00420011, b"OB", b"", 1 << 30) + bytes(300 << 20))
    tracemalloc.start()
    with pytest.raises(DataSetLimitError, match="inflates to more"):
        read(bomb, syntax=uid.DeflatedExplicitVRLittleEndian)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_length_is_not_believed_before_it_is_there() -> None:
    with pytest.raises(InvalidDataSetError, match=r"\(0042,0011\) says 4294967040 bytes where 3 are left"):
        read(NAME + element(0x00420011, b"OB", b"abc", 0xFFFFFF00))


def test_endless_nesting_is_refused_and_a_tree_that_knows_its_length_is_cut() -> None:
    with pytest.raises(DataSetLimitError, match="more than 8 deep"):
        read(nested(2000, endless=True))
    found = read(nested(40, endless=False) + NAME)
    assert found.PatientName == "Test^One"


def test_too_many_elements() -> None:
    with pytest.raises(DataSetLimitError, match="more than 10000 elements"):
        read(element(0x00080060, b"CS", b"") * 20_000)
    items = item(b"") * 20_000
    with pytest.raises(DataSetLimitError, match="more than 10000 elements"):
        read(element(0x00081140, b"SQ", items))


def test_too_slow() -> None:
    with pytest.raises(DataSetLimitError, match="takes more than"):
        read(element(0x00080060, b"CS", b"") * 5000, replace(LIMITS, seconds=-1.0))


def test_a_broken_icon_says_nothing_about_the_image() -> None:
    icon = item(element(0x00280010, b"US", b"\0\1") + element(0x00280011, b"US", b"\0\1", 4000))
    found = read(element(0x00880200, b"SQ", icon) + NAME)
    assert "IconImageSequence" not in found
    assert found.PatientName == "Test^One"


@pytest.mark.parametrize("vr", [b"ZZ", b"YY", b"??", b"  "])
def test_an_unknown_value_representation_is_passed(vr: bytes) -> None:
    found = read(element(0x00091001, vr, b"four") + NAME)
    assert found.PatientName == "Test^One"
    assert found[0x00091001].value == b"four"


def test_a_single_element_in_implicit_vr() -> None:
    found = read(NAME + struct.pack("<HHL", 0x0010, 0x0020, 4) + b"ID-1" + element(0x00100040, b"CS", b"F "))
    assert (found.PatientID, found.PatientSex) == ("ID-1", "F")


def test_pixels_that_are_cut_off_are_what_there_is() -> None:
    found = read(NAME + element(0x7FE00010, b"OW", bytes(10), 100))
    assert len(found.PixelData) == 10


def test_padding_behind_the_last_element() -> None:
    assert read(NAME + b"\0\0\0").PatientName == "Test^One"


def test_unknown_character_sets_are_read_as_the_default() -> None:
    assert read(element(0x00080005, b"CS", b"NONE\nFORGED ") + NAME).PatientName == "Test^One"


def _whole() -> bytes:
    made = Dataset()
    made.PatientName, made.Modality = "Test^One", "CR"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "x"
    outer = Dataset()
    outer.ConceptNameCodeSequence = [code, code]
    made.ContentSequence = [outer, outer]
    made.Rows, made.PixelData = 2, bytes(8)
    made["PixelData"].VR = "OW"
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, made)
    return buffer.getvalue()


WHOLE = _whole()


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6), st.sampled_from([0, 1, 2]))
def test_damaged_bytes_are_a_data_set_or_invalid(changes: list[tuple[int, int]], kind: int) -> None:
    data = bytearray(WHOLE)
    for where, byte in changes:
        data[where] = byte
    syntax = (EXPLICIT, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian)[kind]
    encoded = deflated(bytes(data)) if kind == 2 else bytes(data)
    try:
        found = read(encoded, syntax=syntax)
    except InvalidDataSetError:
        return
    assert isinstance(found, Dataset)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_file_is_one_or_invalid(data: bytes) -> None:
    for whole in (data, bytes(128) + b"DICM" + data):
        try:
            read_part_10(BytesIO(whole), IMAGE_LIMITS)
        except InvalidDataSetError:
            continue
