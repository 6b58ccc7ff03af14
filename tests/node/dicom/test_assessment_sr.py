"""AI result assessments, made by highdicom and sent by storescu: what readers elsewhere said of our findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    CompositeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    PnameContentItem,
    RelationshipTypeValues,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedSRStorage, ExplicitVRLittleEndian, generate_uid

from db import feedback, jobs
from db.assessments import Statement, unmatched
from db.audit import AuditFilter, AuditTrail
from db.database import Database
from db.feedback import FeedbackRecord
from db.queries import study_details
from db.records import FindingRecord, Outcome
from db.user_tables import Verdict
from models.contract import Finding, ModelUse, Prediction
from models.model_spec import Code, Mode
from node.dicom.assessment_sr import VERDICT_CODES, VERDICT_MEANINGS, assessment_of
from node.dicom.received_documents import read_document
from tests.node.dicom.listening import PIPELINE, Listening, chest, dcmtk, listening
from tests.rules import NO_RULES
from workers.clock import utc_now
from workers.job_outcome import as_file, finding_records
from workers.results.encoder import Analysis, Equipment
from workers.results.identity import Identity
from workers.results.structured_report import encode

CONTAINS, CONTEXT = RelationshipTypeValues.CONTAINS, RelationshipTypeValues.HAS_OBS_CONTEXT
DECISION = CodedConcept("D1", "99SITE", "Assessment")
GROUP = CodedConcept("125007", "DCM", "Measurement Group")
TITLE = CodedConcept("T1", "99SITE", "AI Result Assessment")
MODEL = ModelUse("chest", "3", "Chest", "d", "2.25.5")


def item(answer: str, tracking: str = "", about: Dataset | None = None, comment: str = "") -> ContainerContentItem:
    """One statement: tracking UID, reference and comment beside an answer in a scheme of the site."""
    group = ContainerContentItem(name=GROUP, relationship_type=CONTAINS)
    children: list[ContentItem] = []
    if tracking:
        children.append(UIDRefContentItem(codes.DCM.TrackingUniqueIdentifier, tracking, CONTEXT))
    if about is not None:
        children.append(
            CompositeContentItem(
                CodedConcept("R1", "99SITE", "Assessed result"), about.SOPClassUID, about.SOPInstanceUID, CONTAINS
            )
        )
    if comment:
        children.append(TextContentItem(codes.DCM.Comment, comment, CONTAINS))
    children.append(CodeContentItem(DECISION, CodedConcept("V1", "99SITE", answer), CONTAINS))
    group.ContentSequence = ContentSequence(children)
    return group


def document(
    about: Dataset, *groups: ContainerContentItem, person: str = "Reader^Rosa", title: CodedConcept = TITLE
) -> Dataset:
    """A Comprehensive SR about an object of ours."""
    root = ContainerContentItem(name=title)
    root.ContentSequence = ContentSequence([PnameContentItem(codes.DCM.PersonObserverName, person, CONTEXT), *groups])
    made: Dataset = highdicom.sr.ComprehensiveSR(
        evidence=[about],
        content=root,
        series_instance_uid=generate_uid(),
        series_number=77,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="ACME",
        is_complete=True,
    )
    return made


@dataclass
class Node:
    """A listener that has received an image, and whose worker has made a report of two findings."""

    listening: Listening
    database: Database
    report: Dataset
    folder: Path

    @property
    def feedback(self) -> tuple[FeedbackRecord, ...]:
        return self.database.read(feedback.of_study, 1)

    def finding(self, label: str) -> FindingRecord:
        return next(
            one
            for job in self.database.read(study_details.study_detail, 1).jobs
            for one in job.findings
            if one.label == label
        )

    def send(self, *documents: Dataset) -> None:
        for number, one in enumerate(documents):
            path = self.folder / f"assessment-{number}.dcm"
            dcmwrite(path, one, enforce_file_format=True)
            send(self.listening, path)


def send(node: Listening, *paths: Path) -> None:
    done = dcmtk("storescu", "-aet", "PACS", "-aec", "PLEURA", "-R", "127.0.0.1", node.port, *paths)
    assert done.returncode == 0, done.stderr


def prediction() -> Prediction:
    mask = np.zeros((512, 512), dtype=np.bool_)
    mask[100:200, 300:400] = True
    return Prediction(
        shape=(512, 512),
        findings=(
            Finding("pneumothorax", Code("36118008", "SCT", "Pneumothorax"), "chest", 0.9, 0.5, mask=mask),
            Finding("opacity", Code("112001", "DCM", "Opacity"), "chest", 0.1, 0.5),
            Finding("trial", Code("112002", "DCM", "Series of nodules"), "chest", 0.8, 0.5, mode=Mode.SHADOW),
        ),
        models=(MODEL,),
    )


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    image = chest(StudyID="1", AccessionNumber="A1", StudyTime="120000", PatientBirthDate="", PatientSex="O")
    image.ReferringPhysicianName = ""
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    with listening(tmp_path / "store") as running:
        send(running, tmp_path / "image.dcm")
        database, now = Database(running.engine, NO_RULES), utc_now()
        (job,) = database.read(study_details.study_detail, 1).jobs
        claimed = database.write(jobs.claim, job.id, "w", now, timedelta(minutes=1))
        assert claimed is not None
        identity = Identity("2.25", str(image.SOPInstanceUID), claimed.instance_digest, PIPELINE, 1)
        equipment = Equipment("Pleura", "Pleura", ("0",), "PLEURA", "0")
        made = encode(Analysis(image, None, prediction(), identity, equipment, now))
        assert made is not None
        result = as_file("sr", made)
        findings = finding_records(prediction(), None, identity)
        database.write(jobs.finish, job.id, "w", Outcome(findings=findings, results=(result.record,)), now)
        yield Node(running, database, dcmread(BytesIO(result.content)), tmp_path)


pytestmark = pytest.mark.peer("storescu")


def test_each_statement_becomes_a_verdict_of_its_person(node: Node) -> None:
    ours = node.report
    node.send(
        document(
            ours,
            item("Accepted", node.finding("pneumothorax").tracking_uid, ours),
            item("Modified", node.finding("opacity").tracking_uid, ours, "left base, small"),
        )
    )
    first, second = node.feedback
    assert (first.label, first.verdict, first.actor, first.source) == (
        "pneumothorax", Verdict.ACCEPT, "dicom:Reader, Rosa", "dicom",
    )  # fmt: skip
    assert (second.label, second.verdict, second.comment) == ("opacity", Verdict.MODIFY, "left base, small")
    assert (first.probability, first.model_version) == (0.9, "3")
    assert unmatched(node.listening.engine) == ()
    assert [entry.actor for entry in AuditTrail(node.listening.engine).entries(AuditFilter(study_id=1))] == [
        "dicom:Reader, Rosa"
    ] * 2


def test_the_tracking_uids_are_those_of_our_own_report(node: Node) -> None:
    uids = {str(one.value) for one in node.report.iterall() if one.keyword == "UID"}
    assert {node.finding("pneumothorax").tracking_uid, node.finding("opacity").tracking_uid} <= uids
    assert node.finding("trial").tracking_uid not in uids


def test_the_same_document_twice_counts_once(node: Node) -> None:
    made = document(node.report, item("Rejected", node.finding("pneumothorax").tracking_uid, node.report))
    node.send(made, made)
    assert [one.verdict for one in node.feedback] == [Verdict.REJECT]


def test_a_finding_that_a_reader_has_added_rejects_our_negative(node: Node) -> None:
    node.send(
        document(
            node.report,
            item("Added", node.finding("opacity").tracking_uid),
            item("Added", node.finding("pneumothorax").tracking_uid),
        )
    )
    assert {one.label: one.verdict for one in node.feedback} == {
        "opacity": Verdict.REJECT,
        "pneumothorax": Verdict.MODIFY,
    }


def test_accepting_the_whole_report_accepts_what_it_tells(node: Node) -> None:
    node.send(document(node.report, item("Accepted", about=node.report)))
    assert [(one.label, one.verdict) for one in node.feedback] == [
        ("pneumothorax", Verdict.ACCEPT),
        ("opacity", Verdict.ACCEPT),
    ]


@pytest.mark.parametrize(
    ("answer", "tracking", "own", "problem"),
    [
        ("Accepted", "2.25.999", True, "tracking UID belongs to no finding"),
        ("Rejected", "", True, "names none of the 2 findings"),
        ("Accepted", "", False, "no result of this node"),
        ("Perhaps", "", True, "verdict is none that is known"),
    ],
)
def test_what_fits_no_finding_is_kept_and_never_an_error(
    node: Node, answer: str, tracking: str, own: bool, problem: str
) -> None:
    other = dcmread(node.folder / "image.dcm")
    other.SOPInstanceUID = generate_uid()
    about = node.report if own else other
    node.send(document(about, item(answer, tracking, about, "hm")))
    assert node.feedback == ()
    (kept,) = unmatched(node.listening.engine)
    assert problem in kept.problem
    assert (kept.observer, kept.comment, kept.study_id) == ("Reader, Rosa", "hm", 1)
    assert unmatched(node.listening.engine, study_id=2) == ()


def test_an_assessment_that_says_nothing_is_visible(node: Node) -> None:
    node.send(document(node.report, ContainerContentItem(name=GROUP, relationship_type=CONTAINS)))
    (kept,) = unmatched(node.listening.engine)
    assert "verdict is none" in kept.problem


def test_other_reports_and_our_own_are_no_assessments(node: Node) -> None:
    node.send(document(node.report, title=CodedConcept("126000", "DCM", "Imaging Measurement Report")), node.report)
    assert node.feedback == ()
    assert unmatched(node.listening.engine) == ()


def test_a_result_of_another_study_is_not_analysed(node: Node) -> None:
    made = document(node.report, item("Accepted", node.finding("pneumothorax").tracking_uid, node.report))
    made.StudyInstanceUID = generate_uid()
    node.send(made)
    (kept,) = unmatched(node.listening.engine)
    assert (kept.problem, kept.study_id) == ("it refers to a result of another study", 2)
    assert node.feedback == ()


def test_what_another_implementation_writes_is_understood(node: Node, tmp_path: Path) -> None:
    """A flat Enhanced SR: one decision by code, the reference only in (0008,1199), its own name for the person."""

    def named(value: str, meaning: str) -> Dataset:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "99PACS", meaning
        return code

    flat = document(node.report)
    flat.SOPClassUID = flat.file_meta.MediaStorageSOPClassUID = EnhancedSRStorage
    flat.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    flat.ConceptNameCodeSequence = [named("AIRA-001", "AI Result Assessment")]
    del flat.CurrentRequestedProcedureEvidenceSequence
    reference, decision, person = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPClassUID = node.report.SOPClassUID
    reference.ReferencedSOPInstanceUID = node.report.SOPInstanceUID
    flat.ReferencedSOPSequence = [reference]
    decision.RelationshipType, decision.ValueType = "CONTAINS", "CODE"
    decision.ConceptNameCodeSequence = [named("AIRA-010", "Assessment Decision")]
    decision.ConceptCodeSequence = [named("AIRA-ACCEPT", "AI Result Accepted")]
    person.RelationshipType, person.ValueType, person.PersonName = "HAS OBS CONTEXT", "PNAME", "Nguyen^Linh"
    person.ConceptNameCodeSequence = [named("AIRA-020", "Assessor")]
    flat.ContentSequence = [decision, person]
    node.send(flat)
    assert {one.actor for one in node.feedback} == {"dicom:Nguyen, Linh"}
    assert len(node.feedback) == 2


def test_a_report_that_cannot_be_read_is_accepted_all_the_same(node: Node, tmp_path: Path) -> None:
    broken = document(node.report, item("Accepted", about=node.report))
    broken.ContentSequence[1].ContentSequence = []
    broken.ContentSequence[1].ConceptNameCodeSequence = []
    node.send(broken)
    assert node.feedback == ()


def test_a_deep_tree_ends(tmp_path: Path) -> None:
    bottom = Dataset()
    bottom.ValueType = "CONTAINER"
    for _ in range(40):
        above = Dataset()
        above.ValueType, above.ContentSequence = "CONTAINER", [bottom]
        bottom = above
    made = chest(PixelData=None)
    made.ContentSequence = [bottom]
    made.save_as(tmp_path / "deep.dcm", enforce_file_format=True)
    assert assessment_of(read_document(tmp_path / "deep.dcm")) is None


def test_every_answer_of_the_table_is_one_that_the_database_takes() -> None:
    assert {*VERDICT_CODES.values(), *VERDICT_MEANINGS.values()} == {*(one.value for one in Verdict), "added"}
    assert all(meaning == meaning.lower() for meaning in VERDICT_MEANINGS)
    assert Statement("accept").referenced == ()
