"""Triage, completing, holding, and reading of studies."""

from __future__ import annotations

from datetime import timedelta

import pytest

from db import deliveries, holds, jobs, studies
from db.database import Database
from db.errors import AmbiguousStudyError, RecordNotFoundError
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import NotEligible, Outcome
from db.states import Priority, StudyState
from tests.commands import record_instance, record_triage, study_facts
from tests.db.examples import (
    CRITICAL,
    HOUR,
    LATERAL,
    MINUTE,
    NOW,
    PIPELINE,
    SECOND,
    TO_PACS,
    claim,
    finding,
    finished,
    outcome,
    received,
    record,
    result,
    study_of,
)


def test_facts_count_what_triage_needs(database: Database) -> None:
    finished(database)
    failed, _ = record(database, 2), record(database, 3)
    claim(database, failed)
    database.write(jobs.fail, failed, "w1", "crash", NOW)
    record_instance(database, received(4, stat=True), LATERAL, PIPELINE, NOW + MINUTE)
    facts = study_facts(database, study_of(database))
    assert (facts.jobs_waiting, facts.jobs_done, facts.jobs_failed) == (1, 1, 1)
    assert (facts.images_not_eligible, facts.images_not_analysed, facts.stat) == (1, 0, True)
    assert (facts.findings, facts.first_received_at) == ((finding(),), NOW)
    assert facts.hospital_priority is None
    with pytest.raises(RecordNotFoundError):
        study_facts(database, 4711)


def test_why_images_were_not_analysed_is_told_where_it_matters(database: Database) -> None:
    """What was tried comes first; beside an image that was analysed, why another was not eligible explains nothing."""
    record_instance(database, received(1), LATERAL, PIPELINE, NOW)
    study_id = study_of(database)
    assert study_facts(database, study_id).not_eligible_reasons == (LATERAL,)
    job_id = record(database, 2)
    claim(database, job_id)
    corrupt = NotEligible("corrupt", "The pixel data is damaged.")
    database.write(jobs.finish, job_id, "w1", Outcome(not_analysed=corrupt), NOW)
    assert study_facts(database, study_id).not_eligible_reasons == (corrupt, LATERAL)


def test_refusals_beside_an_analysed_image_are_not_looked_up(database: Database) -> None:
    finished(database)
    record_instance(database, received(2), LATERAL, PIPELINE, NOW)
    assert study_facts(database, study_of(database)).not_eligible_reasons == ()


def test_triage_is_written_once(database: Database) -> None:
    record(database)
    study_id = study_of(database)
    record_triage(database, study_id, CRITICAL, NOW)
    before = database.read(study_details.study_detail, study_id)
    record_triage(database, study_id, CRITICAL, NOW + HOUR)
    assert database.read(study_details.study_detail, study_id) == before
    assert (before.row.priority, before.row.due_at, before.row.reason) == (
        Priority.CRITICAL,
        NOW + 15 * MINUTE,
        "pneumothorax 90 %",
    )
    last = before.events[-1]
    assert (last.from_state, last.to_state, last.actor) == ("routine, waiting", "critical, analysed", "triage")


def test_a_decision_that_stands_is_among_the_facts(database: Database) -> None:
    record(database)
    study_id = study_of(database)
    record_triage(database, study_id, CRITICAL, NOW)
    assert study_facts(database, study_id).decision == CRITICAL


def test_of_stable_studies_urgent_ones_come_first(database: Database) -> None:
    for number, at in ((1, NOW), (2, NOW + 2 * SECOND), (3, NOW + SECOND)):
        job_id = record(database, number, number)
        claim(database, job_id)
        database.write(jobs.finish, job_id, "w1", outcome(100 * number), at)
    record_triage(database, study_of(database, 2), CRITICAL, NOW)
    one, urgent, other = (study_of(database, number) for number in (1, 2, 3))
    assert database.read(studies.stable, NOW + HOUR, MINUTE) == (urgent, one, other)


def test_a_study_is_stable_when_nothing_waits_and_nothing_happens(database: Database) -> None:
    job_id = record(database)
    study_id = study_of(database)
    assert database.read(studies.stable, NOW + HOUR, MINUTE) == ()
    claim(database, job_id)
    database.write(jobs.finish, job_id, "w1", outcome(), NOW + SECOND)
    assert database.read(studies.stable, NOW + MINUTE, MINUTE) == ()
    assert database.read(studies.stable, NOW + MINUTE + SECOND, MINUTE) == (study_id,)
    database.write(holds.hold, study_id, "merged", "admin", NOW)
    assert database.read(studies.stable, NOW + HOUR, MINUTE) == ()


def test_completing_sends_the_summary_and_a_later_one_replaces_it(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    summary = (result("summary", 1),)
    (first,) = database.write(studies.complete, study_id, summary, TO_PACS, NOW) or ()
    assert Worklist(database.engine).page()[0].state is StudyState.COMPLETE
    assert database.write(studies.complete, study_id, summary, TO_PACS, NOW) is None
    finished(database, 2)
    assert study_facts(database, study_id).revision == 1
    (second,) = database.write(studies.complete, study_id, (result("summary", 2),), TO_PACS, NOW) or ()
    detail = database.read(study_details.study_detail, study_id)
    assert detail.revision == 2
    states = {one.id: one.state.value for one in detail.deliveries if one.kind == "summary"}
    assert states == {first: "withdrawn", second: "pending"}
    group = database.write(deliveries.claim_group, "pacs", None, study_id, "d1", NOW, MINUTE)
    assert [(one.id, one.job_id, one.patient_id) for one in group] == [(second, None, "P1")]


def test_a_study_in_which_something_has_happened_is_not_complete(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    seen = study_facts(database, study_id).activity
    record_instance(database, received(2), LATERAL, PIPELINE, NOW)
    assert database.write(studies.complete, study_id, (), {}, NOW, seen) is None
    record_instance(database, received(3), LATERAL, PIPELINE, NOW + MINUTE)
    assert database.write(studies.complete, study_id, (), {}, NOW) is None
    record(database, 4)
    assert (
        database.write(studies.complete, study_id, (), {}, NOW + HOUR, study_facts(database, study_id).activity) is None
    )
    assert Worklist(database.engine).page()[0].state is StudyState.OPEN


def test_holding_and_releasing_leave_their_trace_once(database: Database) -> None:
    job_id = record(database)
    study_id = study_of(database)
    database.write(holds.hold, study_id, "merged", "admin", NOW)
    database.write(holds.hold, study_id, "merged", "admin", NOW)
    assert (Worklist(database.engine).page()[0].on_hold, Worklist(database.engine).page()[0].hold_reason) == (
        True,
        "merged",
    )
    assert record_held(database)
    assert len(database.write(holds.release, study_id, "admin", NOW)) == 2
    assert database.write(holds.release, study_id, "admin", NOW) == ()
    assert database.read(jobs.to_enqueue, NOW, HOUR)[0] == (job_id, False)
    changes = [
        one.to_state for one in database.read(study_details.study_detail, study_id).events if one.entity == "study"
    ]
    assert changes == ["open", "on_hold", "released"]
    with pytest.raises(RecordNotFoundError):
        database.write(holds.hold, 4711, "nobody", "admin", NOW)


def record_held(database: Database) -> bool:
    """What arrives in a study on hold is held."""
    return record_instance(database, received(2), None, PIPELINE, NOW).job_ids == ()


def test_finding_a_study(database: Database) -> None:
    record(database, study=1)
    record(database, study=2, accession_number="777")
    second = study_of(database, 2)
    assert database.read(study_details.find_study, f" #{second} ") == second
    assert database.read(study_details.find_study, "777") == second
    assert database.read(study_details.find_study, received(study=2).sop_instance_uid) == second
    for unknown in ("", " ", "9" * 30, "²", "nothing", "0", "#", "#0", "#9999999999", "#²"):
        assert database.read(study_details.find_study, unknown) is None


def test_a_bare_number_is_an_accession_number_and_no_row(database: Database) -> None:
    for study in (1, 2, 3):
        record(database, study=study, accession_number="3" if study == 1 else f"A-{study}")
    third = study_of(database, 3)
    assert database.read(study_details.find_study, "3") == study_of(database, 1)
    assert database.read(study_details.find_study, str(study_of(database, 2))) is None, (
        "the study that is meant may not be here yet"
    )
    assert database.read(study_details.find_study, f"#{third}") == third


def test_a_name_that_fits_two_studies_is_refused(database: Database) -> None:
    for study in (1, 2):
        record(database, study=study, accession_number="A-1")
    record(database, study=3, accession_number=f"#{study_of(database, 1)}")
    with pytest.raises(AmbiguousStudyError) as caught:
        database.read(study_details.find_study, "A-1")
    assert caught.value.study_ids == (study_of(database, 1), study_of(database, 2))
    with pytest.raises(AmbiguousStudyError):
        database.read(study_details.find_study, f"#{study_of(database, 1)}")


def test_times_are_read_back_aware_and_equal(database: Database) -> None:
    from datetime import timezone

    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7))) + timedelta(microseconds=1)
    record_instance(database, received(), None, PIPELINE, elsewhere)
    at = Worklist(database.engine).page()[0].received_at
    assert at == elsewhere
    assert at.utcoffset() == timedelta(0)
