"""An instance that comes again in other bytes: what is recorded until it is compared, and what the answer changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from db import deliveries, holds, jobs, rejection_notes, repeated_instances, studies
from db.database import Database
from db.queries import study_details
from db.records import Job, RejectionNote
from db.states import Analysis, InstanceState, JobState, StudyState
from tests.commands import record_instance, study_facts
from tests.db.examples import HOUR, LATERAL, MINUTE, NOW, PIPELINE, claim, finished, received, record, study_of

OTHER: dict[str, Any] = {"digest": "e" * 64, "path": "other", "transfer_syntax_uid": "1.2.840.10008.1.2"}


def come_again(database: Database, **changes: Any) -> int:
    ingest = record_instance(database, received(**{**OTHER, **changes}), None, PIPELINE, NOW + MINUTE)
    assert ingest.comparing
    assert not ingest.conflict
    assert ingest.pressing, "a comparison is quick, and a wrong image must be found soon"
    (job_id,) = ingest.job_ids
    return job_id


def taken(database: Database, job_id: int) -> Job:
    job = claim(database, job_id, now=NOW + MINUTE)
    assert job.compare_with == ("instances/01/1.dcm",)
    return job


def test_a_study_is_left_as_it_is_until_its_image_is_compared(database: Database) -> None:
    _, delivery_ids = finished(database)
    study_id = study_of(database)
    assert database.write(studies.complete, study_id, (), {}, NOW) == ()
    before = database.read(study_details.study_detail, study_id).row
    come_again(database)
    assert replace(database.read(study_details.study_detail, study_id).row, jobs=before.jobs) == before
    assert before.state is StudyState.COMPLETE
    assert database.write(deliveries.claim, delivery_ids[0], "w1", NOW + MINUTE, MINUTE) is not None, "results go on"


def test_a_repeat_changes_nothing_but_its_own_row(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    before = database.read(study_details.study_detail, study_id)
    facts = study_facts(database, study_id)
    job = taken(database, come_again(database))
    assert database.write(repeated_instances.record_comparison, job.id, "w1", "", NOW + MINUTE)
    after = database.read(study_details.study_detail, study_id)
    assert replace(after.row, jobs=before.row.jobs) == before.row
    assert study_facts(database, study_id) == facts
    assert (after.deliveries, after.results) == (before.deliveries, before.results)
    instance = after.instances[1]
    assert (instance.flag, instance.state) == ("repeat", InstanceState.NOT_ELIGIBLE)
    assert instance.not_eligible is not None
    assert "came before" in instance.not_eligible.sentence
    assert after.jobs[1].state is JobState.WITHDRAWN
    assert database.read(jobs.to_enqueue, NOW + HOUR, MINUTE) == ()


def test_the_same_bytes_of_a_repeat_are_not_compared_again(database: Database) -> None:
    finished(database)
    job = taken(database, come_again(database))
    database.write(repeated_instances.record_comparison, job.id, "w1", "", NOW + MINUTE)
    ingest = record_instance(database, received(**OTHER), None, PIPELINE, NOW + HOUR)
    assert (ingest.repeat, ingest.job_ids) == (True, ())
    third = record_instance(database, received(digest="d" * 64), None, PIPELINE, NOW + HOUR)
    claimed = claim(database, third.job_ids[0], now=NOW + HOUR)
    assert claimed.compare_with == ("instances/01/1.dcm",), "a repeat is no witness of its own"


def test_other_content_is_kept_apart_and_holds_the_study(database: Database) -> None:
    _, delivery_ids = finished(database)
    study_id = study_of(database)
    database.write(studies.complete, study_id, (), {}, NOW)
    job = taken(database, come_again(database))
    assert database.write(repeated_instances.record_comparison, job.id, "w1", "other pixels", NOW + MINUTE)
    detail = database.read(study_details.study_detail, study_id)
    assert detail.row.on_hold
    assert "other content (other pixels)" in detail.row.hold_reason
    assert (detail.row.images, detail.row.state) == (2, StudyState.OPEN)
    assert [one.flag for one in detail.instances] == ["", "conflict"]
    assert detail.jobs[1].state is JobState.ON_HOLD
    assert database.write(deliveries.claim, delivery_ids[0], "w1", NOW + MINUTE, MINUTE) is None
    assert database.write(holds.release, study_id, "admin", NOW + MINUTE) == (job.id,)
    released = claim(database, job.id, now=NOW + MINUTE)
    assert released.compare_with is None, "a person has said that it counts: it is analysed"


def test_a_refused_image_that_comes_again_is_compared_too(database: Database) -> None:
    record_instance(database, received(), LATERAL, PIPELINE, NOW)
    study_id = study_of(database)
    for digest, difference in (("e" * 64, ""), ("d" * 64, "other pixels")):
        ingest = record_instance(database, received(digest=digest), LATERAL, PIPELINE, NOW)
        job = claim(database, ingest.job_ids[0])
        assert database.write(repeated_instances.record_comparison, job.id, "w1", difference, NOW)
    detail = database.read(study_details.study_detail, study_id)
    assert [one.flag for one in detail.instances] == ["", "repeat", "conflict"]
    assert [job.state for job in detail.jobs] == [JobState.WITHDRAWN, JobState.WITHDRAWN], "there is nothing to analyse"
    assert (detail.row.on_hold, detail.row.images, detail.row.not_eligible) == (True, 2, 2)
    assert detail.row.analysis is Analysis.NOT_ANALYSED


def test_a_worker_that_dies_while_it_compares_leaves_a_job_for_the_next(database: Database) -> None:
    record(database)
    job = taken(database, come_again(database))
    assert database.write(jobs.claim, job.id, "w2", NOW + MINUTE, MINUTE) is None
    assert job.id in [row for row, _ in database.read(jobs.to_enqueue, NOW + HOUR, MINUTE)]
    again = database.write(jobs.claim, job.id, "w2", NOW + HOUR, MINUTE)
    assert again is not None
    assert (again.attempts, again.compare_with) == (2, job.compare_with)
    assert not database.write(repeated_instances.record_comparison, job.id, "w1", "", NOW + HOUR), (
        "the first comes too late"
    )
    assert database.write(repeated_instances.record_comparison, job.id, "w2", "", NOW + HOUR)


def test_a_study_waits_for_the_comparison_before_it_completes(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    job_id = come_again(database)
    assert database.read(studies.stable, NOW + HOUR, MINUTE) == ()
    taken(database, job_id)
    database.write(repeated_instances.record_comparison, job_id, "w1", "", NOW + MINUTE)
    assert database.read(studies.stable, NOW + HOUR, MINUTE) == (study_id,)


def test_a_stat_sender_makes_the_study_urgent_even_with_a_repeat(database: Database) -> None:
    record(database)
    come_again(database, stat=True)
    assert database.read(study_details.study_detail, study_of(database)).row.stat


def test_what_a_note_has_taken_back_comes_again_in_any_encoding_without_a_hold(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    waiting = come_again(database)
    note = RejectionNote("1.2.9", "113001", "The hospital has rejected it.", (received().sop_instance_uid,))
    assert database.write(rejection_notes.reject, note, NOW + MINUTE) == (study_id,)
    assert database.write(jobs.claim, waiting, "w1", NOW + MINUTE, MINUTE) is None
    ingest = record_instance(database, received(digest="d" * 64), None, PIPELINE, NOW + HOUR)
    assert (ingest.job_ids, ingest.conflict) == ((), False)
    detail = database.read(study_details.study_detail, study_id)
    assert [one.flag for one in detail.instances] == ["", "repeat", "repeat"]
    assert (detail.row.on_hold, detail.row.images, detail.row.not_eligible) == (False, 1, 1)
    facts = study_facts(database, study_id)
    assert (facts.images_not_eligible, facts.images_not_analysed) == (0, 1)
