"""What the profile makes of a data set: each action, each option, and no text that survives."""

from __future__ import annotations

from io import BytesIO
from itertools import count
from typing import Any

import pytest
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from tests.workers.deidentification.samples import SUBJECT, deidentifier, image
from workers.deidentification.profile import TEXT, Done, earlier

# What the table does not name and this product keeps, if it repeats no word of the patient.
KEPT_IN_IMAGES = {"Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ModalityLUTType", "RescaleType"}
BARE: dict[str, Any] = {"dates": "removed", "patient_characteristics": False, "clean_descriptors": False}


def made(dataset: Dataset, *, ours: bool = False, **options: Any) -> Dataset:
    profile = deidentifier(**options)
    return profile.deidentify(dataset, SUBJECT, profile.forbidden(dataset, ours=ours), ours=ours)[0]


def stored(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _marked(vr: str, number: int) -> Any:
    """A value that occurs nowhere else."""
    letters = "".join(chr(ord("A") + number // 26**place % 26) for place in range(4))
    return {"PN": f"Zq{letters}^Xj{letters}", "UR": f"http://zq{letters}.test", "AE": f"ZQ{letters}"}.get(
        vr, f"zq{letters}"
    )


def _everything(level: int = 1) -> tuple[Dataset, dict[str, str]]:
    """A data set with every text attribute of PS3.6, again in an item of a sequence; the mark of each."""
    dataset, marks, numbers = Dataset(), {}, count(1000 * level)
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if keyword and vr in TEXT and tag >> 16 > 2:
            value = _marked(vr, next(numbers))
            dataset.add(DataElement(tag, vr, value))
            marks[f"{keyword} {level}"] = value.split("^")[0].split(".")[0].removeprefix("http://")
    return dataset, marks


@pytest.mark.parametrize("options", [{}, BARE], ids=["default", "bare"])
def test_no_text_of_any_attribute_survives_at_any_depth(options: dict[str, Any]) -> None:
    dataset, marks = _everything()
    nested, more = _everything(level=2)
    dataset.update(image())
    dataset.Manufacturer = marks["Manufacturer 1"]
    dataset.ViewCodeSequence = Sequence([nested])
    dataset.add_new(0x00091010, "LO", "zqPRIVATE")
    dataset.add_new(0x00090010, "LO", "zqCREATOR")
    dataset.add_new(0x60003000, "OW", b"zqOVERLAY ")
    dataset.add_new(0x60000022, "LO", "zqOVERLAYNAME")
    dataset.add_new(0x50003000, "OW", b"zqCURVE ")
    dataset.add_new(0x00881000, "LO", "zqUNKNOWN")
    bytes_out = stored(made(dataset, **options))
    survivors = {name for name, mark in {**marks, **more}.items() if mark.encode() in bytes_out}
    # Retain Patient Characteristics keeps this one.
    kept = KEPT_IN_IMAGES if options else {*KEPT_IN_IMAGES, "EthnicGroup"}
    assert survivors == {f"{name} 1" for name in kept}
    for mark in ("PRIVATE", "CREATOR", "OVERLAY", "CURVE", "UNKNOWN"):
        assert f"zq{mark}".encode() not in bytes_out


def test_a_name_goes_wherever_a_device_has_written_it() -> None:
    dataset = image(
        PatientName="Müller^Jürgen",
        Manufacturer="ACME for Jürgen",
        StudyDescription="CHEST PA Müller",
        BodyPartExamined="MÜLLER",
        ImageComments="MÜLLER, Jürgen",
        RescaleType="JURGEN",
        ViewPosition="PA",
    )
    result = made(dataset)
    assert result.Manufacturer == "ACME for [removed]"
    assert result.StudyDescription == "CHEST PA"
    assert "BodyPartExamined" not in result
    assert "ImageComments" not in result
    assert result.ViewPosition == "PA"
    assert b"ller" not in stored(result)


def test_each_action_is_carried_out() -> None:
    dataset = image(
        OtherPatientIDs="X4711",
        PatientBirthDate="19610203",
        ClinicalTrialSubjectID="S-7",
        InstitutionalDepartmentName="Ward 7",
        OperatorsName="Doe^John",
        DeviceSerialNumber="SN-1",
        AccessionNumber="A1",
    )
    changes = deidentifier().deidentify(dataset, SUBJECT, (), ours=False)[1]
    result = made(dataset)
    assert "OtherPatientIDs" not in result
    assert result.PatientBirthDate == result.AccessionNumber == ""
    assert result.ClinicalTrialSubjectID == result.DeviceSerialNumber == "REMOVED"
    assert "InstitutionalDepartmentName" not in result
    assert "OperatorsName" not in result
    assert result.PatientID == SUBJECT.pseudonym
    assert result.PatientName == f"{SUBJECT.pseudonym}^"
    assert (
        result.SOPInstanceUID
        == deidentifier().pseudonyms.uid("1.2.3.4.5.6")
        == result.file_meta.MediaStorageSOPInstanceUID
    )
    assert changes["OtherPatientIDs", Done.REMOVED] == changes["PatientID", Done.REPLACED] == 1
    assert changes["SOPInstanceUID", Done.NEW_UID] == changes["StudyDate", Done.SHIFTED] == 1


def test_it_says_what_it_is() -> None:
    result = made(image())
    assert result.PatientIdentityRemoved == "YES"
    assert result.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in result.DeidentificationMethodCodeSequence] == [
        "113100",
        "113105",
        "113107",
        "113108",
    ]
    bare = made(image(), **BARE)
    assert bare.LongitudinalTemporalInformationModified == "REMOVED"
    assert [item.CodeValue for item in bare.DeidentificationMethodCodeSequence] == ["113100"]


def test_dates_keep_their_distances_or_go() -> None:
    dataset = image(StudyDate="20260301", AcquisitionDateTime="20260303101500.5+0100", AcquisitionTime="101500")
    result = made(dataset)
    assert result.StudyDate == earlier("20260301", SUBJECT.days)
    assert result.AcquisitionDateTime == f"{earlier('20260303', SUBJECT.days)}101500.5+0100"
    assert result.AcquisitionTime == "101500"
    bare = made(dataset, dates="removed")
    assert bare.StudyDate == bare.StudyTime == ""
    assert "AcquisitionDateTime" not in bare
    assert "AcquisitionTime" not in bare


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("20260301", "20250301"),
        ("2026.03.01", "20250301"),
        ("202603", "202503"),
        ("2026", "2025"),
        ("20260301235959.9-0500", "20250301235959.9-0500"),
        ("01.03.2026", None),
        ("20261301", None),
        ("00010101", None),
        ("Miller", None),
    ],
)
def test_a_date_is_moved_as_exact_as_it_was(text: str, moved: str | None) -> None:
    assert earlier(text, 365) == moved


@pytest.mark.parametrize(("age", "kept"), [("065Y", "065Y"), ("093Y", "090Y"), ("018M", "018M"), ("Miller", None)])
def test_an_age_says_no_more_than_ninety_years(age: str, kept: str | None) -> None:
    assert made(image(PatientAge=age)).get("PatientAge") == kept
    assert "PatientAge" not in made(image(PatientAge=age), patient_characteristics=False)


def test_device_identity_stays_where_it_is_asked_for() -> None:
    dataset = image(StationName="ROOM1", DeviceSerialNumber="SN-1")
    assert made(dataset).StationName == ""
    kept = made(dataset, device_identity=True)
    assert (kept.StationName, kept.DeviceSerialNumber) == ("ROOM1", "SN-1")


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def test_codes_of_public_schemes_stay_without_what_somebody_wrote_beside_them() -> None:
    dataset = image(
        ViewCodeSequence=[_code("R-10206", "SRT", "antero-posterior, Dr. Miller")],
        AnatomicRegionSequence=[_code("MILLER", "99HOSPITAL", "Miller's chest")],
        ProcedureCodeSequence=[_code("399208008", "SCT", "Plain chest X-ray of Miller")],
    )
    result = made(dataset)
    assert result.ViewCodeSequence[0].CodeValue == "R-10206"
    assert "AnatomicRegionSequence" not in result
    assert result.ProcedureCodeSequence[0].CodeMeaning == "Plain chest X ray of"
    assert b"iller" not in stored(result)


def test_the_original_is_not_changed() -> None:
    dataset = image(RequestAttributesSequence=[_code("1", "99X", "y")])
    before = stored(dataset)
    made(dataset)
    assert stored(dataset) == before
    assert dcmread(BytesIO(before)).PatientName == "Test^Pat"
