"""Whether two files under one SOP Instance UID are the same object, on files in the encodings in which they arrive."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, Sequence, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests.workers.harness import radiograph
from workers.repeated_instances import difference

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(name: str, dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
        made = deepcopy(dataset)
        made.file_meta.TransferSyntaxUID = UID(syntax)
        if syntax == RLELossless:
            made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            made.compress(RLELossless, encoding_plugin="pydicom")
        if syntax == ExplicitVRBigEndian:  # pydicom writes pixel data as it is
            made.PixelData = np.frombuffer(made.PixelData, np.uint16).byteswap().tobytes()
        path = tmp_path / name
        implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
        dcmwrite(path, made, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
        return path

    return _write


def image(**changes: Any) -> Dataset:
    made = radiograph("1.2.826.0.1.77")
    made["PixelData"].VR = "OW"
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    return made


def encoded(syntax: str) -> Dataset:
    made = image()
    pixels = np.frombuffer(made.PixelData, np.uint16).reshape(made.Rows, made.Columns)
    if syntax == JPEG2000Lossless:
        frame = imagecodecs.jpeg2k_encode(pixels, reversible=True, codecformat="j2k", bitspersample=12)
    elif syntax == JPEGLSLossless:
        frame = imagecodecs.jpegls_encode(pixels)
    else:
        frame = imagecodecs.jpeg8_encode((pixels >> 4).astype(np.uint8), level=60)
        made.BitsAllocated = made.BitsStored = 8
        made.HighBit = 7
    made.PixelData = encapsulate([bytes(frame)])
    made["PixelData"].VR = "OB"
    return made


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_the_same_image_in_another_native_or_run_length_encoding_is_a_repeat(write: Write, syntax: str) -> None:
    first, second = write("a", image()), write("b", image(), syntax)
    assert first.read_bytes() != second.read_bytes()
    assert difference(first, second) == difference(second, first) == ""


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_the_same_image_losslessly_compressed_is_a_repeat(write: Write, syntax: str) -> None:
    assert difference(write("a", image()), write("b", encoded(syntax), syntax)) == ""


def test_a_lossy_copy_is_another_image(write: Write) -> None:
    assert difference(write("a", image()), write("b", encoded(JPEGBaseline8Bit), JPEGBaseline8Bit)) != ""


@pytest.mark.parametrize(
    "additions",
    [
        {"RetrieveAETitle": "ARCHIVE", "InstanceAvailability": "ONLINE", "RetrieveURL": "http://archive/1"},
        {"IssuerOfPatientID": "HOSPITAL", "PatientBirthDate": "19600101", "PatientSex": "M", "AccessionNumber": "A1"},
        {"StudyDescription": "CHEST PA", "InstitutionName": "General"},
        {"PatientName": "TEST^PAT^^", "PatientID": "P1 ", "PixelSpacing": ["0.200", "0.20"]},
        {"SpecificCharacterSet": "ISO_IR 192"},
    ],
    ids=["router", "filled in", "descriptions", "spelling", "character set"],
)
def test_what_is_added_on_the_way_makes_no_other_image(write: Write, additions: dict[str, Any]) -> None:
    assert difference(write("a", image()), write("b", image(**additions), ImplicitVRLittleEndian)) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientID": "P2"}, "PatientID"),
        ({"PatientID": ""}, "PatientID"),
        ({"PatientName": "Other^Pat"}, "PatientName"),
        ({"StudyInstanceUID": "1.2.3"}, "StudyInstanceUID"),
        ({"SeriesInstanceUID": "1.2.3"}, "SeriesInstanceUID"),
        ({"PatientOrientation": ["R", "F"]}, "PatientOrientation"),
        ({"ViewPosition": "LL"}, "ViewPosition"),
        ({"PixelSpacing": ["0.4", "0.4"]}, "PixelSpacing"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "PhotometricInterpretation"),
    ],
)
def test_another_identity_or_meaning_is_another_instance(write: Write, changes: dict[str, Any], reason: str) -> None:
    found = difference(write("a", image()), write("b", image(**changes)))
    assert found == f"other {reason}", "which attributes, never their values"


def test_one_other_pixel_is_another_image(write: Write) -> None:
    pixels = bytearray(image().PixelData)
    pixels[4000] ^= 1
    assert difference(write("a", image()), write("b", image(PixelData=bytes(pixels)))) == "other pixels"


def test_pixels_that_cannot_be_decoded_are_the_same_only_where_their_bytes_are(write: Write) -> None:
    broken = encoded(JPEG2000Lossless)
    broken.PixelData = encapsulate([b"no code stream"])
    first = write("a", broken, JPEG2000Lossless)
    broken.RetrieveAETitle = "ARCHIVE"
    assert difference(first, write("b", broken, JPEG2000Lossless)) == ""
    assert "cannot be compared" in difference(first, write("c", image()))


def test_a_file_that_retention_has_removed_is_no_witness(write: Write, tmp_path: Path) -> None:
    assert "removed" in difference(tmp_path / "gone", write("b", image()))


def report(**changes: Any) -> Dataset:
    made = image(SOPClassUID=BasicTextSRStorage, Modality="SR", CompletionFlag="PARTIAL", **changes)
    for name in ("PixelData", "Rows", "Columns"):
        delattr(made, name)
    item = Dataset()
    item.ValueType, item.TextValue = "TEXT", changes.get("ImageComments", "normal")
    made.ContentSequence = Sequence([item])
    return made


def test_a_report_is_compared_by_its_content(write: Write) -> None:
    first = write("a", report())
    assert difference(first, write("b", report(RetrieveAETitle="ARCHIVE"), ImplicitVRLittleEndian)) == ""
    finished = report()
    finished.CompletionFlag = "COMPLETE"
    assert difference(first, write("c", finished)) == "other content of CompletionFlag"
    other = report()
    other.ContentSequence[0].TextValue = "pneumothorax"
    assert difference(first, write("d", other)) == "other content of ContentSequence"
    shorter = report()
    del shorter.CompletionFlag
    assert difference(first, write("e", shorter)) == "other content of CompletionFlag"
