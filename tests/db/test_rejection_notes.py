"""Images that a hospital takes back (IHE RAD IOCM)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from db import deliveries, jobs, rejection_notes, studies
from db.database import Database
from db.queries import study_details
from db.records import RejectionNote
from db.states import DeliveryState, InstanceState, JobState
from tests.commands import record_instance, study_facts
from tests.db.examples import MINUTE, NOW, PIPELINE, claim, finished, outcome, received, record, study_of

QUALITY = RejectionNote("1.2.3.9", "113001", "Rejected for quality reasons.", ("1.2.826.0.1.1.1",))
WRONG_ENTRY = replace(QUALITY, code="113038", sentence="Rejected: incorrect worklist entry.")


def test_a_queued_job_ends_and_its_image_says_why(database: Database) -> None:
    job_id = record(database)
    study_id = study_of(database)
    assert database.write(rejection_notes.reject, QUALITY, NOW) == (study_id,)
    detail = database.read(study_details.study_detail, study_id)
    assert [(job.state, job.not_analysed.code if job.not_analysed else "") for job in detail.jobs] == [
        (JobState.DONE, "rejected")
    ]
    assert detail.instances[0].state is InstanceState.NOT_ELIGIBLE
    assert detail.instances[0].not_eligible is not None
    assert detail.instances[0].not_eligible.sentence == QUALITY.sentence
    assert detail.row.not_eligible == 1
    assert database.write(jobs.claim, job_id, "w1", NOW, MINUTE) is None
    assert not detail.row.on_hold, "a retake must not wait for a person"


def test_a_running_job_finds_its_claim_gone_and_writes_nothing(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    database.write(rejection_notes.reject, QUALITY, NOW)
    assert database.write(jobs.finish, job_id, "w1", outcome(), NOW) is None
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.results == ()
    assert detail.deliveries == ()


def test_what_was_not_sent_is_withdrawn_and_what_was_is_marked(database: Database) -> None:
    _, (first, second) = finished(database)
    assert database.write(deliveries.claim, first, "w1", NOW, MINUTE) is not None
    assert database.write(deliveries.sent, first, "w1", NOW)
    database.write(rejection_notes.reject, QUALITY, NOW)
    detail = database.read(study_details.study_detail, study_of(database))
    assert {item.state for item in detail.deliveries} == {DeliveryState.WITHDRAWN}
    errors = {item.id: item.error for item in detail.deliveries}
    assert "must be removed" in errors[first]
    assert errors[second] == QUALITY.sentence
    assert database.write(deliveries.claim, second, "w1", NOW, MINUTE) is None


def test_what_a_lost_process_was_sending_may_have_arrived(database: Database) -> None:
    """The peer's success may be what nobody could note any more: the rejection note must name it."""
    _, (first, second) = finished(database)
    assert database.write(deliveries.claim, first, "w1", NOW, MINUTE) is not None
    assert database.write(deliveries.release, "w1", NOW) == (first,)
    database.write(rejection_notes.reject, QUALITY, NOW)
    noted = {each.id: each for each in database.read(study_details.study_detail, study_of(database)).deliveries}
    assert (noted[first].stale_code, "may have arrived" in noted[first].error) == (QUALITY.code, True)
    assert noted[second].stale_code == ""


def test_findings_of_a_rejected_image_no_longer_count(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    assert study_facts(database, study_id).findings != ()
    database.write(rejection_notes.reject, QUALITY, NOW)
    facts = study_facts(database, study_id)
    assert facts.findings == ()
    assert (facts.jobs_waiting, facts.images_not_analysed) == (0, 1)


@pytest.mark.parametrize(("note", "on_hold"), [(QUALITY, False), (WRONG_ENTRY, True)])
def test_a_wrong_worklist_entry_holds_the_study(database: Database, note: RejectionNote, on_hold: bool) -> None:
    record(database)
    record(database, number=2)
    database.write(rejection_notes.reject, note, NOW)
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.row.on_hold is on_hold
    assert detail.jobs[1].state is (JobState.ON_HOLD if on_hold else JobState.QUEUED), (
        "the other image was not rejected"
    )


def test_the_same_note_again_changes_nothing(database: Database) -> None:
    record(database)
    database.write(rejection_notes.reject, QUALITY, NOW)
    before = database.read(study_details.study_detail, study_of(database))
    assert database.write(rejection_notes.reject, QUALITY, NOW + timedelta(hours=1)) == ()
    assert database.read(study_details.study_detail, study_of(database)) == before


def test_an_image_that_comes_after_its_note_is_refused(database: Database) -> None:
    assert database.write(rejection_notes.reject, QUALITY, NOW) == ()
    ingest = record_instance(database, received(), None, PIPELINE, NOW)
    assert ingest.job_ids == ()
    (instance,) = database.read(study_details.study_detail, study_of(database)).instances
    assert instance.not_eligible is not None
    assert instance.not_eligible.code == "rejected"


def test_a_complete_study_is_opened_for_a_new_summary(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    assert database.write(studies.complete, study_id, (), {}, NOW + MINUTE) is not None
    database.write(rejection_notes.reject, QUALITY, NOW + MINUTE)
    assert study_id in database.read(studies.stable, NOW + 3 * MINUTE, MINUTE)
