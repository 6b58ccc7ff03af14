"""What a summary tells: which image was analysed, which was not, and why; and the bytes of the object itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from sqlalchemy import text

from config.destinations import Destination
from config.settings import Settings, Site, Store
from db import holds, jobs, rejection_notes, repeated_instances, studies
from db.database import Database
from db.engine import connect
from db.orders import HospitalMessage
from db.patients import PatientIdentifier, PatientUpdate
from db.queries import study_details
from db.records import FindingRecord, NotEligible, Outcome, ReceivedInstance, RejectionNote, ResultRecord
from db.shown_records import StudyDetail
from models.model_spec import Code
from models.pipeline import Pipeline
from tests.commands import receive_message, record_instance, study_facts
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.workers.builders import NOON, finding
from tests.workers.harness import CR, radiograph
from workers.completion import account_of, analysed_instance, latest_summary, needs_summary
from workers.job_outcome import EncodedResult
from workers.results.encoder import Equipment
from workers.results.study_account import ImageAccount, Reference, StudyAccount, SummaryFinding
from workers.results.summary import sentence_about
from workers.study_summary import Summariser
from workers.triage import decide

LEASE = timedelta(minutes=1)
PNEUMOTHORAX = Code("36118008", "SCT", "Pneumothorax")
NOT_ELIGIBLE = NotEligible("lateral", "This is a lateral view.")


class Study:
    """One study in a real database, to which a test adds images."""

    def __init__(self, folder: Path) -> None:
        engine = connect(f"sqlite:///{folder}/pleura.sqlite")
        migrate(engine)
        self.folder = folder
        self.engine = engine
        self.database = Database(engine, NO_RULES)
        self.images = 0
        self.site = Site()

    def add(
        self,
        outcome: Outcome | None = None,
        *,
        not_eligible: NotEligible | None = None,
        fails: bool = False,
        sop_class: str = CR,
        **header: str,
    ) -> None:
        self.images += 1
        path = f"{self.images}.dcm"
        image = radiograph(f"1.2.{self.images}")
        for keyword, value in header.items():
            setattr(image, keyword, value)
        dcmwrite(self.folder / path, image, enforce_file_format=True)
        received = ReceivedInstance(
            sop_instance_uid=f"1.2.{self.images}",
            sop_class_uid=sop_class,
            transfer_syntax_uid="1.2",
            digest=f"{self.images:064x}",
            path=path,
            byte_count=1,
            study_instance_uid="1.3",
            series_instance_uid="1.4",
        )
        job_ids = record_instance(self.database, received, not_eligible, "p" * 64, NOON).job_ids
        for job_id in job_ids:
            self.database.write(jobs.claim, job_id, "w", NOON, LEASE)
            if fails:
                self.database.write(jobs.fail, job_id, "w", "ValueError", NOON)
            else:
                self.database.write(jobs.finish, job_id, "w", outcome or Outcome(), NOON)

    def correct(self, number: int, outcome: Outcome, **changes: str) -> None:
        """Let image ``number`` come again with ``changes``; a worker finds that it is another, a person releases it."""
        again = radiograph(f"1.2.{number}")
        for keyword, value in changes.items():
            setattr(again, keyword, value)
        path = f"{number}.corrected.dcm"
        dcmwrite(self.folder / path, again, enforce_file_format=True)
        first = self.detail.instances[number - 1]
        received = ReceivedInstance(
            first.sop_instance_uid, CR, "1.2", f"{number + 900:064x}", path, 1, "1.3", first.series_instance_uid
        )
        (job_id,) = record_instance(self.database, received, None, "p" * 64, NOON).job_ids
        self.database.write(jobs.claim, job_id, "w", NOON, LEASE)
        self.database.write(repeated_instances.record_comparison, job_id, "w", "other PatientName", NOON)
        self.database.write(holds.release, self.id, "admin", NOON)
        self.database.write(jobs.claim, job_id, "w", NOON, LEASE)
        self.database.write(jobs.finish, job_id, "w", outcome, NOON)

    @property
    def id(self) -> int:
        found = self.database.read(study_details.find_study, "1.3")
        assert found is not None
        return found

    @property
    def detail(self) -> StudyDetail:
        return self.database.read(study_details.study_detail, self.id)

    def summarise(self, *destinations: Destination) -> tuple[EncodedResult, ...]:
        settings = Settings(store=Store(folder=self.folder), destinations=destinations, site=self.site)
        equipment = Equipment("Pleura", "Pleura", ("0",), "PLEURA", "1")
        summariser = Summariser(settings, self.database, Pipeline(None, ()), "d" * 64, equipment)
        facts = study_facts(self.database, self.id)
        return tuple(summariser(facts, decide(facts, settings.triage, NOON)))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def outcome(
    *findings: FindingRecord, number: int = 1, not_analysed: NotEligible | None = None, sr: bool = True
) -> Outcome:
    result = ResultRecord("sr", "1.2.9", f"1.5.{number}", "1.6", "d", f"results/{number}.dcm", 1)
    return Outcome(findings=findings, results=(result,) if sr else (), not_analysed=not_analysed)


def images(study: Study) -> tuple[ImageAccount, ...]:
    decision = decide(study_facts(study.database, study.id), Settings().triage, NOON)
    return account_of(study.detail, decision, {"pneumothorax": PNEUMOTHORAX}).images


def test_each_image_is_accounted_for(study: Study) -> None:
    absent, shadow = finding(probability=0.1), finding(shadow=True)
    study.add(outcome(finding(), absent, shadow))
    study.add(outcome(number=2, not_analysed=NotEligible("rotated", "The image lies on its side.")))
    study.add(not_eligible=NOT_ELIGIBLE)
    study.add(fails=True)
    first, not_analysed, not_eligible, failed = images(study)
    assert first.analysed
    assert first.findings == (SummaryFinding(PNEUMOTHORAX, 0.93, "pneumothorax"),)
    assert first.reports == (Reference("1.2.9", "1.5.1", "1.6"),)
    assert (not_analysed.analysed, not_analysed.failed, not_analysed.reason) == (
        False,
        False,
        "The image lies on its side.",
    )
    assert (not_eligible.analysed, not_eligible.reason, not_eligible.reports) == (False, "This is a lateral view.", ())
    assert (failed.analysed, failed.failed) == (False, True)


def test_lung_fields_are_no_report_about_the_image(study: Study) -> None:
    """They are anatomy: a summary neither names them nor differs by them."""
    lungs = ResultRecord("lungs", "1.2.10", "1.5.9", "1.6.9", "d", "results/9.dcm", 1)
    with_lungs = outcome(finding())
    study.add(replace(with_lungs, results=(*with_lungs.results, lungs)))
    assert images(study)[0].reports == (Reference("1.2.9", "1.5.1", "1.6"),)


def test_an_image_of_which_no_model_could_tell_is_no_negative(study: Study) -> None:
    study.add(outcome(replace(finding(probability=0.1), probability=None, reason="too dark"), finding(shadow=True)))
    (image,) = images(study)
    assert (image.analysed, image.failed, image.reason) == (False, True, "too dark")
    assert sentence_about(StudyAccount("routine", "", (image,))) == "AI: not analysed, too dark"


def test_what_a_model_has_found_that_does_not_run_any_more_is_told(study: Study) -> None:
    """It was sent with its image: a summary without it would read like a negative."""
    study.add(outcome(finding("pulmonary_consolidation", 0.7)))
    (image,) = images(study)
    code = Code("PULMONARYCONSOLI", "99PLEURA", "Pulmonary consolidation")
    assert image.findings == (SummaryFinding(code, 0.7, "pulmonary consolidation"),)
    assert sentence_about(StudyAccount("routine", "", (image,))) == "AI: pulmonary consolidation, 70 %"


def test_what_a_finding_is_part_of_follows_from_it_whichever_model_sends_it(study: Study) -> None:
    study.add(outcome(finding(model="another"), finding("abnormal")))
    decision = decide(study_facts(study.database, study.id), Settings().triage, NOON)
    codes = {"pneumothorax": PNEUMOTHORAX, "abnormal": Code("263654008", "SCT", "Abnormal")}
    (image,) = account_of(study.detail, decision, codes, {"pneumothorax": "abnormal"}).images
    assert [(each.words, each.implied) for each in image.findings] == [("pneumothorax", False), ("abnormal", True)]


def test_an_image_that_only_models_in_shadow_analysed_is_not_called_analysed(study: Study) -> None:
    study.add(outcome(finding(shadow=True), finding(probability=0.1, shadow=True), sr=False))
    (image,) = images(study)
    assert (image.analysed, image.failed, image.findings) == (False, False, ())
    assert "switched off or in shadow" in image.reason


def test_a_revised_image_is_told_by_its_latest_revision(study: Study) -> None:
    study.add(outcome(finding()))
    (job,) = study.detail.jobs
    study.database.write(jobs.requeue, job.id, "admin", "asked for", NOON)
    study.database.write(jobs.claim, job.id, "w", NOON, LEASE)
    study.database.write(jobs.finish, job.id, "w", outcome(finding(probability=0.6), number=7), NOON)
    (image,) = images(study)
    assert [found.probability for found in image.findings] == [0.6]
    assert [report.sop_instance_uid for report in image.reports] == ["1.5.7"]


@pytest.mark.parametrize(
    ("build", "needed"),
    [
        (lambda study: study.add(outcome()), True),
        (lambda study: study.add(fails=True), True),
        (lambda study: study.add(outcome(not_analysed=NOT_ELIGIBLE, sr=False)), False),
        (lambda study: study.add(not_eligible=NOT_ELIGIBLE), False),
    ],
    ids=["analysed", "failed", "not_analysed", "refused at the door"],
)
def test_only_a_study_that_was_analysed_gets_a_summary(
    study: Study, build: Callable[[Study], None], needed: bool
) -> None:
    """What a study of which nothing was analysed gets is in test_not_analysed."""
    build(study)
    assert needs_summary(study.detail) is needed
    assert ([made.record.kind for made in study.summarise()] == ["summary"]) is needed


def test_a_summary_is_a_report_of_this_study_and_the_same_again(study: Study) -> None:
    study.add(not_eligible=NOT_ELIGIBLE)
    study.add(outcome())
    instance = analysed_instance(study.detail)
    assert instance is not None
    assert instance.sop_instance_uid == "1.2.2"
    (first,) = study.summarise()
    (second,) = study.summarise()
    assert first == second
    made = dcmread(BytesIO(first.content))
    assert (made.Modality, made.StudyInstanceUID, made.PatientID) == ("SR", "1.2.2.1", "P1")


def test_the_next_summary_names_the_one_before(study: Study) -> None:
    study.add(outcome())
    (first,) = study.summarise()
    assert latest_summary(study.detail) is None
    assert study.database.write(studies.complete, study.id, (first.record,), {}, NOON) == ()
    study.add(outcome(number=2))
    (second,) = study.summarise()
    assert second.record.sop_instance_uid != first.record.sop_instance_uid
    (study_item,) = dcmread(BytesIO(second.content)).PredecessorDocumentsSequence
    (series_item,) = study_item.ReferencedSeriesSequence
    assert series_item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.record.sop_instance_uid


def summary_of(study: Study) -> Dataset:
    (made,) = study.summarise()
    return dcmread(BytesIO(made.content))


def status_and_text(summary: Dataset) -> tuple[str, str]:
    """Code of the study's status (CID 6042), and its comment."""
    measurements = next(
        item for item in summary.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010"
    )
    group = measurements.ContentSequence[0]
    found = {item.ConceptNameCodeSequence[0].CodeValue: item for item in group.ContentSequence}
    return found["111065"].ConceptCodeSequence[0].CodeValue, found["121106"].TextValue


def test_a_corrected_image_is_told_once_and_under_its_new_identity(study: Study) -> None:
    study.add(outcome(finding()))
    study.add(outcome(number=2))
    study.correct(
        1,
        outcome(finding("pneumothorax", 0.7), number=3),
        PatientName="New^Name",
        PatientSex="F",
        PatientBirthDate="19700101",
    )
    made = summary_of(study)
    assert (str(made.PatientName), made.PatientSex, made.PatientBirthDate) == ("New^Name", "F", "19700101")
    assert "2 of 2 images analysed." in status_and_text(made)[1]
    first, second = images(study)
    assert [found.probability for found in first.findings] == [0.7]
    assert [report.sop_instance_uid for report in first.reports] == ["1.5.3"]
    assert second.image.sop_instance_uid == "1.2.2"


def test_a_patient_whom_the_hospital_has_corrected_is_named_rightly_even_if_no_image_says_so(study: Study) -> None:
    study.add(outcome(finding()))
    news = PatientUpdate((PatientIdentifier("P1"),), name="New^Name", birth_date="19700101", sex="F")
    with study.engine.begin() as connection:
        connection.execute(text("UPDATE studies SET patient_id = 'P1', patient_name = 'Test^Pat'"))
    receive_message(study.database, HospitalMessage("RIS", "1", "d" * 64, "ADT^A08", (), (news,)), NOON)
    made = summary_of(study)
    assert (made.PatientID, str(made.PatientName), made.PatientSex) == ("P1", "New^Name", "F")


KEY_OBJECT, REPORT = "1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.5.1.4.1.1.88.33"
PRESENTATION, NO_IMAGE = "1.2.840.10008.5.1.4.1.1.11.1", NotEligible("not-an-image", "This is no image.")


def test_presentation_states_reports_and_notes_are_no_images(study: Study) -> None:
    study.add(outcome())
    for sop_class in (KEY_OBJECT, REPORT, PRESENTATION):
        study.add(not_eligible=NO_IMAGE, sop_class=sop_class)
    assert len(images(study)) == 1
    assert status_and_text(summary_of(study))[0] == "111222"
    assert "1 of 1 image analysed." in status_and_text(summary_of(study))[1]


def test_a_lateral_beside_an_analysed_frontal_is_no_partial_success(study: Study) -> None:
    study.add(outcome())
    study.add(not_eligible=NOT_ELIGIBLE)
    study.add(outcome(not_analysed=NotEligible("not_frontal_chest", "It does not look like one."), sr=False))
    status, read = status_and_text(summary_of(study))
    assert status == "111222"
    assert "1 of 1 image analysed; 2 other images are not to be analysed." in read


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({"fails": True}, "111223"),
        ({"outcome": outcome(number=2, not_analysed=NotEligible("corrupt", "Broken."))}, "111223"),
    ],
    ids=["failed", "unreadable"],
)
def test_an_image_that_should_have_been_analysed_makes_it_partial(
    study: Study, other: dict[str, Any], status: str
) -> None:
    study.add(outcome())
    study.add(**other)
    read = status_and_text(summary_of(study))
    assert read[0] == status
    assert "1 of 2 images analysed." in read[1]


def test_what_a_note_has_taken_back_counts_no_more_and_is_still_told(study: Study) -> None:
    study.add(outcome())
    study.add(outcome(number=2))
    note = RejectionNote("1.9", "113001", "The hospital has rejected this image for quality reasons.", ("1.2.2",))
    study.database.write(rejection_notes.reject, note, NOON)
    first, second = images(study)
    assert (first.analysed, second.analysed, second.eligible) == (True, False, False)
    assert "rejected" in second.reason
    assert "1 of 1 image analysed;" in status_and_text(summary_of(study))[1]


def test_a_repeat_is_not_told_again(study: Study) -> None:
    study.add(outcome())
    again = ReceivedInstance("1.2.1", CR, "1.2", "e" * 64, "again.dcm", 1, "1.3", "1.4")
    (job_id,) = record_instance(study.database, again, None, "p" * 64, NOON).job_ids
    study.database.write(jobs.claim, job_id, "w", NOON, LEASE)
    study.database.write(repeated_instances.record_comparison, job_id, "w", "", NOON)
    assert len(images(study)) == 1
    assert "1 of 1 image analysed." in status_and_text(summary_of(study))[1]


@pytest.mark.usefixtures("machine_in_kolkata")
@pytest.mark.parametrize("analysed", [True, False], ids=["summary", "not analysed"])
def test_a_summary_tells_the_time_of_the_hospital_s_clocks(study: Study, analysed: bool) -> None:
    study.add(outcome() if analysed else outcome(not_analysed=NOT_ELIGIBLE, sr=False), BodyPartExamined="CHEST")
    study.site = Site(time_zone="America/New_York")
    (summary,) = study.summarise()
    expected = study.detail.last_activity_at.astimezone(ZoneInfo("America/New_York"))
    made = dcmread(BytesIO(summary.content))
    assert (made.ContentDate, made.ContentTime) == (expected.strftime("%Y%m%d"), expected.strftime("%H%M%S.%f"))


def test_a_study_whose_image_cannot_be_read_any_more_has_no_summary(study: Study) -> None:
    study.add(outcome())
    (path,) = study.folder.rglob("*.dcm")
    path.write_bytes(b"what is this")
    assert study.summarise() == ()


def test_two_summaries_of_a_study_can_be_told_apart(study: Study) -> None:
    study.add(outcome())
    (first,) = study.summarise()
    before = dcmread(BytesIO(first.content))
    study.database.write(studies.complete, study.id, (first.record,), {}, NOON)
    study.add(outcome(number=2))
    after = summary_of(study)
    assert (before.InstanceNumber, before.SeriesDescription) == (1, "Pleura AI study summary (research use)")
    assert (after.InstanceNumber, after.SeriesDescription) == (2, "Pleura AI study summary, revision 2 (research use)")
    assert before.SeriesInstanceUID != after.SeriesInstanceUID
    (item,) = after.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
