"""Reading headers: every transfer syntax, hostile bytes, bounded memory."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, uid
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.dicom.received_header import KEYWORDS, UnreadableDataSetError, describe, is_stat, read_header, text
from tests.node.dicom.listening import chest

pytestmark = pytest.mark.filterwarnings(
    "ignore:Invalid value for VR", "ignore:.*escape", "ignore:.*encoding", "ignore:The value length"
)


def encoded(image: Dataset, syntax: uid.UID = uid.ExplicitVRLittleEndian) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = syntax != uid.ExplicitVRBigEndian
    buffer.is_implicit_VR = syntax == uid.ImplicitVRLittleEndian
    write_dataset(buffer, image)
    plain = buffer.getvalue()
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflater.compress(plain) + deflater.flush()
    return plain


def stored(folder: Path, data: bytes, preface: bytes = b"123") -> tuple[Path, int]:
    path = folder / "file"
    path.write_bytes(preface + data)
    return path, len(preface)


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.JPEGBaseline8Bit,
    ],
)
def test_uncompressed_and_deflated_headers(tmp_path: Path, syntax: uid.UID) -> None:
    image = chest(SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Jörg")
    path, offset = stored(tmp_path, encoded(image, syntax))
    header = read_header(path, syntax, offset)

    assert text(header, "PatientName") == "Müller^Jörg"
    assert text(header, "SOPInstanceUID") == image.SOPInstanceUID
    assert header.Rows == 512
    assert "PixelData" not in header


def test_a_record_of_what_was_received(tmp_path: Path) -> None:
    image = chest(StudyDescription="CHEST PA", AccessionNumber="A1")
    path, offset = stored(tmp_path, encoded(image))
    record = describe(
        read_header(path, uid.ExplicitVRLittleEndian, offset),
        transfer_syntax=uid.ExplicitVRLittleEndian,
        digest="d" * 64,
        path="instances/dd/d.dcm",
        byte_count=17,
        calling_ae_title="SCU",
        stat=True,
    )

    assert record.sop_instance_uid == image.SOPInstanceUID
    assert record.study_description == "CHEST PA"
    assert record.accession_number == "A1"
    assert (record.modality, record.body_part, record.view) == ("CR", "CHEST", "PA")
    assert (record.byte_count, record.calling_ae_title, record.stat) == (17, "SCU", True)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_a_backslash_in_a_text_stays_one(tmp_path: Path, syntax: uid.UID) -> None:
    image = chest(StudyDescription="CHEST PA\\LAT", AccessionNumber="B100\\B101", PatientID="P\\1", ViewPosition="PA")
    path, offset = stored(tmp_path, encoded(image, syntax))
    header = read_header(path, syntax, offset)

    assert text(header, "StudyDescription") == "CHEST PA\\LAT"
    assert text(header, "AccessionNumber") == "B100\\B101"
    assert text(header, "PatientID") == "P\\1"


@pytest.mark.parametrize("missing", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_identity_is_needed(tmp_path: Path, missing: str) -> None:
    path, offset = stored(tmp_path, encoded(chest(**{missing: None})))

    with pytest.raises(UnreadableDataSetError, match=missing):
        read_header(path, uid.ExplicitVRLittleEndian, offset)


@pytest.mark.parametrize("value", ["../../etc/passwd", "1.2.3/4", "1.2.x", "1" * 65, "1.2 3"])
def test_a_uid_is_digits_and_dots(tmp_path: Path, value: str) -> None:
    image = chest(SOPInstanceUID=None)
    image.add_new(0x00080018, "LO", value)
    path, offset = stored(tmp_path, encoded(image, uid.ImplicitVRLittleEndian))

    with pytest.raises(UnreadableDataSetError):
        read_header(path, uid.ImplicitVRLittleEndian, offset)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.JPEG2000])
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.binary(max_size=400))
def test_random_bytes_are_unreadable_and_nothing_else(tmp_path: Path, syntax: uid.UID, data: bytes) -> None:
    path, offset = stored(tmp_path, data)

    with pytest.raises(UnreadableDataSetError):
        read_header(path, syntax, offset)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(where=st.integers(0, 500), byte=st.integers(0, 255), length=st.integers(0, 900))
def test_damaged_headers_are_read_or_unreadable(tmp_path: Path, where: int, byte: int, length: int) -> None:
    image = chest()
    del image.PixelData
    data = bytearray(encoded(image))
    data[where % len(data)] = byte
    path, offset = stored(tmp_path, bytes(data[:length]))
    try:
        header = read_header(path, uid.ExplicitVRLittleEndian, offset)
    except UnreadableDataSetError:
        return
    for keyword in ("PatientName", "PatientID", "StudyDescription", "ViewPosition"):
        assert text(header, keyword).isprintable()


def test_text_that_no_database_takes(tmp_path: Path) -> None:
    image = chest()
    image.add_new(0x00100020, "LO", "A\0B\x1bC" + "x" * 1000)
    path, offset = stored(tmp_path, encoded(image))
    patient_id = text(read_header(path, uid.ExplicitVRLittleEndian, offset), "PatientID")

    assert patient_id.startswith("A B C")
    assert len(patient_id) == 256


def test_a_huge_value_and_a_deflate_bomb_stay_out_of_memory(tmp_path: Path) -> None:
    huge = 200 * 1024 * 1024
    image = chest()
    front = Dataset()
    front.SOPClassUID = image.SOPClassUID
    bomb = encoded(front) + struct.pack("<HH2sHI", 0x0008, 0x0018, b"UN", 0, huge)
    path, offset = stored(tmp_path, bomb)
    with path.open("r+b") as file:
        file.truncate(offset + len(bomb) + huge)
    deflated = tmp_path / "deflated"
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    with deflated.open("wb") as file:
        file.write(deflater.compress(bomb))
        for _ in range(200):
            file.write(deflater.compress(bytes(1024 * 1024)))
        file.write(deflater.flush())

    tracemalloc.start()
    with pytest.raises(UnreadableDataSetError):
        read_header(path, uid.ExplicitVRLittleEndian, offset)
    with pytest.raises(UnreadableDataSetError):
        read_header(deflated, uid.DeflatedExplicitVRLittleEndian, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 24 * 1024 * 1024


@pytest.mark.parametrize(
    ("description", "peer", "high", "expected"),
    [
        ("CHEST PA", False, False, False),
        ("CHEST STAT", False, False, True),
        ("status post", False, False, False),
        ("chest stat portable", False, False, True),
        ("CHEST PA", True, False, True),
        ("CHEST PA", False, True, True),
    ],
)
def test_stat(description: str, peer: bool, high: bool, expected: bool) -> None:
    assert is_stat(description, (r"\bSTAT\b",), from_stat_peer=peer, high_priority=high) is expected


@pytest.mark.peer("shared-data")
def test_same_values_as_a_full_read(shared_data: Path) -> None:
    for path in [*(shared_data / "dicom").glob("*.dcm"), *(shared_data / "wg04").glob("*.dcm")]:
        whole = dcmread(path)
        offset = 132 + 12 + whole.file_meta.FileMetaInformationGroupLength
        header = read_header(path, whole.file_meta.TransferSyntaxUID, offset)
        for element in header:
            assert element.value == whole[element.tag].value, element.keyword


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.JPEGBaseline8Bit]
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.integers(0, 3000))
def test_the_beginning_tells_what_the_file_tells_wherever_it_ends(tmp_path: Path, syntax: uid.UID, end: int) -> None:
    view = Dataset()
    view.CodeValue = "399348003"
    image = chest(
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Müller^Jörg",
        PatientID=" padded ",
        ImageType=["DERIVED", "PRIMARY"],
        StudyDescription="a=b",
        NumberOfFrames="1",
        ViewCodeSequence=[view],
    )
    data = encoded(image, syntax)
    path, offset = stored(tmp_path, data)

    fast = read_header(path, syntax, offset, data[:end])

    slow = Dataset(fast)
    for keyword in KEYWORDS:
        assert fast.get(keyword) == slow.get(keyword), keyword
        assert text(fast, keyword) == text(slow, keyword) == text(image, keyword), keyword
    assert fast.get("NoSuchKeyword", 7) == 7


def test_a_header_is_a_data_set_whatever_was_asked_first(tmp_path: Path) -> None:
    data = encoded(chest(ImageType=["ORIGINAL", "PRIMARY"]))

    def header() -> Dataset:
        return read_header(tmp_path / "none", uid.ExplicitVRLittleEndian, 0, data[:2000])

    assert list(header().get("ImageType")) == ["ORIGINAL", "PRIMARY"]
    assert "Rows" in header()
    assert header().Rows == 512
    assert header()["Rows"].value == 512
    assert len(header()) == len(list(header()))
    with pytest.raises(AttributeError, match="NoSuchKeyword"):
        _ = header().NoSuchKeyword


def test_a_whole_header_at_the_beginning_needs_no_file(tmp_path: Path) -> None:
    data = encoded(chest())
    header = read_header(tmp_path / "none", uid.ExplicitVRLittleEndian, 0, data[:2000])
    assert header.get("Rows") == 512


def test_a_header_that_is_cut_off_is_read_from_the_file(tmp_path: Path) -> None:
    data = encoded(chest())
    with pytest.raises(UnreadableDataSetError):
        read_header(tmp_path / "none", uid.ExplicitVRLittleEndian, 0, data[:100])
