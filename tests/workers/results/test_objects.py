"""What holds for every kind: bytes, UIDs, patient, study, character set, and dciodvfy's opinion."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from models.contract import NotAnalysed, Spacing
from tests.workers.results.sources import (
    EQUIPMENT,
    analysis,
    boxed,
    encode_all,
    identity,
    negative,
    positive,
    source,
    study_summary,
    two_masks,
    write,
)
from workers.results.identity import derive_uid

# Warnings that no change of ours could remove; docs/dicom-conformance.md says why.
KNOWN_WARNINGS = (
    "/DeviceUID(0018,1002)> - Attribute is not present in standard DICOM IOD",
    "Missing attribute or value that would be needed to build DICOMDIR",
    "Retired Person Name form",
)

NAMES = {
    "latin": ("ISO_IR 100", "Müller^Jürgen"),
    "cyrillic": ("ISO_IR 144", "Люкceмбypг^Анна"),  # noqa: RUF001
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "japanese-katakana": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "utf-8": ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    "greek": ("ISO_IR 126", "Διονυσιος^Αννα"),  # noqa: RUF001
}

SOURCES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no spacing": {"ImagerPixelSpacing": None, "PixelSpacing": None},
    "spacing zero": {"ImagerPixelSpacing": None, "PixelSpacing": ["0.000", "0.000"]},
    "no orientation": {"PatientOrientation": ""},
    "no orientation at all": {"PatientOrientation": None},
    "a word for the chest of the device's own": {"BodyPartExamined": "TORAX"},
    "a word for the chest that is no defined term of every reader": {"BodyPartExamined": "LUNG"},
    "mirrored": {"PatientOrientation": ["R", "F"]},
    "rotated": {"PatientOrientation": ["F", "L"]},
    "monochrome1": {"PhotometricInterpretation": "MONOCHROME1"},
    "invalid age": {"PatientAge": "62", "PatientSex": "X", "StudyTime": "25:00"},
    "bare": {
        "PatientBirthDate": "",
        "PatientSex": "",
        "PatientAge": None,
        "StudyID": None,
        "AccessionNumber": None,
        "StudyDescription": None,
        "BodyPartExamined": None,
        "ViewPosition": None,
        "Manufacturer": None,
        "InstitutionName": None,
        "SpecificCharacterSet": None,
        "ReferringPhysicianName": None,
    },
    "time zone": {"TimezoneOffsetFromUTC": "-0400"},
}

ANALYSES = {
    "positive": positive(),
    "two masks": two_masks(),
    "boxes": boxed(),
    "negative": negative(),
}


def everything(header: Dataset, findings=None, **changes) -> dict[str, Dataset]:
    return {**encode_all(analysis(header, findings, **changes)), "summary": study_summary(header)}


def complaints(path: Path) -> tuple[list[str], list[str]]:
    """Errors and unknown warnings of dciodvfy for a file."""
    output = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace")
    lines = (output.stderr + output.stdout).splitlines()
    errors = [line for line in lines if line.startswith("Error")]
    warnings = [line for line in lines if line.startswith("Warning") and not line.endswith(KNOWN_WARNINGS)]
    return errors, warnings


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("style", ["cr", "dx", "sc"])
@pytest.mark.parametrize("oddity", SOURCES)
def test_dciodvfy_accepts_every_kind_from_every_source(tmp_path, style, oddity):
    header = source(style, **SOURCES[oddity])
    spacing = None if "spacing" in oddity else Spacing(0.5, 0.4, "detector")
    for kind, made in everything(header, spacing=spacing).items():
        assert complaints(write(made, tmp_path / f"{kind}.dcm")) == ([], []), kind


BACKSLASHES: dict[str, Any] = {
    "StudyDescription": "CHEST PA\\LAT",
    "StudyID": "17\\18",
    "InstitutionName": "General\\North Wing",
    "ReferringPhysicianName": "Doe^A\\Roe^B",
    "BodyPartExamined": "CHEST\\ABDOMEN",
    "Manufacturer": "ACME\\Inc",
    "PatientAge": "065Y\\066Y",
    "StudyTime": "101500\\101600",
}


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("style", ["cr", "dx", "sc"])
def test_a_backslash_in_a_single_valued_text_gives_no_object_two_values(tmp_path, style):
    for kind, made in everything(source(style, **BACKSLASHES)).items():
        assert complaints(write(made, tmp_path / f"{kind}.dcm")) == ([], []), kind
        assert (made.StudyDescription, made.StudyID) == ("CHEST PA/LAT", "17/18")
        assert made.InstitutionName == "General/North Wing"
        assert (made.ReferringPhysicianName, made.StudyTime) == ("", "")
        assert "PatientAge" not in made


@pytest.mark.peer("dciodvfy")
def test_what_identifies_keeps_every_value(tmp_path):
    for kind, made in everything(source(AccessionNumber="B100\\B101")).items():
        assert list(made.AccessionNumber) == ["B100", "B101"], kind
        errors, warnings = complaints(write(made, tmp_path / f"{kind}.dcm"))
        assert not warnings
        assert all("Accession" in error or "Value Multiplicity" in error for error in errors), "it is the source's own"


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("storage", ["comprehensive-3d", "comprehensive"])
@pytest.mark.parametrize("findings_name", ANALYSES)
def test_dciodvfy_accepts_every_analysis(tmp_path, storage, findings_name):
    for kind, made in encode_all(analysis(findings=ANALYSES[findings_name], sr_storage=storage)).items():
        assert complaints(write(made, tmp_path / f"{kind}.dcm")) == ([], []), kind


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("code", ["lateral", "corrupt"])
def test_dciodvfy_accepts_not_analysed(tmp_path, code):
    objects = encode_all(analysis(not_analysed=NotAnalysed(code, "Why."), model_input=None))
    assert set(objects) == {"sr", "sc"}
    for kind, made in objects.items():
        assert complaints(write(made, tmp_path / f"{kind}.dcm")) == ([], []), kind


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("name", NAMES)
def test_names_survive_in_every_kind(tmp_path, name):
    charset, patient = NAMES[name]
    header = source(SpecificCharacterSet=charset, PatientName=patient)
    stored = BytesIO()
    header.save_as(stored, enforce_file_format=False, little_endian=True, implicit_vr=False)
    header = reread(stored, header)
    for kind, made in everything(header).items():
        path = write(made, tmp_path / f"{kind}.dcm")
        read = pydicom.dcmread(path)
        assert str(read.PatientName) == patient, kind
        assert read.SpecificCharacterSet == charset
        assert complaints(path) == ([], []), kind


def reread(stored: BytesIO, header: Dataset) -> Dataset:
    stored.seek(0)
    read = pydicom.dcmread(stored, force=True)
    read.file_meta = header.file_meta
    return read


@pytest.mark.peer("dcmpschk")
@pytest.mark.parametrize("style", ["cr", "dx", "sc"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dcmpschk_accepts_the_presentation_state(tmp_path, style, photometric):
    shutter: dict[str, Any] = {
        "ShutterShape": "RECTANGULAR",
        "ShutterLeftVerticalEdge": 1,
        "ShutterRightVerticalEdge": 40,
        "ShutterUpperHorizontalEdge": 2,
        "ShutterLowerHorizontalEdge": 60,
    }
    header = source(style, PhotometricInterpretation=photometric, **shutter)
    made = encode_all(analysis(header))["gsps"]
    output = subprocess.run(["dcmpschk", write(made, tmp_path / "ps.dcm")], capture_output=True, text=True)
    assert "Test passed" in output.stdout + output.stderr
    assert complaints(tmp_path / "ps.dcm") == ([], [])
    assert made.PresentationLUTShape == ("INVERSE" if photometric == "MONOCHROME1" else "IDENTITY")
    assert (made.ShutterShape, made.ShutterRightVerticalEdge) == ("RECTANGULAR", 40)
    if style == "dx":
        assert made.SoftcopyVOILUTSequence[0].WindowWidth == 4096


def as_bytes(made: Dataset) -> bytes:
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_the_same_work_gives_the_same_bytes():
    first, second = everything(source()), everything(source())
    assert {kind: as_bytes(made) for kind, made in first.items()} == {
        kind: as_bytes(made) for kind, made in second.items()
    }
    assert set(first) == {"seg", "sr", "sc", "gsps", "lungs", "summary"}


def uids(made: dict[str, Dataset]) -> set[str]:
    """Every UID under our root that is ours to choose."""
    found = set()
    for item in made.values():
        for element in item.iterall():
            if element.VR == "UI" and str(element.value).startswith("2.25.") and element.keyword != "DeviceUID":
                found.add(str(element.value))
    node = derive_uid(
        "2.25", "device", EQUIPMENT.manufacturer, EQUIPMENT.manufacturer_model_name, EQUIPMENT.device_serial_number
    )
    return found - {node}


@pytest.mark.parametrize("change", [{"pipeline": "99" * 32}, {"revision": 2}])
def test_another_pipeline_or_revision_changes_every_uid(change):
    header = source()
    before = uids(encode_all(analysis(header)))
    after = uids(encode_all(analysis(header, identity=identity(header, **change))))
    assert len(before) == len(after) >= 10
    assert not before & after


def test_uid_parts_are_separated():
    assert derive_uid("2.25", "ab", "c") != derive_uid("2.25", "a", "bc")
    assert derive_uid("1.2.3", "ab", "c") != derive_uid("1.2.3", "abc")
    assert len(derive_uid("1.2.826.0.1.3680043.10.1", "x")) <= 64


def test_kinds_have_their_own_series_behind_the_originals():
    made = everything(source())
    assert [item.SeriesNumber for item in made.values()] == [9001, 9002, 9003, 9004, 9007, 9005]
    assert len({item.SeriesInstanceUID for item in made.values()}) == 6
    assert all("research use" in item.SeriesDescription for item in made.values())


def test_patient_and_study_are_the_sources():
    header = source(IssuerOfPatientID="HOSPITAL")
    for made in everything(header).values():
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "IssuerOfPatientID"):
            assert made[keyword].value == header[keyword].value
        for keyword in ("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription"):
            assert made[keyword].value == header[keyword].value
        assert made.SeriesInstanceUID != header.SeriesInstanceUID


def test_values_that_break_a_rule_are_left_out_but_an_identity_is_kept():
    header = source(PatientAge="62", PatientID="x" * 70, StudyDate="2026-03-01")
    for made in everything(header).values():
        assert "PatientAge" not in made
        assert made.StudyDate == ""
        assert made.PatientID == "x" * 70


def test_letters_that_the_sources_character_set_lacks_make_it_utf_8():
    equipment = replace(EQUIPMENT, institution_name="Клиника")
    made = encode_all(analysis(source(), equipment=equipment))["sr"]
    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert pydicom.dcmread(BytesIO(as_bytes(made))).InstitutionName == "Клиника"


def test_undeclared_letters_are_declared_as_they_were_read():
    made = encode_all(analysis(source(SpecificCharacterSet=None, PatientName="Müller^Jürgen")))["sr"]
    assert made.SpecificCharacterSet == "ISO_IR 100"


def test_times_come_from_the_job_in_the_sources_zone():
    made = encode_all(analysis(source(TimezoneOffsetFromUTC="-0400")))["sr"]
    assert (made.ContentDate, made.ContentTime) == ("20260304", "010607.000089")
    assert made.TimezoneOffsetFromUTC == "-0400"
    plain = encode_all(analysis())["sr"]
    assert (plain.ContentDate, plain.ContentTime) == ("20260304", "050607.000089")
    assert "TimezoneOffsetFromUTC" not in plain


@pytest.mark.parametrize("aspect", [(64, 48), (30, 90)])
def test_the_overlay_lies_on_the_finding(aspect):
    """The burned-in outline is coloured where the mask's edge is and nowhere far from it."""
    made = encode_all(analysis(source(shape=aspect), spacing=None))["sc"]
    pixels = made.pixel_array.astype(int)
    rows, columns = aspect
    scale = pixels.shape[1] / columns
    band = pixels.shape[0] - round(rows * scale)
    coloured = (pixels.max(axis=2) - pixels.min(axis=2))[band:] > 60
    at_rows, at_columns = np.nonzero(coloured)
    mask = positive(aspect)[0].mask
    assert mask is not None
    set_rows, set_columns = np.nonzero(mask)
    slack = 4 + pixels.shape[1] / 100
    assert at_rows.min() == pytest.approx(set_rows.min() * scale, abs=slack)
    assert at_rows.max() == pytest.approx((set_rows.max() + 1) * scale, abs=slack)
    assert at_columns.min() == pytest.approx(set_columns.min() * scale, abs=slack)
    assert at_columns.max() == pytest.approx((set_columns.max() + 1) * scale, abs=slack)


def test_the_overlay_is_drawn_for_a_negative_too_and_refers_to_its_source():
    header = source()
    made = encode_all(analysis(header, negative()))["sc"]
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
    assert "PixelSpacing" not in made
    assert made.ImageType == ["DERIVED", "SECONDARY"]


def test_a_summary_names_its_predecessor_and_every_image():
    from tests.workers.results.trees import groups, values
    from workers.results.study_account import Reference

    header = source()
    first = study_summary(header)
    before = Reference(str(first.SOPClassUID), str(first.SOPInstanceUID), str(first.SeriesInstanceUID))
    second = study_summary(header, 2, before)
    assert second.SOPInstanceUID != first.SOPInstanceUID
    (series,) = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    study, *images = groups(second)
    assert values(study, "260870009") == ["25876001"]
    assert values(study, "111065") == ["111223"]
    assert [values(group, "111065") for group in images] == [["111222"], ["111225"], ["111224"]]
    assert "lateral view" in values(images[1], "121106")[0]
