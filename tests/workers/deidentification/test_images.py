"""Which pixels leave, and that nothing hides in them."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
)

from models.radiograph.decode import decode
from tests.workers.deidentification.samples import SUBJECT, deidentifier, image, written
from workers.deidentification.images import NotExportable, read_image
from workers.deidentification.profile import Done
from workers.deidentification.study import IMAGE, Original, deidentify_object, words_of


def _compressed(made: Dataset, syntax: str, stream: bytes | bytearray) -> Dataset:
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.PixelData = encapsulate([bytes(stream)])
    made["PixelData"].is_undefined_length = True
    return made


def _with_comment(made: Dataset) -> Dataset:
    pixels = np.frombuffer(made.PixelData, np.uint16).reshape(made.Rows, made.Columns)
    stream = imagecodecs.ljpeg_encode(pixels, bitspersample=12)
    comment = b"\xff\xfe" + (2 + 10).to_bytes(2, "big") + b"Test^Pat  "
    return _compressed(made, JPEGLosslessSV1, stream[:2] + comment + stream[2:])


def _jpeg_2000(made: Dataset) -> Dataset:
    pixels = np.frombuffer(made.PixelData, np.uint16).reshape(made.Rows, made.Columns)
    stream = imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", bitspersample=12, level=0)
    return _compressed(made, JPEG2000Lossless, stream)


def _with_overlay_bits(made: Dataset) -> Dataset:
    pixels = np.frombuffer(made.PixelData, np.uint16) | 0x8000
    made.PixelData = pixels.tobytes()
    made.add_new(0x60000102, "US", 15)
    return made


def _with_trailer(made: Dataset) -> Dataset:
    made.PixelData += b"Test^Pat"
    return made


def _negative(made: Dataset) -> Dataset:
    made.PixelRepresentation = 1
    made.PixelData = (np.frombuffer(made.PixelData, np.uint16).astype(np.int16) - 2048).tobytes()
    return made


@pytest.mark.parametrize("oddity", [_with_comment, _jpeg_2000, _with_overlay_bits, _with_trailer, _negative])
def test_the_values_stay_and_nothing_else_of_the_pixel_data_does(
    tmp_path: Path, oddity: Callable[[Dataset], Dataset]
) -> None:
    path = written(oddity(image()), tmp_path / "a.dcm")
    expected = decode(path).values()
    made, _ = read_image(path, "radiographs")
    dtype = np.int16 if made.PixelRepresentation else np.uint16
    assert (np.frombuffer(made.PixelData, dtype).reshape(expected.shape) == expected).all()
    assert (made.BitsAllocated, made.BitsStored, made.HighBit) == (16, 12, 11)
    assert b"Test" not in made.PixelData


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"BurnedInAnnotation": "YES"}, "Burned In Annotation"),
        ({"BurnedInAnnotation": "PERHAPS"}, "Burned In Annotation"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "not a radiograph"),
        ({"ConversionType": "DF"}, "scanned"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "derived"),
        ({"BurnedInAnnotation": None, "ImageType": None}, "does not say"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "in colour"),
        ({"PixelData": b"\0\0"}, "cannot be read"),
        ({"PixelData": None}, "cannot be read"),
    ],
)
def test_what_may_show_a_name_stays_here(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NotExportable, match=message):
        read_image(written(image(**changes), tmp_path / "a.dcm"), "radiographs")


def test_a_radiograph_that_says_nothing_leaves_if_the_site_wants_it(tmp_path: Path) -> None:
    silent = image(SOPClassUID=DigitalXRayImageStorageForPresentation, BurnedInAnnotation=None)
    path = written(silent, tmp_path / "a.dcm")
    assert read_image(path, "radiographs")[0].Rows == 64
    with pytest.raises(NotExportable, match="does not say"):
        read_image(path, "refuse")


def test_a_file_that_is_no_image_stays_here(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"Test^Pat" * 100)
    with pytest.raises(NotExportable):
        read_image(path, "radiographs")


def test_what_the_header_says_wrongly_is_not_passed_on(tmp_path: Path) -> None:
    odd = image()
    odd.add_new(0x00181150, "LO", "Test^Pat")  # Exposure Time, whose value representation is IS
    odd.add_new(0x00090010, "LO", "Test^Pat")
    made, left_out = read_image(written(odd, tmp_path / "a.dcm"), "radiographs")
    assert "ExposureTime" not in made
    assert left_out == {("ExposureTime", Done.REMOVED): 1, ("private", Done.REMOVED): 1}


def _raw(tag: int, vr: str, value: bytes) -> bytes:
    """An element in Explicit VR Little Endian (PS3.5 7.1.2)."""
    long = vr in ("OB", "OD", "OF", "OL", "OV", "OW", "SV", "UC", "UN", "UR", "UT", "UV")
    length = b"\0\0" + len(value).to_bytes(4, "little") if long else len(value).to_bytes(2, "little")
    return (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode() + length + value


# Binary numbers, tags and sequences are no text.
_NUMBERS = {"AT", "FD", "FL", "NONE", "SL", "SQ", "SS", "SV", "UL", "US", "UV"}


def test_no_text_survives_in_an_attribute_of_any_kind(tmp_path: Path) -> None:
    """Numbers, dates, ages and codes are text in a file, and a device may write what it likes."""
    path = written(image(), tmp_path / "a.dcm")
    content = path.read_bytes()
    pixels = content.index(_raw(0x7FE00010, "OW", b"")[:6])
    # With a Conversion Type the image would stay.
    needed = {element.tag for element in image(ConversionType="DI")}
    kinds = {
        tag: vr.split(" ")[0]
        for tag, (vr, *_, keyword) in DicomDictionary.items()
        if 0x00080000 <= tag < 0x7FE00000 and keyword and vr.split(" ")[0] not in _NUMBERS
    }
    added = b"".join(_raw(tag, vr, b"zqab  ") for tag, vr in sorted(kinds.items()) if tag not in needed)
    path.write_bytes(content[:pixels] + added + content[pixels:])
    original = Original(IMAGE, "", path)
    forbidden = words_of(original, profile := deidentifier())
    outcome = deidentify_object(original, SUBJECT, profile, forbidden)
    assert [each.keyword for each in dcmread(BytesIO(outcome.content)) if "zqab" in str(each.value)] == []
    assert b"zqab" not in outcome.content
