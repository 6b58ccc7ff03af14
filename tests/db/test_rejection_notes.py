"""Images that a hospital takes back (IHE RAD IOCM)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from db.records import DeliveryState, InstanceState, JobState, RejectionNote
from db.worklist import Worklist
from tests.db.examples import MINUTE, NOW, PIPELINE, claim, finished, outcome, received, record, study_of

QUALITY = RejectionNote("1.2.3.9", "113001", "Rejected for quality reasons.", ("1.2.826.0.1.1.1",))
WRONG_ENTRY = replace(QUALITY, code="113038", sentence="Rejected: incorrect worklist entry.")


def test_a_queued_job_ends_and_its_image_says_why(worklist: Worklist) -> None:
    job_id = record(worklist)
    study_id = study_of(worklist)
    assert worklist.reject_instances(QUALITY, NOW) == (study_id,)
    detail = worklist.study_detail(study_id)
    assert [(job.state, job.not_analysed.code if job.not_analysed else "") for job in detail.jobs] == [
        (JobState.DONE, "rejected")
    ]
    assert detail.instances[0].state is InstanceState.NOT_ELIGIBLE
    assert detail.instances[0].not_eligible is not None
    assert detail.instances[0].not_eligible.sentence == QUALITY.sentence
    assert detail.row.not_eligible == 1
    assert worklist.claim_job(job_id, "w1", NOW, MINUTE) is None
    assert not detail.row.on_hold, "a retake must not wait for a person"


def test_a_running_job_finds_its_claim_gone_and_writes_nothing(worklist: Worklist) -> None:
    job_id = record(worklist)
    claim(worklist, job_id)
    worklist.reject_instances(QUALITY, NOW)
    assert worklist.finish_job(job_id, "w1", outcome(), NOW) is None
    detail = worklist.study_detail(study_of(worklist))
    assert detail.results == ()
    assert detail.deliveries == ()


def test_what_was_not_sent_is_withdrawn_and_what_was_is_marked(worklist: Worklist) -> None:
    _, (first, second) = finished(worklist)
    assert worklist.claim_delivery(first, "w1", NOW, MINUTE) is not None
    assert worklist.delivery_sent(first, "w1", NOW)
    worklist.reject_instances(QUALITY, NOW)
    detail = worklist.study_detail(study_of(worklist))
    assert {item.state for item in detail.deliveries} == {DeliveryState.WITHDRAWN}
    errors = {item.id: item.error for item in detail.deliveries}
    assert "must be removed" in errors[first]
    assert errors[second] == QUALITY.sentence
    assert worklist.claim_delivery(second, "w1", NOW, MINUTE) is None


def test_findings_of_a_rejected_image_no_longer_count(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    assert worklist.study_facts(study_id).findings != ()
    worklist.reject_instances(QUALITY, NOW)
    facts = worklist.study_facts(study_id)
    assert facts.findings == ()
    assert (facts.jobs_waiting, facts.images_not_analysed) == (0, 1)


@pytest.mark.parametrize(("note", "on_hold"), [(QUALITY, False), (WRONG_ENTRY, True)])
def test_a_wrong_worklist_entry_holds_the_study(worklist: Worklist, note: RejectionNote, on_hold: bool) -> None:
    record(worklist)
    record(worklist, number=2)
    worklist.reject_instances(note, NOW)
    detail = worklist.study_detail(study_of(worklist))
    assert detail.row.on_hold is on_hold
    assert detail.jobs[1].state is (JobState.ON_HOLD if on_hold else JobState.QUEUED), (
        "the other image was not rejected"
    )


def test_the_same_note_again_changes_nothing(worklist: Worklist) -> None:
    record(worklist)
    worklist.reject_instances(QUALITY, NOW)
    before = worklist.study_detail(study_of(worklist))
    assert worklist.reject_instances(QUALITY, NOW + timedelta(hours=1)) == ()
    assert worklist.study_detail(study_of(worklist)) == before


def test_an_image_that_comes_after_its_note_is_refused(worklist: Worklist) -> None:
    assert worklist.reject_instances(QUALITY, NOW) == ()
    ingest = worklist.record_instance(received(), None, PIPELINE, NOW)
    assert ingest.job_ids == ()
    (instance,) = worklist.study_detail(study_of(worklist)).instances
    assert instance.not_eligible is not None
    assert instance.not_eligible.code == "rejected"


def test_a_complete_study_is_opened_for_a_new_summary(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    assert worklist.complete_study(study_id, (), {}, NOW + MINUTE) is not None
    worklist.reject_instances(QUALITY, NOW + MINUTE)
    assert study_id in worklist.stable_studies(NOW + 3 * MINUTE, MINUTE)
