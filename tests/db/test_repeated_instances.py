"""An instance that comes again in other bytes: what is recorded until it is compared, and what the answer changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from db.records import Analysis, InstanceState, Job, JobState, RejectionNote, StudyState
from db.worklist import Worklist
from tests.db.examples import HOUR, LATERAL, MINUTE, NOW, PIPELINE, claim, finished, received, record, study_of

OTHER: dict[str, Any] = {"digest": "e" * 64, "path": "other", "transfer_syntax_uid": "1.2.840.10008.1.2"}


def come_again(worklist: Worklist, **changes: Any) -> int:
    ingest = worklist.record_instance(received(**{**OTHER, **changes}), None, PIPELINE, NOW + MINUTE)
    assert ingest.comparing
    assert not ingest.conflict
    assert ingest.pressing, "a comparison is quick, and a wrong image must be found soon"
    (job_id,) = ingest.job_ids
    return job_id


def taken(worklist: Worklist, job_id: int) -> Job:
    job = claim(worklist, job_id, now=NOW + MINUTE)
    assert job.compare_with == ("instances/01/1.dcm",)
    return job


def test_a_study_is_left_as_it_is_until_its_image_is_compared(worklist: Worklist) -> None:
    _, deliveries = finished(worklist)
    study_id = study_of(worklist)
    assert worklist.complete_study(study_id, (), {}, NOW) == ()
    before = worklist.study_detail(study_id).row
    come_again(worklist)
    assert replace(worklist.study_detail(study_id).row, jobs=before.jobs) == before
    assert before.state is StudyState.COMPLETE
    assert worklist.claim_delivery(deliveries[0], "w1", NOW + MINUTE, MINUTE) is not None, "results go on"


def test_a_repeat_changes_nothing_but_its_own_row(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    before = worklist.study_detail(study_id)
    facts = worklist.study_facts(study_id)
    job = taken(worklist, come_again(worklist))
    assert worklist.settle_comparison(job.id, "w1", "", NOW + MINUTE)
    after = worklist.study_detail(study_id)
    assert replace(after.row, jobs=before.row.jobs) == before.row
    assert worklist.study_facts(study_id) == facts
    assert (after.deliveries, after.results) == (before.deliveries, before.results)
    instance = after.instances[1]
    assert (instance.flag, instance.state) == ("repeat", InstanceState.NOT_ELIGIBLE)
    assert instance.not_eligible is not None
    assert "came before" in instance.not_eligible.sentence
    assert after.jobs[1].state is JobState.WITHDRAWN
    assert worklist.jobs_to_enqueue(NOW + HOUR, MINUTE) == ()


def test_the_same_bytes_of_a_repeat_are_not_compared_again(worklist: Worklist) -> None:
    finished(worklist)
    job = taken(worklist, come_again(worklist))
    worklist.settle_comparison(job.id, "w1", "", NOW + MINUTE)
    ingest = worklist.record_instance(received(**OTHER), None, PIPELINE, NOW + HOUR)
    assert (ingest.repeat, ingest.job_ids) == (True, ())
    third = worklist.record_instance(received(digest="d" * 64), None, PIPELINE, NOW + HOUR)
    claimed = claim(worklist, third.job_ids[0], now=NOW + HOUR)
    assert claimed.compare_with == ("instances/01/1.dcm",), "a repeat is no witness of its own"


def test_other_content_is_kept_apart_and_holds_the_study(worklist: Worklist) -> None:
    _, deliveries = finished(worklist)
    study_id = study_of(worklist)
    worklist.complete_study(study_id, (), {}, NOW)
    job = taken(worklist, come_again(worklist))
    assert worklist.settle_comparison(job.id, "w1", "other pixels", NOW + MINUTE)
    detail = worklist.study_detail(study_id)
    assert detail.row.on_hold
    assert "other content (other pixels)" in detail.row.hold_reason
    assert (detail.row.images, detail.row.state) == (2, StudyState.OPEN)
    assert [one.flag for one in detail.instances] == ["", "conflict"]
    assert detail.jobs[1].state is JobState.ON_HOLD
    assert worklist.claim_delivery(deliveries[0], "w1", NOW + MINUTE, MINUTE) is None
    assert worklist.release_study(study_id, "admin", NOW + MINUTE) == (job.id,)
    released = claim(worklist, job.id, now=NOW + MINUTE)
    assert released.compare_with is None, "a person has said that it counts: it is analysed"


def test_a_refused_image_that_comes_again_is_compared_too(worklist: Worklist) -> None:
    worklist.record_instance(received(), LATERAL, PIPELINE, NOW)
    study_id = study_of(worklist)
    for digest, difference in (("e" * 64, ""), ("d" * 64, "other pixels")):
        ingest = worklist.record_instance(received(digest=digest), LATERAL, PIPELINE, NOW)
        job = claim(worklist, ingest.job_ids[0])
        assert worklist.settle_comparison(job.id, "w1", difference, NOW)
    detail = worklist.study_detail(study_id)
    assert [one.flag for one in detail.instances] == ["", "repeat", "conflict"]
    assert [job.state for job in detail.jobs] == [JobState.WITHDRAWN, JobState.WITHDRAWN], "there is nothing to analyse"
    assert (detail.row.on_hold, detail.row.images, detail.row.not_eligible) == (True, 2, 2)
    assert detail.row.analysis is Analysis.NOT_ANALYSED


def test_a_worker_that_dies_while_it_compares_leaves_a_job_for_the_next(worklist: Worklist) -> None:
    record(worklist)
    job = taken(worklist, come_again(worklist))
    assert worklist.claim_job(job.id, "w2", NOW + MINUTE, MINUTE) is None
    assert job.id in [row for row, _ in worklist.jobs_to_enqueue(NOW + HOUR, MINUTE)]
    again = worklist.claim_job(job.id, "w2", NOW + HOUR, MINUTE)
    assert again is not None
    assert (again.attempts, again.compare_with) == (2, job.compare_with)
    assert not worklist.settle_comparison(job.id, "w1", "", NOW + HOUR), "the first comes too late"
    assert worklist.settle_comparison(job.id, "w2", "", NOW + HOUR)


def test_a_study_waits_for_the_comparison_before_it_completes(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    job_id = come_again(worklist)
    assert worklist.stable_studies(NOW + HOUR, MINUTE) == ()
    taken(worklist, job_id)
    worklist.settle_comparison(job_id, "w1", "", NOW + MINUTE)
    assert worklist.stable_studies(NOW + HOUR, MINUTE) == (study_id,)


def test_a_stat_sender_makes_the_study_urgent_even_with_a_repeat(worklist: Worklist) -> None:
    record(worklist)
    come_again(worklist, stat=True)
    assert worklist.study_detail(study_of(worklist)).row.stat


def test_what_a_note_has_taken_back_comes_again_in_any_encoding_without_a_hold(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    waiting = come_again(worklist)
    note = RejectionNote("1.2.9", "113001", "The hospital has rejected it.", (received().sop_instance_uid,))
    assert worklist.reject_instances(note, NOW + MINUTE) == (study_id,)
    assert worklist.claim_job(waiting, "w1", NOW + MINUTE, MINUTE) is None
    ingest = worklist.record_instance(received(digest="d" * 64), None, PIPELINE, NOW + HOUR)
    assert (ingest.job_ids, ingest.conflict) == ((), False)
    detail = worklist.study_detail(study_id)
    assert [one.flag for one in detail.instances] == ["", "repeat", "repeat"]
    assert (detail.row.on_hold, detail.row.images, detail.row.not_eligible) == (False, 1, 1)
    facts = worklist.study_facts(study_id)
    assert (facts.images_not_eligible, facts.images_not_analysed) == (0, 1)
