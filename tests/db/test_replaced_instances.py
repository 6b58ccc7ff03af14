"""An image that came again with other content, and was released by a person: from then on it counts alone."""

from __future__ import annotations

import pytest

from db import deliveries, holds, jobs, repeated_instances
from db.database import Database
from db.queries import study_details
from db.records import FindingRecord, Job, NotEligible, Outcome
from db.states import DeliveryState, JobState
from tests.commands import record_instance, study_facts
from tests.db.examples import (
    LATERAL,
    MINUTE,
    NOW,
    PIPELINE,
    TO_PACS,
    claim,
    finding,
    finished,
    outcome,
    received,
    result,
    study_of,
)


def corrected(database: Database, not_eligible: NotEligible | None = None) -> int:
    """Let another version come, and let a worker find out that it is another one; its job."""
    other = received(digest="e" * 64, path="corrected")
    (job_id,) = record_instance(database, other, not_eligible, PIPELINE, NOW).job_ids
    claim(database, job_id)
    assert database.write(repeated_instances.record_comparison, job_id, "w1", "other PatientName", NOW)
    return job_id


def released(database: Database) -> Job:
    job_id = corrected(database)
    assert database.write(holds.release, study_of(database), "admin", NOW) == (job_id,)
    return claim(database, job_id)


def test_one_image_is_counted_and_its_findings_are_those_of_the_newest(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    job = released(database)
    assert job.replaces
    assert study_facts(database, study_id).findings == (), "the older version's count no more"
    opacity = finding("lung_opacity")
    database.write(jobs.finish, job.id, "w1", Outcome(findings=(opacity,)), NOW)
    detail = database.read(study_details.study_detail, study_id)
    assert (detail.row.images, detail.row.not_eligible) == (1, 0)
    assert study_facts(database, study_id).findings == (opacity,)
    assert study_facts(database, study_id).jobs_done == 1
    assert [one.flag for one in detail.instances] == ["replaced", "conflict"]
    assert [one.state for one in detail.jobs] == [JobState.WITHDRAWN, JobState.DONE]


def test_what_was_made_of_the_older_one_does_not_leave_beside_the_newer(database: Database) -> None:
    _, (seg, report) = finished(database)
    database.write(deliveries.claim, seg, "d1", NOW, MINUTE)
    database.write(deliveries.sent, seg, "d1", NOW)
    released(database)
    delivery_ids = {one.id: one for one in database.read(study_details.study_detail, study_of(database)).deliveries}
    assert [delivery_ids[one].state for one in (seg, report)] == [DeliveryState.WITHDRAWN] * 2
    assert "must be removed there" in delivery_ids[seg].error
    assert "must be removed" not in delivery_ids[report].error
    assert database.write(deliveries.claim, report, "d1", NOW, MINUTE) is None


def test_an_older_one_that_is_being_analysed_loses_its_worker(database: Database) -> None:
    (running,) = record_instance(database, received(), None, PIPELINE, NOW).job_ids
    claim(database, running, "w2")
    released(database)
    assert database.write(jobs.finish, running, "w2", outcome(), NOW) is None


@pytest.mark.parametrize("not_analysed", [False, True])
def test_a_newer_one_that_is_not_eligible_takes_the_older_ones_place_too(
    database: Database, not_analysed: bool
) -> None:
    finished(database)
    study_id = study_of(database)
    if not_analysed:
        job_id = database.read(study_details.study_detail, study_id).jobs[0].id
        database.write(jobs.requeue, job_id, "admin", "again", NOW)
        claim(database, job_id)
        found: tuple[FindingRecord, ...] = ()
        database.write(jobs.finish, job_id, "w1", Outcome(found, (result("sr", 77),), LATERAL, {}, TO_PACS), NOW)
    corrected(database, LATERAL)
    assert database.write(holds.release, study_id, "admin", NOW) == ()
    detail = database.read(study_details.study_detail, study_id)
    assert (detail.row.images, detail.row.not_eligible) == (1, 1)
    facts = study_facts(database, study_id)
    assert (facts.findings, facts.jobs_done, facts.images_not_eligible, facts.images_not_analysed) == ((), 0, 1, 0)


def test_releasing_a_study_that_was_on_hold_for_another_reason_replaces_nothing(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    database.write(holds.hold, study_id, "a question", "admin", NOW)
    database.write(holds.release, study_id, "admin", NOW)
    assert [one.flag for one in database.read(study_details.study_detail, study_id).instances] == [""]


def test_the_replaced_version_that_comes_once_more_is_a_repeat(database: Database) -> None:
    finished(database)
    job = released(database)
    database.write(jobs.finish, job.id, "w1", Outcome(), NOW)
    ingest = record_instance(database, received(digest="c" * 64), None, PIPELINE, NOW)
    again = claim(database, ingest.job_ids[0])
    assert again.compare_with == ("corrected", "instances/01/1.dcm")
