"""An image that came again with other content, and was released by a person: from then on it counts alone."""

from __future__ import annotations

import pytest

from db.records import DeliveryState, FindingRecord, Job, JobState, NotEligible, Outcome
from db.worklist import Worklist
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


def corrected(worklist: Worklist, not_eligible: NotEligible | None = None) -> int:
    """Let another version come, and let a worker find out that it is another one; its job."""
    other = received(digest="e" * 64, path="corrected")
    (job_id,) = worklist.record_instance(other, not_eligible, PIPELINE, NOW).job_ids
    claim(worklist, job_id)
    assert worklist.settle_comparison(job_id, "w1", "other PatientName", NOW)
    return job_id


def released(worklist: Worklist) -> Job:
    job_id = corrected(worklist)
    assert worklist.release_study(study_of(worklist), "admin", NOW) == (job_id,)
    return claim(worklist, job_id)


def test_one_image_is_counted_and_its_findings_are_those_of_the_newest(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    job = released(worklist)
    assert job.replaces
    assert worklist.study_facts(study_id).findings == (), "the older version's count no more"
    opacity = finding("lung_opacity")
    worklist.finish_job(job.id, "w1", Outcome(findings=(opacity,)), NOW)
    detail = worklist.study_detail(study_id)
    assert (detail.row.images, detail.row.not_eligible) == (1, 0)
    assert worklist.study_facts(study_id).findings == (opacity,)
    assert worklist.study_facts(study_id).jobs_done == 1
    assert [one.flag for one in detail.instances] == ["replaced", "conflict"]
    assert [one.state for one in detail.jobs] == [JobState.WITHDRAWN, JobState.DONE]


def test_what_was_made_of_the_older_one_does_not_leave_beside_the_newer(worklist: Worklist) -> None:
    _, (seg, report) = finished(worklist)
    worklist.claim_delivery(seg, "d1", NOW, MINUTE)
    worklist.delivery_sent(seg, "d1", NOW)
    released(worklist)
    deliveries = {one.id: one for one in worklist.study_detail(study_of(worklist)).deliveries}
    assert [deliveries[one].state for one in (seg, report)] == [DeliveryState.WITHDRAWN] * 2
    assert "must be removed there" in deliveries[seg].error
    assert "must be removed" not in deliveries[report].error
    assert worklist.claim_delivery(report, "d1", NOW, MINUTE) is None


def test_an_older_one_that_is_being_analysed_loses_its_worker(worklist: Worklist) -> None:
    (running,) = worklist.record_instance(received(), None, PIPELINE, NOW).job_ids
    claim(worklist, running, "w2")
    released(worklist)
    assert worklist.finish_job(running, "w2", outcome(), NOW) is None


@pytest.mark.parametrize("not_analysed", [False, True])
def test_a_newer_one_that_is_not_eligible_takes_the_older_ones_place_too(
    worklist: Worklist, not_analysed: bool
) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    if not_analysed:
        job_id = worklist.study_detail(study_id).jobs[0].id
        worklist.requeue_job(job_id, "admin", "again", NOW)
        claim(worklist, job_id)
        found: tuple[FindingRecord, ...] = ()
        worklist.finish_job(job_id, "w1", Outcome(found, (result("sr", 77),), LATERAL, {}, TO_PACS), NOW)
    corrected(worklist, LATERAL)
    assert worklist.release_study(study_id, "admin", NOW) == ()
    detail = worklist.study_detail(study_id)
    assert (detail.row.images, detail.row.not_eligible) == (1, 1)
    facts = worklist.study_facts(study_id)
    assert (facts.findings, facts.jobs_done, facts.images_not_eligible, facts.images_not_analysed) == ((), 0, 1, 0)


def test_releasing_a_study_that_was_on_hold_for_another_reason_replaces_nothing(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    worklist.hold_study(study_id, "a question", "admin", NOW)
    worklist.release_study(study_id, "admin", NOW)
    assert [one.flag for one in worklist.study_detail(study_id).instances] == [""]


def test_the_replaced_version_that_comes_once_more_is_a_repeat(worklist: Worklist) -> None:
    finished(worklist)
    job = released(worklist)
    worklist.finish_job(job.id, "w1", Outcome(), NOW)
    ingest = worklist.record_instance(received(digest="c" * 64), None, PIPELINE, NOW)
    again = claim(worklist, ingest.job_ids[0])
    assert again.compare_with == ("corrected", "instances/01/1.dcm")
