"""Objects as bytes: those of pydicom, whatever is in them, and of our own objects without its repeated work."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.workers.results.sources import source
from tests.workers.results.test_objects import ANALYSES, SOURCES, everything
from workers.results import file_bytes as module
from workers.results.file_bytes import file_bytes

UMLAUTS = "Thorax-\N{LATIN CAPITAL LETTER U WITH DIAERESIS}bersicht"


def by_pydicom(dataset: Dataset) -> bytes:
    plain = BytesIO()
    dcmwrite(plain, deepcopy(dataset), enforce_file_format=True)
    return plain.getvalue()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Callable[[Dataset], bytes]:
    """``file_bytes``, which fails where it leaves an element of the data set to ``dcmwrite``."""
    write = module._as_pydicom_writes

    def only_the_head(dataset: Dataset) -> bytes:
        assert not len(dataset), "left to dcmwrite"
        return write(dataset)

    monkeypatch.setattr(module, "_as_pydicom_writes", only_the_head)
    return file_bytes


@pytest.mark.parametrize("oddity", SOURCES)
def test_every_kind_from_every_source(oddity: str, fast: Callable[[Dataset], bytes]) -> None:
    for kind, made in everything(source("sc", **SOURCES[oddity])).items():
        expected = by_pydicom(made)
        assert fast(made) == expected, kind


@pytest.mark.parametrize("findings", ["boxes", "negative", "two masks"])
@pytest.mark.parametrize("storage", ["comprehensive", "comprehensive-3d"])
def test_every_analysis(findings: str, storage: str, fast: Callable[[Dataset], bytes]) -> None:
    for kind, made in everything(source("dx"), ANALYSES[findings], sr_storage=storage).items():
        expected = by_pydicom(made)
        assert fast(made) == expected, kind


def part10(**values: Any) -> Dataset:
    """A data set with file meta information, as our encoders make it."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.preamble = b"\0" * 128
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.88.34")
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID("2.25.17")
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def item(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def all_representations() -> Dataset:
    """An element of every value representation, of one value, of several and of none."""
    made = part10(SpecificCharacterSet="ISO_IR 192")
    values: dict[str, list[Any]] = {
        "AE": ["PLEURA", ["A", "BC"]],
        "AS": ["065Y"],
        "AT": [0x00080018, [0x00080018, 0x0020000D]],
        "CS": ["CHEST", ["L", "F"], []],
        "DA": ["20260301", ""],
        "DS": ["0.140", ["1", "-2.50", "3e4"], 0.25],
        "DT": ["20260301101500.25"],
        "FD": [0.125, [1.0, -2.0]],
        "FL": [0.5, [1.0, 2.0, 3.0]],
        "IS": ["0017", ["1", "2"]],
        "LO": [UMLAUTS, [UMLAUTS, "b"], b"\xff\xfe!", None],
        "LT": ["several\r\nlines " + UMLAUTS],
        "OB": [b"123"],
        "OD": [b"12345678"],
        "OF": [b"1234"],
        "OL": [b"1234"],
        "OV": [b"12345678"],
        "OW": [b"1234"],
        "PN": ["Doe^Jane", ["Doe^A", UMLAUTS], ""],
        "SH": ["17"],
        "SL": [-5],
        "SQ": [[], [Dataset()], [item(SeriesDescription=UMLAUTS), item(PatientID="1")]],
        "SS": [-3],
        "ST": [UMLAUTS],
        "SV": [-(2**40)],
        "TM": ["101500.5"],
        "UC": [UMLAUTS * 9],
        "UI": ["1.2.3", ["1.2.3", "1.2.34"]],
        "UL": [70000],
        "UN": [b"odd"],
        "UR": ["https://pacs.example/1"],
        "US": [7, [1, 2, 3]],
        "UT": ["long " * 20000],
        "UV": [2**40],
    }
    number = 0
    for representation, cases in values.items():
        for value in cases:
            number += 1
            made.add(DataElement((0x0099, 0x1000 + number), representation, value))
    return made


def test_every_value_representation(fast: Callable[[Dataset], bytes]) -> None:
    made = all_representations()
    expected = by_pydicom(made)
    assert fast(made) == expected
    assert len(dcmread(BytesIO(expected))) == len(made)


def test_a_pixel_array_whose_representation_follows_from_its_bits(fast: Callable[[Dataset], bytes]) -> None:
    made = part10(Rows=4, Columns=4, SamplesPerPixel=1, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    made.PixelData = np.arange(16, dtype=np.uint8).tobytes()
    expected = by_pydicom(made)
    assert fast(made) == expected


def test_sequences_and_items_that_were_received_with_undefined_lengths(fast: Callable[[Dataset], bytes]) -> None:
    inner = item(CodeValue="113724", CodeMeaning=UMLAUTS)
    inner.is_undefined_length_sequence_item = True
    made = part10(SpecificCharacterSet="ISO_IR 100", ProcedureCodeSequence=[inner, item(CodeValue="2")])
    made["ProcedureCodeSequence"].is_undefined_length = True
    expected = by_pydicom(made)
    assert fast(made) == expected


def unusual() -> dict[str, Dataset]:
    """What ``dcmwrite`` decides about, by a name."""
    read = BytesIO()
    by_name = {
        "an ambiguous element in an item": part10(
            PixelRepresentation=1, ReferencedSeriesSequence=[item(SmallestImagePixelValue=3, PixelRepresentation=0)]
        ),
        "an item with a character set of its own": part10(
            SpecificCharacterSet="ISO_IR 100",
            ProcedureCodeSequence=[item(SpecificCharacterSet="ISO_IR 192", CodeMeaning=UMLAUTS)],
        ),
        "a group length": part10(**{"PatientID": "1"}),
        "another instance than its file meta says": part10(SOPInstanceUID="2.25.18"),
        "another transfer syntax": part10(PatientID="1"),
    }
    by_name["a group length"].add(DataElement(0x00200000, "UL", 10))
    by_name["another transfer syntax"].file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dcmwrite(read, part10(PatientName="Doe^Jane", ProcedureCodeSequence=[item(CodeValue="1")]))
    read.seek(0)
    by_name["what was read and never looked at"] = dcmread(read)
    return by_name


@pytest.mark.parametrize("name", unusual())
def test_what_is_unusual_is_written_by_pydicom(name: str) -> None:
    expected = by_pydicom(unusual()[name])
    assert file_bytes(unusual()[name]) == expected


def test_a_data_set_without_a_preamble_gets_one() -> None:
    made = part10(PatientID="1")
    expected = by_pydicom(made)
    del made.preamble
    assert file_bytes(made) == expected


def test_a_text_that_is_too_long_for_its_representation_is_written_by_pydicom() -> None:
    made = part10(StudyDescription="x" * 70000)
    with pytest.warns(UserWarning, match="exceeds the size of 64 kByte"):
        expected = by_pydicom(made)
    with pytest.warns(UserWarning, match="exceeds the size of 64 kByte"):
        assert file_bytes(made) == expected
