"""What our objects take over from an odd source: to the letter, as the source says it, or not at all."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from tests.models.samples import radiograph as pixels_of
from tests.models.samples import ramp
from tests.workers.results.sources import analysis, encode_all, source, study_summary
from tests.workers.results.test_source_image import raw
from workers.results.finding_text import statements
from workers.results.secondary_capture import draw
from workers.results.shutter import shuttered
from workers.results.source_image import sound_header

LATIN_1 = "Müller^Jürgen".encode("latin-1")
METHOD = 0x00120064


def received(*odd: RawDataElement, **changes: Any) -> Dataset:
    """The header of a source with these elements, as the worker reads it."""
    buffer = BytesIO()
    dcmwrite(buffer, source(**changes), enforce_file_format=True, implicit_vr=False, little_endian=True)
    dataset = dcmread(BytesIO(buffer.getvalue()))
    for element in odd:
        dataset[element.tag] = element
    buffer = BytesIO()
    dcmwrite(buffer, dataset)
    return sound_header(dcmread(BytesIO(buffer.getvalue())))


def objects(header: Dataset) -> dict[str, bytes]:
    """Every kind of object about a source, as bytes."""
    made = encode_all(analysis(header)) | {"summary": study_summary(header)}
    return {kind: _bytes(dataset) for kind, dataset in made.items()}


def _bytes(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("term", [b"WINDOWS1252 ", b"UTF8", b"ISO_IR 999", b"ISO 2022 IR 6\\NONE"])
def test_a_character_set_that_does_not_exist_is_not_copied(term: bytes) -> None:
    header = received(raw(0x00080005, "CS", term), raw(0x00100010, "PN", LATIN_1))
    for kind, content in objects(header).items():
        read = dcmread(BytesIO(content))
        assert read.SpecificCharacterSet in ("ISO_IR 100", "ISO_IR 192"), kind
        assert str(read.PatientName) == "Müller^Jürgen", kind


def test_bytes_that_cannot_be_read_are_copied_as_they_are() -> None:
    header = received(
        raw(0x00100010, "PN", LATIN_1), raw(0x00100020, "LO", LATIN_1[:6]), SpecificCharacterSet="ISO_IR 192"
    )
    for kind, content in objects(header).items():
        read = dcmread(BytesIO(content))
        assert read.SpecificCharacterSet == "ISO_IR 192", kind
        assert read.get_item("PatientName").value.rstrip() == LATIN_1, kind
        assert read.get_item("PatientID").value.rstrip() == LATIN_1[:6], kind


@pytest.mark.parametrize(
    "odd",
    [
        raw(METHOD, "LO", b"Header cleaner"),
        raw(0x00180015, "CS", b"CHEST\\NECK"),
        raw(0x00080032, "LO", b"noon"),
        raw(0x00080030, "SH", b"noon"),
    ],
)
def test_what_is_not_what_the_standard_promises_is_not_copied(odd: RawDataElement) -> None:
    without = objects(received(**{"BodyPartExamined": None, "StudyTime": None}))
    header = received(odd, **{"BodyPartExamined": None, "StudyTime": None})
    assert objects(header) == without


def test_an_encoder_that_meets_an_odd_sequence_does_not_copy_it() -> None:
    header = source()
    header.add_new(METHOD, "LO", "Header cleaner")
    assert all(BaseTag(METHOD) not in made for made in encode_all(analysis(header)).values())


@pytest.mark.parametrize("annotation", ["YES", "NO", None])
def test_burned_in_annotation_is_the_source_s(annotation: str | None) -> None:
    assert encode_all(analysis(source(BurnedInAnnotation=annotation)))["sc"].get("BurnedInAnnotation") == annotation


def capture(**changes: Any) -> np.ndarray:
    """The picture of a capture, without its band, at the size of the source."""
    made = analysis(source(shape=(200, 160), **changes), findings=())
    assert made.model_input is not None
    drawn = np.asarray(draw(made, made.model_input, statements(made)).convert("L"))
    height = round(drawn.shape[1] * 200 / 160 / 0.8)
    picture = drawn[-height:]
    return picture[np.linspace(0, height - 1, 200).astype(int)][:, np.linspace(0, drawn.shape[1] - 1, 160).astype(int)]


RECTANGLE = {
    "ShutterShape": "RECTANGULAR",
    "ShutterLeftVerticalEdge": 41,
    "ShutterRightVerticalEdge": 120,
    "ShutterUpperHorizontalEdge": 51,
    "ShutterLowerHorizontalEdge": 150,
}


def test_the_capture_keeps_the_source_s_shutter() -> None:
    plain, shut = capture(), capture(**RECTANGLE)
    assert not shut[160:, :].any()
    assert not shut[5:, 125:].any()
    np.testing.assert_array_equal(shut[60:140, 50:110], plain[60:140, 50:110])
    assert (capture(**RECTANGLE, ShutterPresentationValue=0xFFFF)[160:, :] == 255).all()


def covered(rows: int = 40, columns: int = 30, **attributes: Any) -> np.ndarray | None:
    return shuttered(pixels_of(ramp(rows, columns, 12), **attributes), (rows, columns))


def test_shutters_by_the_book() -> None:
    rectangle = covered(
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=3,
        ShutterRightVerticalEdge=10,
        ShutterUpperHorizontalEdge=5,
        ShutterLowerHorizontalEdge=20,
    )
    assert rectangle is not None
    assert np.array_equal(np.argwhere(~rectangle)[[0, -1]], [[4, 2], [19, 9]])
    circle = covered(ShutterShape="CIRCULAR", CenterOfCircularShutter=[20, 15], RadiusOfCircularShutter=5)
    assert circle is not None
    assert not circle[19, [9, 14, 19]].any()
    assert circle[19, [8, 20]].all()
    polygon = covered(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=[1, 1, 1, 30, 40, 30])
    assert polygon is not None
    assert not polygon[0].any()
    assert polygon[39, 0]


@pytest.mark.parametrize(
    "absurd",
    [
        {},
        {"ShutterShape": "BITMAP"},
        {"ShutterShape": "RECTANGULAR"},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [20, 15], "RadiusOfCircularShutter": 0},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [2000, 1500], "RadiusOfCircularShutter": 5},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 2]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [10**9, 10**9, 10**9, 1, 1, 10**9]},
    ],
)
def test_an_absurd_shutter_covers_nothing_or_leaves_something(absurd: dict[str, Any]) -> None:
    found = covered(**absurd)
    assert found is None or not found.all()


def test_the_summary_s_times_are_in_the_zone_of_the_others() -> None:
    header = source(TimezoneOffsetFromUTC="+0530")
    made = encode_all(analysis(header))
    times = {(each.SeriesDate, each.SeriesTime) for each in (*made.values(), study_summary(header))}
    assert len(times) == 1


def lut(bits: int, most: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, bits])
    item.add_new("LUTData", "OW", np.linspace(0, most, 4096).astype("<u2").tobytes())
    item.ModalityLUTType = "OD"
    return item


def _presentation_state(**changes: Any) -> Dataset:
    return encode_all(analysis(source("dx", **changes)))["gsps"]


def test_a_table_that_contradicts_its_descriptor_is_not_copied() -> None:
    honest = _presentation_state(VOILUTSequence=[lut(12, 4095)]).SoftcopyVOILUTSequence[0]
    assert "VOILUTSequence" in honest
    lying = _presentation_state(VOILUTSequence=[lut(12, 8191)]).SoftcopyVOILUTSequence[0]
    assert "VOILUTSequence" not in lying
    assert lying.WindowWidth == 4096
    assert "ModalityLUTSequence" not in _presentation_state(ModalityLUTSequence=[lut(8, 4095)])
    short = lut(12, 4095)
    short.LUTDescriptor = [5000, 0, 12]
    assert "ModalityLUTSequence" not in _presentation_state(ModalityLUTSequence=[short])


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": 0}, "RescaleSlope"),
        ({"RescaleSlope": 1}, "RescaleSlope"),
        ({"WindowWidth": 0}, "SoftcopyVOILUTSequence"),
        ({"WindowWidth": None}, "SoftcopyVOILUTSequence"),
        ({"WindowWidth": [1, 2, 3]}, "SoftcopyVOILUTSequence"),
        ({"ShutterShape": "CIRCULAR"}, "ShutterShape"),
    ],
)
def test_what_means_nothing_is_not_copied(changes: dict[str, Any], gone: str) -> None:
    assert gone not in _presentation_state(**changes)
