"""What triage is told of earlier studies, and how an image after the report brings a study back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from db import feedback, holds, jobs, studies, study_status
from db.database import Database
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import FindingRecord, NotEligible, PriorFinding, StudyFacts
from db.study_status import LATE_IMAGE
from db.user_tables import Verdict
from tests.commands import record_instance, study_facts
from tests.db.examples import HOUR, MINUTE, NOW, PIPELINE, claim, finding, outcome, received, study_of

DAY = 24 * HOUR


def _analysed(database: Database, study: int, at: datetime, *findings: FindingRecord, **changes: Any) -> int:
    """A study with one image that came and was analysed at ``at``; its row."""
    values = {"patient_id": "P1", "issuer_of_patient_id": "HOSPITAL"} | changes
    (job_id,) = record_instance(database, received(1, study, **values), None, PIPELINE, at).job_ids
    claim(database, job_id, now=at)
    assert database.write(jobs.finish, job_id, "w1", outcome(100 * study, findings=findings), at) is not None
    return study_of(database, study)


def _facts(database: Database, study_id: int) -> StudyFacts:
    return study_facts(database, study_id)


def test_the_same_patients_earlier_studies_are_told(database: Database) -> None:
    _analysed(database, 1, NOW, finding(side="left"), study_date="20260227")
    absent = finding(probability=0.1, present=False)
    _analysed(database, 2, NOW + HOUR, absent, finding("lung_opacity"))
    now = _analysed(database, 3, NOW + DAY, finding())
    assert _facts(database, now).priors == (
        PriorFinding("pneumothorax", False, "", NOW + HOUR),
        PriorFinding("pneumothorax", True, "20260227", NOW, "left"),
    )


def test_what_comes_later_is_no_prior_and_neither_is_the_study_itself(database: Database) -> None:
    first = _analysed(database, 1, NOW, finding())
    _analysed(database, 2, NOW + DAY, finding())
    assert _facts(database, first).priors == ()


def test_without_a_present_finding_nothing_is_looked_up(database: Database) -> None:
    _analysed(database, 1, NOW, finding())
    now = _analysed(database, 2, NOW + DAY, finding(present=False), finding("lung_opacity", shadow=True))
    assert _facts(database, now).priors == ()


@pytest.mark.parametrize(
    "changes",
    [{"patient_id": "P2"}, {"issuer_of_patient_id": "CLINIC"}, {"issuer_of_patient_id": ""}, {"patient_id": ""}],
)
def test_another_patient_is_another_patient(database: Database, changes: dict[str, str]) -> None:
    _analysed(database, 1, NOW, finding())
    now = _analysed(database, 2, NOW + DAY, finding(), **changes)
    assert _facts(database, now).priors == ()


def test_patients_without_an_identifier_are_not_one_patient(database: Database) -> None:
    _analysed(database, 1, NOW, finding(), patient_id="")
    now = _analysed(database, 2, NOW + DAY, finding(), patient_id="")
    assert _facts(database, now).priors == ()


def test_a_study_on_hold_is_no_prior_and_has_none(database: Database) -> None:
    first = _analysed(database, 1, NOW, finding())
    now = _analysed(database, 2, NOW + DAY, finding())
    database.write(holds.hold, first, "whose is it?", "ann", NOW + DAY)
    assert _facts(database, now).priors == ()
    database.write(holds.release, first, "ann", NOW + DAY)
    assert len(_facts(database, now).priors) == 1
    database.write(holds.hold, now, "whose is it?", "ann", NOW + DAY)
    assert _facts(database, now).priors == ()


def test_a_rejected_finding_counts_as_absent_until_it_is_accepted(database: Database, engine: Engine) -> None:
    first = _analysed(database, 1, NOW, finding())
    now = _analysed(database, 2, NOW + DAY, finding())
    (known,) = database.read(feedback.findings, first)
    for verdict, present in ((Verdict.REJECT, False), (Verdict.ACCEPT, True)):
        database.write(feedback.give, known.id, verdict, NOW + DAY, actor="ann")
        assert [prior.present for prior in _facts(database, now).priors] == [present]


def test_a_finding_in_shadow_or_superseded_is_no_prior(database: Database) -> None:
    _analysed(database, 1, NOW, finding(shadow=True))
    now = _analysed(database, 2, NOW + DAY, finding())
    assert _facts(database, now).priors == ()


@pytest.mark.parametrize(
    ("sides", "together"),
    [
        (("left", "right"), "both"),
        (("left", "left"), "left"),
        (("left", ""), ""),
        (("left", "unknown"), "unknown"),
        (("unknown", ""), "unknown"),
    ],
)
def test_sides_of_one_study_are_put_together(database: Database, sides: tuple[str, ...], together: str) -> None:
    _analysed(database, 1, NOW, *(finding(side=side, model=f"m{place}") for place, side in enumerate(sides)))
    now = _analysed(database, 2, NOW + DAY, finding())
    assert [prior.side for prior in _facts(database, now).priors] == [together]


def test_an_image_after_the_report_brings_the_study_back(database: Database, engine: Engine) -> None:
    study_id = _analysed(database, 1, NOW, finding())
    database.write(study_status.report, study_id, NOW + HOUR, actor="ann", cause="marked as reported")
    assert Worklist(database.engine).page() == ()
    late = NOW + 2 * HOUR
    ingest = record_instance(database, received(2, 1, patient_id="P1"), None, PIPELINE, late)
    assert ingest.job_ids
    assert [row.study_id for row in Worklist(database.engine).page()] == [study_id]
    assert _facts(database, study_id).returned_at == late
    assert _facts(database, study_id).reported is False
    found = [event for event in database.read(study_details.study_detail, study_id).events if event.cause == LATE_IMAGE]
    assert [(event.from_state, event.to_state, event.actor) for event in found] == [("reported", "unreported", "node")]


def test_reported_again_or_called_unreported_by_a_person_it_is_no_late_image_any_more(
    database: Database, engine: Engine
) -> None:
    study_id = _analysed(database, 1, NOW, finding())
    database.write(study_status.report, study_id, NOW + HOUR, actor="ann", cause="marked as reported")
    record_instance(database, received(2, 1, patient_id="P1"), None, PIPELINE, NOW + 2 * HOUR)
    database.write(study_status.report, study_id, NOW + 3 * HOUR, actor="ann", cause="marked as reported")
    assert _facts(database, study_id).returned_at is None
    database.write(study_status.undo_report, study_id, NOW + 4 * HOUR, actor="ann", cause="marked as unreported")
    assert _facts(database, study_id).returned_at is None


@pytest.mark.parametrize(
    ("not_eligible", "back"),
    [
        (NotEligible("not-frontal", "a lateral view"), True),
        (NotEligible("not-an-image", "a report"), False),
        (NotEligible("derived-image", "a capture"), False),
    ],
)
def test_a_late_radiograph_that_is_not_analysed_must_be_read_too(
    database: Database, engine: Engine, not_eligible: NotEligible, back: bool
) -> None:
    study_id = _analysed(database, 1, NOW, finding())
    database.write(study_status.report, study_id, NOW + HOUR, actor="ann", cause="marked as reported")
    record_instance(database, received(2, 1, patient_id="P1"), not_eligible, PIPELINE, NOW + 2 * HOUR)
    assert bool(Worklist(database.engine).page()) is back


def test_a_repeat_after_the_report_changes_nothing(database: Database, engine: Engine) -> None:
    study_id = _analysed(database, 1, NOW, finding())
    database.write(study_status.report, study_id, NOW + HOUR, actor="ann", cause="marked as reported")
    values = {"patient_id": "P1", "issuer_of_patient_id": "HOSPITAL"}
    assert record_instance(database, received(1, 1, **values), None, PIPELINE, NOW + 2 * HOUR).repeat
    assert Worklist(database.engine).page() == ()


def test_a_report_object_covers_the_images_of_its_own_transmission(database: Database, engine: Engine) -> None:
    study_id = _analysed(database, 1, NOW, finding())
    database.write(study_status.report, study_id, NOW + MINUTE, actor="dicom:RIS", cause="a report object came")
    record_instance(database, received(2, 1, patient_id="P1"), None, PIPELINE, NOW + 2 * MINUTE)
    assert Worklist(database.engine).page() == ()


def test_after_the_study_was_stable_a_late_image_counts_whoever_reported(database: Database, engine: Engine) -> None:
    study_id = _analysed(database, 1, NOW, finding())
    database.write(study_status.report, study_id, NOW + MINUTE, actor="dicom:RIS", cause="a report object came")
    assert database.write(studies.complete, study_id, (), {}, NOW + HOUR) is not None
    record_instance(database, received(2, 1, patient_id="P1"), None, PIPELINE, NOW + 2 * HOUR)
    assert [row.study_id for row in Worklist(database.engine).page()] == [study_id]
