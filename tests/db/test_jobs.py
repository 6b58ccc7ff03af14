"""Claims, ends and second attempts of jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from db.errors import DuplicateResultError, RecordNotFoundError, StudyOnHoldError, TransitionError
from db.records import (
    DeliveryState,
    InstanceState,
    JobState,
    NotEligible,
    Outcome,
    StudyState,
)
from db.worklist import Worklist
from tests.db.examples import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    claim,
    finding,
    finished,
    outcome,
    received,
    record,
    study_of,
)

NOT_ANALYSED_IMAGE = NotEligible("blank", "the image is blank")


def job_state(worklist: Worklist, study: int = 1) -> JobState:
    return worklist.study_detail(study_of(worklist, study)).jobs[0].state


def test_a_claim_gives_what_the_worker_needs(worklist: Worklist) -> None:
    job = claim(worklist, record(worklist, stat=True))
    source = received()
    assert (job.sop_instance_uid, job.instance_digest, job.instance_path) == (
        source.sop_instance_uid,
        source.digest,
        source.path,
    )
    assert (job.state, job.attempts, job.revision, job.stat, job.created_at) == (JobState.RUNNING, 1, 1, True, NOW)


def test_a_running_job_is_claimed_again_only_after_its_lease(worklist: Worklist) -> None:
    job_id = record(worklist)
    claim(worklist, job_id)
    assert worklist.claim_job(job_id, "w2", NOW + MINUTE - SECOND, MINUTE) is None
    assert claim(worklist, job_id, "w2", now=NOW + MINUTE).attempts == 2
    assert worklist.finish_job(job_id, "w1", outcome(), NOW + MINUTE) is None
    assert worklist.fail_job(job_id, "w1", "late", NOW + MINUTE) is False
    assert worklist.retry_job(job_id, "w1", "late", NOW + MINUTE, SECOND) is False
    detail = worklist.study_detail(study_of(worklist))
    assert (detail.jobs[0].state, detail.jobs[0].worker, detail.results) == (JobState.RUNNING, "w2", ())


def test_claiming_what_is_not_there_gives_none(worklist: Worklist) -> None:
    assert worklist.claim_job(4711, "w1", NOW, MINUTE) is None
    with pytest.raises(RecordNotFoundError, match="there is no job 4711"):
        worklist.finish_job(4711, "w1", outcome(), NOW)


def test_finishing_writes_findings_results_and_deliveries_together(worklist: Worklist) -> None:
    job_id = record(worklist)
    claim(worklist, job_id)
    extra = outcome(
        findings=(finding(), finding("lung_opacity", probability=None, present=False, shadow=True, area_mm2=12.5)),
        destinations={"pacs": ("seg", "sr"), "viewer": ("sr",)},
        timings={"predict": 0.25},
    )
    deliveries = worklist.finish_job(job_id, "w1", extra, NOW + SECOND)
    assert deliveries is not None
    assert len(deliveries) == 3
    detail = worklist.study_detail(study_of(worklist))
    assert detail.jobs[0].findings == extra.findings
    assert detail.jobs[0].timings == {"predict": 0.25}
    assert detail.jobs[0].finished_at == NOW + SECOND
    assert [one.record for one in detail.results] == list(extra.results)
    assert [(one.destination, one.kind) for one in detail.deliveries] == [
        ("pacs", "seg"),
        ("pacs", "sr"),
        ("viewer", "sr"),
    ]
    assert detail.row.present == (finding(),)
    assert detail.row.deliveries_open == 3
    assert worklist.deliveries_of_job(job_id) == deliveries


def test_finishing_twice_writes_once(worklist: Worklist) -> None:
    job_id, deliveries = finished(worklist)
    before = worklist.study_detail(study_of(worklist))
    assert worklist.finish_job(job_id, "w1", outcome(1010), NOW + MINUTE) == deliveries
    assert worklist.finish_job(job_id, "w2", outcome(1010), NOW + MINUTE) is None
    assert worklist.study_detail(study_of(worklist)) == before


def test_a_result_of_other_work_stops_the_end_of_a_job(worklist: Worklist) -> None:
    finished(worklist)
    job_id = record(worklist, 2)
    claim(worklist, job_id)
    with pytest.raises(DuplicateResultError, match=r"2\.25\.1010"):
        worklist.finish_job(job_id, "w1", outcome(1010), NOW)
    assert worklist.study_detail(study_of(worklist)).jobs[1].state is JobState.RUNNING


def test_an_not_analysed_image_is_refused_by_its_job(worklist: Worklist) -> None:
    job_id = record(worklist)
    claim(worklist, job_id)
    assert worklist.finish_job(job_id, "w1", Outcome(not_analysed=NOT_ANALYSED_IMAGE), NOW) == ()
    detail = worklist.study_detail(study_of(worklist))
    assert detail.jobs[0].not_analysed == NOT_ANALYSED_IMAGE
    assert (detail.instances[0].state, detail.instances[0].not_eligible) == (
        InstanceState.NOT_ELIGIBLE,
        NOT_ANALYSED_IMAGE,
    )
    facts = worklist.study_facts(detail.row.study_id)
    assert (facts.images_not_eligible, facts.images_not_analysed, facts.jobs_done, detail.row.not_eligible) == (
        0,
        1,
        1,
        1,
    )
    worklist.requeue_job(job_id, "admin", "look again", NOW)
    facts = worklist.study_facts(detail.row.study_id)
    assert (facts.images_not_analysed, facts.jobs_waiting) == (0, 1)
    assert worklist.worklist()[0].not_eligible == 0
    assert worklist.study_detail(detail.row.study_id).instances[0].state is InstanceState.ELIGIBLE


def test_a_retry_is_due_later_and_enqueued_for_when_due(worklist: Worklist) -> None:
    job_id = record(worklist)
    claim(worklist, job_id)
    assert worklist.retry_job(job_id, "w1", "destination is full", NOW, MINUTE)
    assert worklist.jobs_to_enqueue(NOW + MINUTE - SECOND, HOUR) == ()
    assert worklist.claim_job(job_id, "w1", NOW + MINUTE - SECOND, MINUTE) is None
    assert worklist.jobs_to_enqueue(NOW + MINUTE, HOUR) == ((job_id, False),)
    worklist.mark_dispatched([job_id], NOW + MINUTE)
    assert worklist.jobs_to_enqueue(NOW + MINUTE, HOUR) == ()
    assert claim(worklist, job_id, now=NOW + MINUTE).attempts == 2


def test_a_failed_job_is_failed_until_a_person_asks(worklist: Worklist) -> None:
    job_id = record(worklist)
    claim(worklist, job_id)
    assert worklist.fail_job(job_id, "w1", "native crash", NOW)
    assert worklist.jobs_to_enqueue(NOW + HOUR, SECOND) == ()
    assert worklist.claim_job(job_id, "w1", NOW + HOUR, MINUTE) is None
    assert worklist.queue_counts() == {"jobs.failed": 1}
    worklist.requeue_job(job_id, "admin", "driver updated", NOW + HOUR)
    assert worklist.jobs_to_enqueue(NOW + HOUR, HOUR) == ((job_id, False),)
    job = claim(worklist, job_id, now=NOW + HOUR)
    assert (job.attempts, job.revision, job.created_at) == (1, 1, NOW)
    last = [one for one in worklist.study_detail(job.study_id).events if one.actor == "admin"]
    assert [(one.from_state, one.to_state, one.cause, one.at) for one in last] == [
        ("failed", "queued", "driver updated", NOW + HOUR)
    ]


def test_running_a_finished_job_again_makes_the_next_revision_and_replaces_what_was_not_sent(
    worklist: Worklist,
) -> None:
    job_id, (seg, sr) = finished(worklist)
    study_id = study_of(worklist)
    assert worklist.claim_delivery(seg, "w1", NOW, MINUTE)
    assert worklist.delivery_sent(seg, "w1", NOW)
    assert worklist.complete_study(study_id, (), {}, NOW) == ()
    worklist.requeue_job(job_id, "admin", "new threshold", NOW + HOUR)
    assert worklist.worklist()[0].state is StudyState.OPEN
    assert worklist.worklist()[0].findings == (finding(),)
    job = claim(worklist, job_id, now=NOW + HOUR)
    assert (job.revision, job.created_at) == (2, NOW + HOUR)
    again = replace(outcome(2000), findings=(finding(present=False),))
    assert worklist.finish_job(job_id, "w1", again, NOW + HOUR) is not None
    detail = worklist.study_detail(study_id)
    states = {one.id: one.state for one in detail.deliveries}
    assert (states[seg], states[sr]) == (DeliveryState.SENT, DeliveryState.WITHDRAWN)
    assert [one.revision for one in detail.results] == [1, 1, 2, 2]
    assert detail.row.present == ()
    assert detail.jobs[0].findings == again.findings


@pytest.mark.parametrize("running", [False, True])
def test_what_is_on_its_way_cannot_be_queued_again(worklist: Worklist, running: bool) -> None:
    job_id = record(worklist)
    if running:
        claim(worklist, job_id)
    with pytest.raises(TransitionError, match=f"job {job_id} is {'running' if running else 'queued'}"):
        worklist.requeue_job(job_id, "admin", "again", NOW)


def test_a_job_of_a_on_hold_study_must_wait_for_its_release(worklist: Worklist) -> None:
    job_id = record(worklist)
    worklist.hold_study(study_of(worklist), "wrong patient", "admin", NOW)
    with pytest.raises(StudyOnHoldError, match="wrong patient"):
        worklist.requeue_job(job_id, "admin", "again", NOW)


def test_a_job_that_runs_while_its_study_is_on_hold_leaves_on_hold_deliveries(worklist: Worklist) -> None:
    job_id = record(worklist)
    claim(worklist, job_id)
    study_id = study_of(worklist)
    worklist.hold_study(study_id, "merged", "admin", NOW)
    assert worklist.finish_job(job_id, "w1", outcome(), NOW) == ()
    detail = worklist.study_detail(study_id)
    assert {one.state for one in detail.deliveries} == {DeliveryState.ON_HOLD}
    for one in detail.deliveries:
        assert worklist.claim_delivery(one.id, "w1", NOW, MINUTE) is None
    worklist.release_study(study_id, "admin", NOW)
    assert len(worklist.deliveries_to_enqueue(NOW, HOUR)) == 2


def test_a_retry_in_a_on_hold_study_is_on_hold(worklist: Worklist) -> None:
    job_id = record(worklist)
    claim(worklist, job_id)
    worklist.hold_study(study_of(worklist), "merged", "admin", NOW)
    assert worklist.retry_job(job_id, "w1", "no memory", NOW, SECOND)
    assert job_state(worklist) is JobState.ON_HOLD
    assert worklist.release_study(study_of(worklist), "admin", NOW) == (job_id,)


def test_the_jobs_of_dead_workers_go_back_to_the_queue(worklist: Worklist) -> None:
    mine, other, like = (record(worklist, study=study) for study in (1, 2, 3))
    claim(worklist, mine, "host_1.7")
    claim(worklist, other, "host_2.7")
    claim(worklist, like, "hostX1.7")
    assert worklist.release_jobs("host_1.", NOW) == (mine,)
    assert worklist.jobs_to_enqueue(NOW, HOUR) == ((mine, False),)
    assert worklist.finish_job(mine, "host_1.7", outcome(), NOW) is None


def test_lost_messages_are_enqueued_again_stat_first(worklist: Worklist) -> None:
    routine = record(worklist, study=1)
    stat = record(worklist, study=2, stat=True)
    left = record(worklist, study=3)
    claim(worklist, left)
    assert worklist.jobs_to_enqueue(NOW + SECOND, MINUTE) == ()
    later = NOW + MINUTE
    assert worklist.jobs_to_enqueue(later, MINUTE) == ((stat, True), (routine, False), (left, False))
    assert worklist.jobs_to_enqueue(later, MINUTE, limit=1) == ((stat, True),)
    worklist.mark_dispatched([routine, stat, left], later)
    assert worklist.jobs_to_enqueue(later + SECOND, MINUTE) == ()
    assert len(worklist.jobs_to_enqueue(later + MINUTE, MINUTE)) == 3


def test_late_jobs_are_those_that_have_not_ended(worklist: Worklist) -> None:
    waiting = record(worklist, study=1)
    finished(worklist, study=2)
    assert worklist.late_jobs(NOW + HOUR - SECOND, HOUR) == ()
    assert worklist.late_jobs(NOW + HOUR, HOUR) == (waiting,)
