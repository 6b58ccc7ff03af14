"""What recording an instance does to its study and its jobs."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, StatementError

from db.records import Analysis, InstanceState, JobState, Priority, StudyState
from db.worklist import Worklist
from tests.db.examples import (
    HOUR,
    LATERAL,
    MINUTE,
    NOW,
    PIPELINE,
    claim,
    finished,
    outcome,
    received,
    record,
    result,
    study_of,
)


def test_an_eligible_instance_is_queued_and_its_study_is_in_the_worklist_at_once(worklist: Worklist) -> None:
    ingest = worklist.record_instance(received(), None, PIPELINE, NOW)
    assert len(ingest.job_ids) == 1
    assert not ingest.repeat
    assert not ingest.conflict
    (row,) = worklist.worklist()
    assert (row.priority, row.analysis, row.state) == (Priority.ROUTINE, Analysis.WAITING, StudyState.OPEN)
    assert (row.images, row.not_eligible, row.on_hold, row.received_at) == (1, 0, False, NOW)
    assert row.due_at > NOW
    assert [one.to_state for one in worklist.study_detail(row.study_id).events] == ["open", "eligible", "queued"]


def test_a_refused_instance_is_kept_with_its_reason_and_gets_no_job(worklist: Worklist) -> None:
    ingest = worklist.record_instance(received(), LATERAL, PIPELINE, NOW)
    assert ingest.job_ids == ()
    detail = worklist.study_detail(study_of(worklist))
    assert detail.instances[0].state is InstanceState.NOT_ELIGIBLE
    assert detail.instances[0].not_eligible == LATERAL
    assert (detail.row.analysis, detail.row.not_eligible, detail.jobs) == (Analysis.NOT_ANALYSED, 1, ())
    worklist.record_instance(received(2), None, PIPELINE, NOW)
    assert worklist.worklist()[0].analysis is Analysis.WAITING


def test_a_stat_study_is_urgent_and_due_earlier(worklist: Worklist) -> None:
    record(worklist, study=1)
    record(worklist, study=2, stat=True)
    assert [(row.stat, row.priority) for row in worklist.worklist()] == [
        (True, Priority.URGENT),
        (False, Priority.ROUTINE),
    ]
    worklist.record_instance(received(2, study=1, stat=True), None, PIPELINE, NOW)
    assert worklist.study_detail(study_of(worklist, 1)).row.priority is Priority.URGENT


def test_a_repeat_changes_nothing_and_gives_the_open_jobs(worklist: Worklist) -> None:
    first = worklist.record_instance(received(), None, PIPELINE, NOW)
    before = worklist.study_detail(study_of(worklist))
    again = worklist.record_instance(received(), None, PIPELINE, NOW + MINUTE)
    assert (again.instance_id, again.job_ids, again.repeat) == (first.instance_id, first.job_ids, True)
    assert worklist.study_detail(study_of(worklist)) == before
    claim(worklist, first.job_ids[0])
    worklist.finish_job(first.job_ids[0], "w1", outcome(), NOW)
    assert worklist.record_instance(received(), None, PIPELINE, NOW).job_ids == ()


@pytest.mark.parametrize(
    "changes",
    [{"patient_id": "P2"}, {"series_instance_uid": "1.2.826.0.3.9"}, {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}],
    ids=["patient", "series", "class"],
)
def test_a_uid_that_comes_again_for_something_else_is_kept_apart_and_holds_the_study(
    worklist: Worklist, changes: dict[str, Any]
) -> None:
    job_id = record(worklist)
    ingest = worklist.record_instance(received(digest="e" * 64, path="other", **changes), None, PIPELINE, NOW)
    assert ingest.conflict
    assert ingest.job_ids == ()
    detail = worklist.study_detail(study_of(worklist))
    assert detail.row.on_hold
    assert "other content" in detail.row.hold_reason
    assert [one.flag for one in detail.instances] == ["", "conflict"]
    assert {job.state for job in detail.jobs} == {JobState.ON_HOLD}
    assert worklist.claim_job(job_id, "w1", NOW, MINUTE) is None
    assert worklist.jobs_to_enqueue(NOW + HOUR, MINUTE) == ()
    newest = detail.jobs[1].id
    assert worklist.release_study(detail.row.study_id, "admin", NOW) == (newest,), "from then on it counts alone"
    assert worklist.claim_job(job_id, "w1", NOW, MINUTE) is None
    assert worklist.claim_job(newest, "w1", NOW, MINUTE) is not None


def test_a_uid_that_comes_again_in_another_study_holds_both(worklist: Worklist) -> None:
    record(worklist, study=1)
    uid = received(study=1).sop_instance_uid
    assert worklist.record_instance(received(study=2, sop_instance_uid=uid), None, PIPELINE, NOW).conflict
    assert [row.on_hold for row in worklist.worklist()] == [True, True]


@pytest.mark.parametrize(
    "changes", [{"patient_id": "SOMEBODY-ELSE"}, {"issuer_of_patient_id": "B"}], ids=["patient", "issuer"]
)
def test_another_patient_in_the_same_study_holds_it(worklist: Worklist, changes: dict[str, Any]) -> None:
    record(worklist, issuer_of_patient_id="A")
    same: dict[str, Any] = {"issuer_of_patient_id": "A"} | changes
    ingest = worklist.record_instance(received(2, **same), None, PIPELINE, NOW)
    assert not ingest.conflict
    assert ingest.job_ids == ()
    detail = worklist.study_detail(study_of(worklist))
    assert detail.row.on_hold
    assert "different patients" in detail.row.hold_reason
    assert detail.row.patient_id == "P1"
    assert detail.instances[1].flag == "patient"


def test_a_missing_patient_id_contradicts_nothing_and_is_filled_in(worklist: Worklist) -> None:
    record(worklist, patient_id="")
    record(worklist, 2, patient_id="P1 ")
    record(worklist, 3, patient_id="P1")
    (row,) = worklist.worklist()
    assert (row.on_hold, row.patient_id) == (False, "P1 ")


def test_a_late_image_reopens_a_complete_study_and_a_refused_one_does_not(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    assert worklist.complete_study(study_id, (), {}, NOW) == ()
    worklist.record_instance(received(2), LATERAL, PIPELINE, NOW)
    assert worklist.worklist()[0].state is StudyState.COMPLETE
    record(worklist, 3)
    assert worklist.worklist()[0].state is StudyState.OPEN


def test_our_own_result_that_comes_back_touches_nothing(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    before = worklist.study_facts(study_id)
    own = result("seg", 1010).sop_instance_uid
    assert worklist.is_own_result(own)
    assert not worklist.is_own_result("1.2.3")
    worklist.record_instance(received(9, sop_instance_uid=own), LATERAL, PIPELINE, NOW + HOUR)
    assert worklist.study_facts(study_id) == before
    detail = worklist.study_detail(study_id)
    assert (detail.row.images, detail.row.not_eligible, detail.row.on_hold) == (1, 0, False)
    assert detail.instances[1].flag == "own"


def test_text_that_a_database_cannot_hold_is_cleaned(worklist: Worklist) -> None:
    record(worklist, patient_name="Do\0e^J\udcffane", accession_number="9" * 5000)
    (row,) = worklist.worklist()
    assert row.patient_name == "Doe^J?ane"
    assert row.accession_number == "9" * 256


def test_names_in_other_scripts_survive(worklist: Worklist) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    record(worklist, patient_name=name)
    assert worklist.worklist()[0].patient_name == name


def test_what_fails_midway_leaves_nothing(worklist: Worklist, engine: Engine) -> None:
    no_pipeline: Any = None
    with pytest.raises(IntegrityError):
        worklist.record_instance(received(), None, no_pipeline, NOW)
    with engine.connect() as connection:
        for table in ("studies", "series", "instances", "jobs", "events"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_an_error_of_the_database_does_not_show_the_patient(worklist: Worklist) -> None:
    no_pipeline: Any = None
    with pytest.raises(IntegrityError) as caught:
        worklist.record_instance(received(patient_name="Secret^Name", view="Secret"), None, no_pipeline, NOW)
    assert "Secret" not in str(caught.value)


def test_a_naive_time_is_refused(worklist: Worklist) -> None:
    with pytest.raises(StatementError, match="aware"):
        worklist.record_instance(received(), None, PIPELINE, NOW.replace(tzinfo=None))
