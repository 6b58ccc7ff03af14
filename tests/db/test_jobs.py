"""Claims, ends and second attempts of jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from db import deliveries, holds, jobs, studies
from db.database import Database
from db.errors import DuplicateResultError, RecordNotFoundError, StudyOnHoldError, TransitionError
from db.queries import metrics, study_details
from db.queries.worklist import Worklist
from db.records import NotEligible, Outcome
from db.states import WAITS_FOR_SERVER, DeliveryState, InstanceState, JobState, StudyState
from tests.commands import study_facts
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
from tests.db.recorded import deliveries_of_job, queue_counts

NOT_ANALYSED_IMAGE = NotEligible("blank", "the image is blank")


def job_state(database: Database, study: int = 1) -> JobState:
    return database.read(study_details.study_detail, study_of(database, study)).jobs[0].state


def test_a_claim_gives_what_the_worker_needs(database: Database) -> None:
    job = claim(database, record(database, stat=True))
    source = received()
    assert (job.sop_instance_uid, job.instance_digest, job.instance_path) == (
        source.sop_instance_uid,
        source.digest,
        source.path,
    )
    assert (job.state, job.attempts, job.revision, job.stat, job.created_at) == (JobState.RUNNING, 1, 1, True, NOW)


def test_a_running_job_is_claimed_again_only_after_its_lease(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    assert database.write(jobs.claim, job_id, "w2", NOW + MINUTE - SECOND, MINUTE) is None
    assert claim(database, job_id, "w2", now=NOW + MINUTE).attempts == 2
    assert database.write(jobs.finish, job_id, "w1", outcome(), NOW + MINUTE) is None
    assert database.write(jobs.fail, job_id, "w1", "late", NOW + MINUTE) is False
    assert database.write(jobs.retry, job_id, "w1", "late", NOW + MINUTE, SECOND) is False
    detail = database.read(study_details.study_detail, study_of(database))
    assert (detail.jobs[0].state, detail.jobs[0].worker, detail.results) == (JobState.RUNNING, "w2", ())


def test_claiming_what_is_not_there_gives_none(database: Database) -> None:
    assert database.write(jobs.claim, 4711, "w1", NOW, MINUTE) is None
    with pytest.raises(RecordNotFoundError, match="there is no job 4711"):
        database.write(jobs.finish, 4711, "w1", outcome(), NOW)


def test_finishing_writes_findings_results_and_deliveries_together(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    extra = outcome(
        findings=(finding(), finding("lung_opacity", probability=None, present=False, shadow=True, area_mm2=12.5)),
        destinations={"pacs": ("seg", "sr"), "viewer": ("sr",)},
        timings={"predict": 0.25},
    )
    delivery_ids = database.write(jobs.finish, job_id, "w1", extra, NOW + SECOND)
    seg_to_pacs, _, sr_to_viewer = database.read(deliveries_of_job, job_id)
    assert delivery_ids == (seg_to_pacs, sr_to_viewer), "who sends the first takes along what goes there, too"
    detail = database.read(study_details.study_detail, study_of(database))
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


def test_finishing_twice_writes_once(database: Database) -> None:
    job_id, delivery_ids = finished(database)
    before = database.read(study_details.study_detail, study_of(database))
    assert database.write(jobs.finish, job_id, "w1", outcome(1010), NOW + MINUTE) == delivery_ids[:1]
    assert database.write(jobs.finish, job_id, "w2", outcome(1010), NOW + MINUTE) is None
    assert database.read(study_details.study_detail, study_of(database)) == before


def test_a_result_of_other_work_stops_the_end_of_a_job(database: Database) -> None:
    finished(database)
    job_id = record(database, 2)
    claim(database, job_id)
    with pytest.raises(DuplicateResultError, match=r"2\.25\.1010"):
        database.write(jobs.finish, job_id, "w1", outcome(1010), NOW)
    assert database.read(study_details.study_detail, study_of(database)).jobs[1].state is JobState.RUNNING


def test_an_image_that_is_not_analysed_is_refused_by_its_job(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    assert database.write(jobs.finish, job_id, "w1", Outcome(not_analysed=NOT_ANALYSED_IMAGE), NOW) == ()
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.jobs[0].not_analysed == NOT_ANALYSED_IMAGE
    assert (detail.instances[0].state, detail.instances[0].not_eligible) == (
        InstanceState.NOT_ELIGIBLE,
        NOT_ANALYSED_IMAGE,
    )
    facts = study_facts(database, detail.row.study_id)
    assert (facts.images_not_eligible, facts.images_not_analysed, facts.jobs_done, detail.row.not_eligible) == (
        0,
        1,
        1,
        1,
    )
    database.write(jobs.requeue, job_id, "admin", "look again", NOW)
    facts = study_facts(database, detail.row.study_id)
    assert (facts.images_not_analysed, facts.jobs_waiting) == (0, 1)
    assert Worklist(database.engine).page()[0].not_eligible == 0
    assert database.read(study_details.study_detail, detail.row.study_id).instances[0].state is InstanceState.ELIGIBLE


def test_a_retry_is_due_later_and_enqueued_for_when_due(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    assert database.write(jobs.retry, job_id, "w1", "destination is full", NOW, MINUTE)
    assert database.read(jobs.to_enqueue, NOW + MINUTE - SECOND, HOUR) == ()
    assert database.write(jobs.claim, job_id, "w1", NOW + MINUTE - SECOND, MINUTE) is None
    assert database.read(jobs.to_enqueue, NOW + MINUTE, HOUR) == ((job_id, False),)
    database.write(jobs.mark_dispatched, [job_id], NOW + MINUTE)
    assert database.read(jobs.to_enqueue, NOW + MINUTE, HOUR) == ()
    assert claim(database, job_id, now=NOW + MINUTE).attempts == 2


def test_an_attempt_that_met_no_model_server_does_not_count(database: Database) -> None:
    job_id = record(database)
    for number in range(3):
        at = NOW + number * MINUTE
        assert claim(database, job_id, now=at).attempts == 1
        away = f"{WAITS_FOR_SERVER}it cannot be reached"
        assert database.write(jobs.retry, job_id, "w1", away, at, MINUTE, counted=False)
    assert database.read(metrics.waiting_for_model_server) == 1
    assert claim(database, job_id, now=NOW + 4 * MINUTE).attempts == 1
    assert database.read(metrics.waiting_for_model_server) == 0


def test_a_failed_job_is_failed_until_a_person_asks(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    assert database.write(jobs.fail, job_id, "w1", "native crash", NOW)
    assert database.read(jobs.to_enqueue, NOW + HOUR, SECOND) == ()
    assert database.write(jobs.claim, job_id, "w1", NOW + HOUR, MINUTE) is None
    assert database.read(queue_counts) == {"jobs.failed": 1}
    database.write(jobs.requeue, job_id, "admin", "driver updated", NOW + HOUR)
    assert database.read(jobs.to_enqueue, NOW + HOUR, HOUR) == ((job_id, False),)
    job = claim(database, job_id, now=NOW + HOUR)
    assert (job.attempts, job.revision, job.created_at) == (1, 1, NOW)
    last = [one for one in database.read(study_details.study_detail, job.study_id).events if one.actor == "admin"]
    assert [(one.from_state, one.to_state, one.cause, one.at) for one in last] == [
        ("failed", "queued", "driver updated", NOW + HOUR)
    ]


def test_running_a_finished_job_again_makes_the_next_revision_and_replaces_what_was_not_sent(
    database: Database,
) -> None:
    job_id, (seg, sr) = finished(database)
    study_id = study_of(database)
    assert database.write(deliveries.claim, seg, "w1", NOW, MINUTE)
    assert database.write(deliveries.sent, seg, "w1", NOW)
    assert database.write(studies.complete, study_id, (), {}, NOW) == ()
    database.write(jobs.requeue, job_id, "admin", "new threshold", NOW + HOUR)
    assert Worklist(database.engine).page()[0].state is StudyState.OPEN
    assert Worklist(database.engine).page()[0].findings == (finding(),)
    job = claim(database, job_id, now=NOW + HOUR)
    assert (job.revision, job.created_at) == (2, NOW + HOUR)
    again = replace(outcome(2000), findings=(finding(present=False),))
    assert database.write(jobs.finish, job_id, "w1", again, NOW + HOUR) is not None
    detail = database.read(study_details.study_detail, study_id)
    states = {one.id: one.state for one in detail.deliveries}
    assert (states[seg], states[sr]) == (DeliveryState.SENT, DeliveryState.WITHDRAWN)
    assert [one.revision for one in detail.results] == [1, 1, 2, 2]
    assert detail.row.present == ()
    assert detail.jobs[0].findings == again.findings


@pytest.mark.parametrize("running", [False, True])
def test_what_is_on_its_way_cannot_be_queued_again(database: Database, running: bool) -> None:
    job_id = record(database)
    if running:
        claim(database, job_id)
    with pytest.raises(TransitionError, match=f"job {job_id} is {'running' if running else 'queued'}"):
        database.write(jobs.requeue, job_id, "admin", "again", NOW)


def test_a_job_of_a_study_on_hold_must_wait_for_its_release(database: Database) -> None:
    job_id = record(database)
    database.write(holds.hold, study_of(database), "wrong patient", "admin", NOW)
    with pytest.raises(StudyOnHoldError, match="wrong patient"):
        database.write(jobs.requeue, job_id, "admin", "again", NOW)


def test_a_job_that_runs_while_its_study_is_on_hold_leaves_deliveries_on_hold(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    study_id = study_of(database)
    database.write(holds.hold, study_id, "merged", "admin", NOW)
    assert database.write(jobs.finish, job_id, "w1", outcome(), NOW) == ()
    detail = database.read(study_details.study_detail, study_id)
    assert {one.state for one in detail.deliveries} == {DeliveryState.ON_HOLD}
    for one in detail.deliveries:
        assert database.write(deliveries.claim, one.id, "w1", NOW, MINUTE) is None
    database.write(holds.release, study_id, "admin", NOW)
    assert len(database.read(deliveries.to_enqueue, NOW, HOUR)) == 2


def test_a_retry_in_a_study_on_hold_is_on_hold(database: Database) -> None:
    job_id = record(database)
    claim(database, job_id)
    database.write(holds.hold, study_of(database), "merged", "admin", NOW)
    assert database.write(jobs.retry, job_id, "w1", "no memory", NOW, SECOND)
    assert job_state(database) is JobState.ON_HOLD
    assert database.write(holds.release, study_of(database), "admin", NOW) == (job_id,)


def test_the_jobs_of_dead_workers_go_back_to_the_queue(database: Database) -> None:
    mine, other, like = (record(database, study=study) for study in (1, 2, 3))
    claim(database, mine, "host_1.7")
    claim(database, other, "host_2.7")
    claim(database, like, "hostX1.7")
    assert database.write(jobs.release, "host_1.", NOW) == (mine,)
    assert database.read(jobs.to_enqueue, NOW, HOUR) == ((mine, False),)
    assert database.write(jobs.finish, mine, "host_1.7", outcome(), NOW) is None


def test_lost_messages_are_enqueued_again_stat_first(database: Database) -> None:
    routine = record(database, study=1)
    stat = record(database, study=2, stat=True)
    left = record(database, study=3)
    claim(database, left)
    assert database.read(jobs.to_enqueue, NOW + SECOND, MINUTE) == ()
    later = NOW + MINUTE
    assert database.read(jobs.to_enqueue, later, MINUTE) == ((stat, True), (routine, False), (left, False))
    assert database.read(jobs.to_enqueue, later, MINUTE, limit=1) == ((stat, True),)
    database.write(jobs.mark_dispatched, [routine, stat, left], later)
    assert database.read(jobs.to_enqueue, later + SECOND, MINUTE) == ()
    assert len(database.read(jobs.to_enqueue, later + MINUTE, MINUTE)) == 3


def test_late_jobs_are_those_that_have_not_ended(database: Database) -> None:
    waiting = record(database, study=1)
    finished(database, study=2)
    assert database.read(jobs.late, NOW + HOUR - SECOND, HOUR) == ()
    assert database.read(jobs.late, NOW + HOUR, HOUR) == (waiting,)


def test_jobs_wait_in_the_queue_of_the_device_that_they_need(database: Database) -> None:
    large, small = record(database, 1, 1, queue="jobs.gpu"), record(database, 2, 2, queue="jobs.cpu")
    assert database.read(jobs.to_enqueue, NOW + HOUR, MINUTE, queue="jobs.gpu") == ((large, False),)
    assert database.read(jobs.to_enqueue, NOW + HOUR, MINUTE) == (), "no job waits where all would"
    assert database.read(jobs.never_tried, 9, "jobs.cpu") == (small,), "a batch takes none of the other queue"
    assert database.read(jobs.as_many_wait, 2)
    assert not database.read(jobs.as_many_wait, 2, "jobs.cpu")
    assert database.read(jobs.by_queue, [small, large]) == {"jobs.gpu": (large,), "jobs.cpu": (small,)}
    assert {
        name: one.count for name, one in database.read(metrics.waiting, ["jobs.cpu"]).items() if "jobs" in name
    } == {
        "jobs.cpu": 1,
        "jobs.gpu": 1,
    }


def test_a_job_that_a_worker_of_another_queue_has_claimed_is_left_to_its_own(database: Database) -> None:
    job_id = record(database, queue="jobs.cpu")
    claim(database, job_id)
    assert not database.write(jobs.hand_over, job_id, "another", "jobs.gpu", NOW), "the claim is not its own"
    assert database.write(jobs.hand_over, job_id, "w1", "jobs.gpu", NOW)
    assert database.read(jobs.to_enqueue, NOW, HOUR, queue="jobs.gpu") == ((job_id, False),), "at once"
    assert claim(database, job_id).attempts == 1, "it was not tried"


def test_jobs_follow_a_configuration_that_has_other_queues(database: Database) -> None:
    job_id, (done, _) = record(database), finished(database, 2, 2)
    assert database.read(jobs.in_other_queues, ["jobs"], 9) == ()
    assert database.read(jobs.in_other_queues, ["jobs.cpu", "jobs.gpu"], 9) == ((job_id, None),), "not what is done"
    database.write(jobs.put_into_queue, [job_id, done], "jobs.gpu")
    assert database.read(jobs.to_enqueue, NOW, HOUR, queue="jobs.gpu") == ((job_id, False),)
    assert database.read(jobs.by_queue, [done]) == {"jobs": (done,)}


def test_a_stat_job_that_nobody_has_taken_is_found(database: Database) -> None:
    record(database, 1, 1)
    tried, stat, other = (record(database, number, number, stat=True) for number in (2, 3, 4))
    claim(database, tried)
    database.write(jobs.release, "w1", NOW)
    assert database.read(jobs.first_stat, "jobs") == stat, "the one that was taken before may have ended its process"
    assert database.read(jobs.first_stat, "jobs.cpu") is None
    database.write(holds.hold, study_of(database, 3), "merged", "admin", NOW)
    assert database.read(jobs.first_stat, "jobs") == other
