"""A whole study: what refers to what still does, validators accept it, masks are the same, and nothing survives."""

from __future__ import annotations

import re
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.contract import NotAnalysed
from tests.workers.deidentification.samples import SUBJECT, deidentifier, image, written
from tests.workers.results.sources import analysis, encode_all, study_summary
from workers.deidentification.study import IMAGE, Original, Outcome, deidentify_object, words_of
from workers.results.result_reader import problems, read_masks, read_result
from workers.results.source_image import read_header

KNOWN_WARNINGS = (
    "/DeviceUID(0018,1002)> - Attribute is not present in standard DICOM IOD",
    "Missing attribute or value that would be needed to build DICOMDIR",
    "Retired Person Name form",
)
# Each is a word of nothing else.
PATIENT: dict[str, Any] = {
    "PatientName": "Zqdoe^Zqjane^Zqmid",
    "PatientID": "ZQ4711",
    "IssuerOfPatientID": "ZQHOSPITAL",
    "AccessionNumber": "ZQ0815",
    "StudyID": "ZQ17",
    "PatientBirthDate": "19610203",
    "StudyDate": "20260301",
    "ReferringPhysicianName": "Zqref^Zqanna",
    "PerformingPhysicianName": "Zqperf^Zqotto",
    "OperatorsName": "Zqoper",
    "InstitutionName": "Zqgeneral Hospital",
    "InstitutionalDepartmentName": "Zqdepartment",
    "StationName": "ZQSTATION",
    "DeviceSerialNumber": "ZQSERIAL",
    "StudyDescription": "CHEST PA for Zqdoe, Dr. Zqref",
    "SeriesDescription": "Zqseries",
    "ProtocolName": "Zqprotocol",
    "ImageComments": "Zqcomment",
    "PatientComments": "Zqremark",
    "AdmissionID": "ZQADM",
    "DetectorID": "ZQDETECTOR",
}
STUDY, SERIES, INSTANCE = "1.2.826.0.1.99.1", "1.2.826.0.1.99.2", "1.2.826.0.1.99.3"


def _study(folder: Path, **changes: Any) -> dict[str, Path]:
    """The files of a study whose header says a name wherever it can: the image, and what this node makes of it."""
    source = image(INSTANCE, StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, **PATIENT)
    request = Dataset()
    request.RequestedProcedureDescription, request.RequestedProcedureID = "Zqrequest", "ZQREQ"
    source.RequestAttributesSequence = [request]
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator = "ZQPROC", "99ZQ"
    procedure.CodeMeaning = "Chest of Zqdoe"
    source.ProcedureCodeSequence = [procedure]
    source.add_new(0x00090010, "LO", "ZQPRIVATE")
    files = {IMAGE: written(source, folder / "image.dcm")}
    header = read_header(files[IMAGE])
    made = encode_all(analysis(header, **changes))
    made["summary"] = study_summary(header)
    return files | {kind: written(each, folder / f"{kind}.dcm") for kind, each in made.items() if kind != "sc"}


def _outcomes(files: dict[str, Path], **options: object) -> dict[str, Outcome]:
    profile = deidentifier(**options)
    objects = {kind: Original(kind, "", path) for kind, path in files.items()}
    forbidden = frozenset[str]().union(*(words_of(each, profile) for each in objects.values()))
    return {kind: deidentify_object(each, SUBJECT, profile, forbidden) for kind, each in objects.items()}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Outcome]]:
    files = _study(tmp_path_factory.mktemp("study"))
    return files, _outcomes(files)


def _read(outcome: Outcome) -> Dataset:
    return dcmread(BytesIO(outcome.content))


def test_what_refers_to_what_still_does(study: tuple[dict[str, Path], dict[str, Outcome]]) -> None:
    read = {kind: _read(outcome) for kind, outcome in study[1].items()}
    assert set(read) == {"image", "seg", "sr", "gsps", "lungs", "summary"}
    # The summary of the test also names images and a report that do not exist.
    ours = [read_result(read[kind]) for kind in ("seg", "sr", "gsps", "lungs")]
    assert problems(ours, [read[IMAGE]]) == []
    assert {each.StudyInstanceUID for each in read.values()} == {deidentifier().pseudonyms.uid(STUDY)}
    assert {each.PatientID for each in read.values()} == {SUBJECT.pseudonym}
    assert {each.StudyDate for each in read.values()} == {read[IMAGE].StudyDate}
    assert study[1]["sr"].path.split("/")[:2] == [SUBJECT.pseudonym, read[IMAGE].StudyInstanceUID]


def test_masks_are_the_same(study: tuple[dict[str, Path], dict[str, Outcome]]) -> None:
    before, after = read_masks(dcmread(study[0]["seg"])), read_masks(_read(study[1]["seg"]))
    assert len(before) == len(after) > 0
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("options", [{}, {"dates": "removed", "clean_descriptors": False}], ids=["default", "bare"])
def test_no_value_of_the_patient_survives(tmp_path: Path, options: dict[str, object]) -> None:
    files = _study(tmp_path)
    for kind, outcome in _outcomes(files, **options).items():
        text = outcome.content.lower()
        assert b"zq" not in text, kind
        # Also not as the name of a file, a date of the study or the person, or one of the UIDs.
        assert "zq" not in outcome.path.lower()
        for value in ("19610203", "20260301", "2026-03-01", STUDY):
            assert value.encode() not in text, kind


def test_our_own_words_stay(study: tuple[dict[str, Path], dict[str, Outcome]]) -> None:
    before, after = read_result(dcmread(study[0]["sr"])), read_result(_read(study[1]["sr"]))
    assert [each.label for each in after.statements] == [each.label for each in before.statements]
    assert [each.comment for each in after.statements] == [each.comment for each in before.statements]
    assert _read(study[1]["seg"]).SeriesDescription == "Pleura AI segmentation (research use)"
    lungs = _read(study[1]["lungs"])
    assert lungs.SeriesDescription == "Pleura AI lung fields (research use)"
    assert [segment.SegmentLabel for segment in lungs.SegmentSequence] == ["Right lung", "Left lung"]


def _complaints(content: bytes, path: Path) -> list[str]:
    path.write_bytes(content)
    output = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace")
    lines = (output.stdout + output.stderr).splitlines()
    return [
        line for line in lines if re.match("Error|Warning", line) and not any(known in line for known in KNOWN_WARNINGS)
    ]


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize(
    "options", [{}, {"dates": "removed", "patient_characteristics": False, "clean_descriptors": False}]
)
def test_dciodvfy_complains_of_nothing_that_it_accepted_before(tmp_path: Path, options: dict[str, object]) -> None:
    files = _study(tmp_path)
    for kind, outcome in _outcomes(files, **options).items():
        before = set(_complaints(files[kind].read_bytes(), tmp_path / "check.dcm")) if kind == IMAGE else set()
        assert set(_complaints(outcome.content, tmp_path / "check.dcm")) <= before, kind


def test_a_reason_that_quotes_the_header_is_masked(tmp_path: Path) -> None:
    reason = NotAnalysed("lateral", "View Position is Zqdoe, not a frontal view.")
    files = _study(tmp_path, not_analysed=reason, model_input=None)
    report = _read(_outcomes(files)["sr"])
    assert b"zq" not in _outcomes(files)["sr"].content.lower()
    assert any("[removed], not a frontal view" in str(item.get("TextValue", "")) for item in _items(report))


def _items(dataset: Dataset) -> list[Dataset]:
    found = []
    for item in dataset.get("ContentSequence", []):
        found += [item, *_items(item)]
    return found
