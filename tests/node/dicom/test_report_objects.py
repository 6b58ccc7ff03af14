"""Reports that arrive as objects: which documents count, and that a study leaves the list by them and by no others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread, uid
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from config.triage import Triage
from db import jobs, studies
from db.database import Database
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import Outcome, ReceivedInstance
from db.states import Priority
from node.dicom.document_content import read_document_content
from node.dicom.report_objects import is_report
from tests.models.samples import set_elements
from tests.node.dicom.listening import Listening, chest, dcmtk, listening
from tests.rules import NO_RULES

RULES = Triage()
ANY = Triage(report_objects="any")
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

LOINC = ("18748-4", "LN", "Diagnostic Imaging Report")
MEASUREMENTS = ("126000", "DCM", "Imaging Measurement Report")
LOCAL = ("R1", "99LOCAL", "Chest")


def document(
    sop_class: str = uid.BasicTextSRStorage, title: tuple[str, str, str] | None = LOINC, **changes: Any
) -> Dataset:
    """A document of another manufacturer, complete and verified."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = sop_class, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3", generate_uid()
    made.Modality, made.Manufacturer = "SR", "ACME"
    made.PatientID, made.PatientName, made.StudyDate = "TEST-1", "Test^One", "20200102"
    made.CompletionFlag, made.VerificationFlag, made.ValueType = "COMPLETE", "VERIFIED", "CONTAINER"
    if title is not None:
        name = Dataset()
        name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = title
        made.ConceptNameCodeSequence = [name]
    set_elements(made, changes)
    made.ensure_file_meta()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


PDF = uid.EncapsulatedPDFStorage
BARE: dict[str, Any] = {"CompletionFlag": None, "VerificationFlag": None, "ValueType": None}

CASES: list[tuple[str, Dataset, bool, bool]] = [
    ("text, signed", document(), True, True),
    ("text with a local title, signed", document(title=LOCAL), True, True),
    ("text, unsigned", document(VerificationFlag="UNVERIFIED"), False, True),
    ("text, unfinished", document(CompletionFlag="PARTIAL"), False, True),
    ("preliminary", document(PreliminaryFlag="PRELIMINARY"), False, False),
    ("final", document(PreliminaryFlag="FINAL"), True, True),
    ("enhanced", document(uid.EnhancedSRStorage), True, True),
    ("comprehensive report", document(uid.ComprehensiveSRStorage), True, True),
    ("measurements, signed", document(uid.ComprehensiveSRStorage, MEASUREMENTS), False, False),
    ("another algorithm's", document(uid.Comprehensive3DSRStorage, MEASUREMENTS), False, False),
    ("without a title", document(uid.ComprehensiveSRStorage, None), False, False),
    ("PDF of a report", document(PDF, None, DocumentTitle="Radiology Report", **BARE), True, True),
    ("PDF, in German", document(PDF, None, DocumentTitle="Befundbericht", **BARE), True, True),
    ("PDF with a coded title", document(PDF, LOINC, **BARE), True, True),
    ("PDF in a series of reports", document(PDF, None, SeriesDescription="REPORT", **BARE), True, True),
    ("PDF of a request", document(PDF, None, DocumentTitle="Request form", **BARE), False, False),
    ("PDF that nobody signed", document(PDF, LOINC, **(BARE | {"VerificationFlag": "UNVERIFIED"})), False, False),
    ("CDA", document(uid.EncapsulatedCDAStorage, LOINC, **BARE), True, True),
    ("dose report", document(uid.XRayRadiationDoseSRStorage), False, False),
    ("chest CAD", document(uid.ChestCADSRStorage), False, False),
]


@pytest.mark.parametrize(("made", "verified", "any_"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_which_documents_count(made: Dataset, verified: bool, any_: bool) -> None:
    assert is_report(made, RULES) is verified
    assert is_report(made, ANY) is any_


def _take(path: Path, made: Dataset, rules: Triage = RULES) -> bool:
    made.save_as(path, enforce_file_format=True)
    received = ReceivedInstance(
        sop_instance_uid=str(made.SOPInstanceUID),
        sop_class_uid=str(made.SOPClassUID),
        transfer_syntax_uid=str(made.file_meta.TransferSyntaxUID),
        digest="",
        path=path.name,
        byte_count=1,
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.4",
        calling_ae_title="RIS",
    )
    return read_document_content(path, received, None, rules).reported


def test_a_signed_report_is_one(tmp_path: Path) -> None:
    assert _take(tmp_path / "a.dcm", document())


def test_reports_can_be_ignored(tmp_path: Path) -> None:
    assert not _take(tmp_path / "a.dcm", document(), Triage(report_objects="ignore"))


def test_a_verdict_on_our_finding_is_no_report(tmp_path: Path) -> None:
    answer = Dataset()
    answer.RelationshipType, answer.ValueType = "CONTAINS", "CODE"
    for keyword, code in (
        ("ConceptNameCodeSequence", ("1", "99X", "Assessment")),
        ("ConceptCodeSequence", ("2", "99X", "Accepted")),
    ):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
        setattr(answer, keyword, [item])
    assert not _take(tmp_path / "a.dcm", document(ContentSequence=[answer]))


def test_a_broken_document_is_taken_and_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    made = document()
    assert _take(path, made)
    path.write_bytes(path.read_bytes()[:200] + b"\xff" * 500)
    received = ReceivedInstance("1", str(made.SOPClassUID), "1.2.840.10008.1.2.1", "", "a", 1, "1.2.3", "1.2.3.4")
    read = read_document_content(path, received, None, RULES)
    assert not read.reported
    assert read.unreadable


def _send(node: Listening, *paths: Path) -> None:
    done = dcmtk("storescu", "-aet", "RIS", "-aec", "PLEURA", "-R", "127.0.0.1", node.port, *paths)
    assert done.returncode == 0, done.stderr


def _saved(path: Path, made: Dataset) -> Path:
    made.save_as(path, enforce_file_format=True)
    return path


Make = Callable[[Path], Path]


def _text_report(folder: Path) -> Path:
    return _saved(folder / "report.dcm", document(Manufacturer="ACME"))


def _pdf_by_dcmtk(folder: Path) -> Path:
    """An encapsulated PDF as DCMTK makes it from a file, in the study of the image."""
    pdf, out = folder / "report.pdf", folder / "pdf.dcm"
    pdf.write_bytes(b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n")
    done = dcmtk("pdf2dcm", "+t", "Radiology report", "+se", folder / "image.dcm", pdf, out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.peer("storescu")
@pytest.mark.peer("pdf2dcm")
@pytest.mark.parametrize("make", [_text_report, _pdf_by_dcmtk])
def test_a_study_leaves_the_list_by_a_report_from_storescu(tmp_path: Path, make: Make) -> None:
    image = _saved(tmp_path / "image.dcm", chest(StudyInstanceUID="1.2.3", PatientBirthDate="", PatientSex="O"))
    report = make(tmp_path)
    assert dcmread(report, stop_before_pixels=True).StudyInstanceUID == "1.2.3"
    with listening(tmp_path / "store") as node:
        database = Database(node.engine, NO_RULES)
        _send(node, image)
        assert len(Worklist(database.engine).page()) == 1
        _send(node, report)
        assert Worklist(database.engine).page() == ()
        study = database.read(study_details.find_study, "1.2.3")
        assert study is not None
        (found,) = [
            one for one in database.read(study_details.study_detail, study).events if one.to_state == "reported"
        ]
        assert found.actor == "dicom:RIS"
        assert found.cause.startswith("a report came as an object")


@pytest.mark.peer("storescu")
def test_what_comes_after_the_report(tmp_path: Path) -> None:
    """The same report again hides nothing; a lateral view that comes late is shown as urgent, though never analysed."""
    image = _saved(tmp_path / "image.dcm", chest(StudyInstanceUID="1.2.3"))
    lateral = _saved(tmp_path / "lateral.dcm", chest(StudyInstanceUID="1.2.3", ViewPosition="LL"))
    report = _saved(tmp_path / "report.dcm", document())
    with listening(tmp_path / "store") as node:
        database = Database(node.engine, NO_RULES)
        _send(node, image, report)
        study = database.read(study_details.find_study, "1.2.3")
        assert study is not None
        (job,) = database.read(study_details.study_detail, study).jobs
        later = datetime.now(UTC)
        assert database.write(jobs.claim, job.id, "worker", later, timedelta(minutes=5))
        database.write(jobs.finish, job.id, "worker", Outcome(), later)
        assert database.write(studies.complete, study, (), {}, datetime.now(UTC)) is not None
        _send(node, lateral)
        (row,) = Worklist(database.engine).page()
        assert row.priority is Priority.URGENT
        assert row.reason.startswith("an image came after the report")
        _send(node, report)
        assert len(Worklist(database.engine).page()) == 1


@pytest.mark.peer("storescu")
@pytest.mark.parametrize(
    "changes",
    [
        {"PatientID": "SOMEBODY-ELSE"},
        {"VerificationFlag": "UNVERIFIED"},
        {"Manufacturer": "Pleura"},
        {"StudyInstanceUID": "1.2.4"},
    ],
)
def test_other_documents_leave_the_study_on_the_list(tmp_path: Path, changes: dict[str, Any]) -> None:
    image = _saved(tmp_path / "image.dcm", chest(StudyInstanceUID="1.2.3"))
    other = _saved(tmp_path / "other.dcm", document(**changes))
    with listening(tmp_path / "store") as node:
        database = Database(node.engine, NO_RULES)
        _send(node, image, other)
        assert "1.2.3" in {row.study_instance_uid for row in Worklist(database.engine).page()}
