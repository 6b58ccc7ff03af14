"""What triage is told of earlier studies, and how an image after the report brings a study back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from db.feedback import Feedback
from db.records import FindingRecord, NotEligible, PriorFinding, StudyFacts
from db.study_status import LATE_IMAGE, Reporting
from db.user_tables import Verdict
from db.worklist import Worklist
from tests.db.examples import HOUR, MINUTE, NOW, PIPELINE, claim, finding, outcome, received, study_of

DAY = 24 * HOUR


def _analysed(worklist: Worklist, study: int, at: datetime, *findings: FindingRecord, **changes: Any) -> int:
    """A study with one image that came and was analysed at ``at``; its row."""
    values = {"patient_id": "P1", "issuer_of_patient_id": "HOSPITAL"} | changes
    (job_id,) = worklist.record_instance(received(1, study, **values), None, PIPELINE, at).job_ids
    claim(worklist, job_id, now=at)
    assert worklist.finish_job(job_id, "w1", outcome(100 * study, findings=findings), at) is not None
    return study_of(worklist, study)


def _facts(worklist: Worklist, study_id: int) -> StudyFacts:
    return worklist.study_facts(study_id)


def test_the_same_patients_earlier_studies_are_told(worklist: Worklist) -> None:
    _analysed(worklist, 1, NOW, finding(side="left"), study_date="20260227")
    absent = finding(probability=0.1, present=False)
    _analysed(worklist, 2, NOW + HOUR, absent, finding("lung_opacity"))
    now = _analysed(worklist, 3, NOW + DAY, finding())
    assert _facts(worklist, now).priors == (
        PriorFinding("pneumothorax", False, "", NOW + HOUR),
        PriorFinding("pneumothorax", True, "20260227", NOW, "left"),
    )


def test_what_comes_later_is_no_prior_and_neither_is_the_study_itself(worklist: Worklist) -> None:
    first = _analysed(worklist, 1, NOW, finding())
    _analysed(worklist, 2, NOW + DAY, finding())
    assert _facts(worklist, first).priors == ()


def test_without_a_present_finding_nothing_is_looked_up(worklist: Worklist) -> None:
    _analysed(worklist, 1, NOW, finding())
    now = _analysed(worklist, 2, NOW + DAY, finding(present=False), finding("lung_opacity", shadow=True))
    assert _facts(worklist, now).priors == ()


@pytest.mark.parametrize(
    "changes",
    [{"patient_id": "P2"}, {"issuer_of_patient_id": "CLINIC"}, {"issuer_of_patient_id": ""}, {"patient_id": ""}],
)
def test_another_patient_is_another_patient(worklist: Worklist, changes: dict[str, str]) -> None:
    _analysed(worklist, 1, NOW, finding())
    now = _analysed(worklist, 2, NOW + DAY, finding(), **changes)
    assert _facts(worklist, now).priors == ()


def test_patients_without_an_identifier_are_not_one_patient(worklist: Worklist) -> None:
    _analysed(worklist, 1, NOW, finding(), patient_id="")
    now = _analysed(worklist, 2, NOW + DAY, finding(), patient_id="")
    assert _facts(worklist, now).priors == ()


def test_a_on_hold_study_says_nothing_and_is_told_nothing(worklist: Worklist) -> None:
    first = _analysed(worklist, 1, NOW, finding())
    now = _analysed(worklist, 2, NOW + DAY, finding())
    worklist.hold_study(first, "whose is it?", "ann", NOW + DAY)
    assert _facts(worklist, now).priors == ()
    worklist.release_study(first, "ann", NOW + DAY)
    assert len(_facts(worklist, now).priors) == 1
    worklist.hold_study(now, "whose is it?", "ann", NOW + DAY)
    assert _facts(worklist, now).priors == ()


def test_a_rejected_finding_counts_as_absent_until_it_is_accepted(worklist: Worklist, engine: Engine) -> None:
    first = _analysed(worklist, 1, NOW, finding())
    now = _analysed(worklist, 2, NOW + DAY, finding())
    feedback = Feedback(engine)
    (known,) = feedback.findings(first)
    for verdict, present in ((Verdict.REJECT, False), (Verdict.ACCEPT, True)):
        feedback.give(known.id, verdict, NOW + DAY, actor="ann")
        assert [prior.present for prior in _facts(worklist, now).priors] == [present]


def test_a_finding_in_shadow_or_superseded_is_no_prior(worklist: Worklist) -> None:
    _analysed(worklist, 1, NOW, finding(shadow=True))
    now = _analysed(worklist, 2, NOW + DAY, finding())
    assert _facts(worklist, now).priors == ()


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
def test_sides_of_one_study_are_put_together(worklist: Worklist, sides: tuple[str, ...], together: str) -> None:
    _analysed(worklist, 1, NOW, *(finding(side=side, model=f"m{place}") for place, side in enumerate(sides)))
    now = _analysed(worklist, 2, NOW + DAY, finding())
    assert [prior.side for prior in _facts(worklist, now).priors] == [together]


def test_an_image_after_the_report_brings_the_study_back(worklist: Worklist, engine: Engine) -> None:
    study_id = _analysed(worklist, 1, NOW, finding())
    reporting = Reporting(engine)
    reporting.mark_reported(study_id, NOW + HOUR, actor="ann", cause="marked as reported")
    assert worklist.worklist() == ()
    late = NOW + 2 * HOUR
    ingest = worklist.record_instance(received(2, 1, patient_id="P1"), None, PIPELINE, late)
    assert ingest.job_ids
    assert [row.study_id for row in worklist.worklist()] == [study_id]
    assert _facts(worklist, study_id).returned_at == late
    assert _facts(worklist, study_id).reported is False
    told = [event for event in worklist.study_detail(study_id).events if event.cause == LATE_IMAGE]
    assert [(event.from_state, event.to_state, event.actor) for event in told] == [("reported", "unreported", "node")]


def test_reported_again_or_called_unreported_by_a_person_it_is_no_late_image_any_more(
    worklist: Worklist, engine: Engine
) -> None:
    study_id = _analysed(worklist, 1, NOW, finding())
    reporting = Reporting(engine)
    reporting.mark_reported(study_id, NOW + HOUR, actor="ann", cause="marked as reported")
    worklist.record_instance(received(2, 1, patient_id="P1"), None, PIPELINE, NOW + 2 * HOUR)
    reporting.mark_reported(study_id, NOW + 3 * HOUR, actor="ann", cause="marked as reported")
    assert _facts(worklist, study_id).returned_at is None
    reporting.mark_unreported(study_id, NOW + 4 * HOUR, actor="ann", cause="marked as unreported")
    assert _facts(worklist, study_id).returned_at is None


@pytest.mark.parametrize(
    ("not_eligible", "back"),
    [
        (NotEligible("not-frontal", "a lateral view"), True),
        (NotEligible("not-an-image", "a report"), False),
        (NotEligible("derived-image", "a capture"), False),
    ],
)
def test_a_late_radiograph_that_is_not_analysed_must_be_read_too(
    worklist: Worklist, engine: Engine, not_eligible: NotEligible, back: bool
) -> None:
    study_id = _analysed(worklist, 1, NOW, finding())
    Reporting(engine).mark_reported(study_id, NOW + HOUR, actor="ann", cause="marked as reported")
    worklist.record_instance(received(2, 1, patient_id="P1"), not_eligible, PIPELINE, NOW + 2 * HOUR)
    assert bool(worklist.worklist()) is back


def test_a_repeat_after_the_report_changes_nothing(worklist: Worklist, engine: Engine) -> None:
    study_id = _analysed(worklist, 1, NOW, finding())
    Reporting(engine).mark_reported(study_id, NOW + HOUR, actor="ann", cause="marked as reported")
    values = {"patient_id": "P1", "issuer_of_patient_id": "HOSPITAL"}
    assert worklist.record_instance(received(1, 1, **values), None, PIPELINE, NOW + 2 * HOUR).repeat
    assert worklist.worklist() == ()


def test_a_report_object_covers_the_images_of_its_own_transmission(worklist: Worklist, engine: Engine) -> None:
    study_id = _analysed(worklist, 1, NOW, finding())
    Reporting(engine).mark_reported(study_id, NOW + MINUTE, actor="dicom:RIS", cause="a report object came")
    worklist.record_instance(received(2, 1, patient_id="P1"), None, PIPELINE, NOW + 2 * MINUTE)
    assert worklist.worklist() == ()


def test_after_the_study_was_stable_a_late_image_counts_whoever_reported(worklist: Worklist, engine: Engine) -> None:
    study_id = _analysed(worklist, 1, NOW, finding())
    Reporting(engine).mark_reported(study_id, NOW + MINUTE, actor="dicom:RIS", cause="a report object came")
    assert worklist.complete_study(study_id, (), {}, NOW + HOUR) is not None
    worklist.record_instance(received(2, 1, patient_id="P1"), None, PIPELINE, NOW + 2 * HOUR)
    assert [row.study_id for row in worklist.worklist()] == [study_id]
