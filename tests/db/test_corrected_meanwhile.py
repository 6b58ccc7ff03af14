"""The hospital corrects a patient while something of the study is under way."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import text

from db import deliveries, holds, jobs, studies, verification
from db.database import Database
from db.patients import TO_CORRECT, PatientIdentifier, PatientUpdate
from db.queries import study_details
from db.records import Outcome
from db.shown_records import StudyDetail
from db.states import DeliveryState, JobState, StudyState
from tests.commands import receive_message
from tests.db.examples import HOUR, MINUTE, NOW, finished, outcome, record, result, study_of
from tests.db.test_orders import JANE, corrected, message

MERGED = PatientUpdate((PatientIdentifier("P9"),), prior=JANE, name="Doe^Janet")


def detail_of(database: Database) -> StudyDetail:
    return database.read(study_details.study_detail, study_of(database))


def merge(database: Database) -> None:
    receive_message(database, message(1, patient=MERGED), NOW)


def test_a_job_that_ran_meanwhile_runs_again_and_names_the_patient_as_corrected(database: Database) -> None:
    """Its objects name the former patient, and a destination would be asked for the new one: they must not go."""
    job_id = record(database)
    running = database.write(jobs.claim, job_id, "w1", NOW, HOUR)
    assert running is not None
    assert running.patient is None
    merge(database)
    assert database.write(jobs.finish, job_id, "w1", outcome(100), NOW) is None

    assert detail_of(database).results == ()
    (job,) = detail_of(database).jobs
    assert (job.state, job.attempts, job.revision) == (JobState.QUEUED, 0, 1), "it has not failed"
    assert (job_id, False) in database.read(jobs.to_enqueue, NOW + MINUTE, MINUTE)

    again = database.write(jobs.claim, job_id, "w2", NOW, HOUR)
    assert again is not None
    assert again.patient is not None
    assert (again.patient.patient_id, again.patient.patient_name) == ("P9", "Doe^Janet")
    made = replace(outcome(100), patient=again.patient)
    assert database.write(jobs.finish, job_id, "w2", made, NOW) == ()
    assert {one.state for one in detail_of(database).deliveries} == {DeliveryState.ON_HOLD}
    database.write(holds.release, study_of(database), "ann", NOW)
    ids = [one.id for one in detail_of(database).deliveries]
    first = database.write(deliveries.claim, ids[0], "d1", NOW, HOUR)
    assert first is not None
    assert (len(ids), first.patient_id) == (2, "P9")


def test_what_was_on_its_way_meanwhile_is_marked(database: Database) -> None:
    _, (first, _) = finished(database)
    assert database.write(deliveries.claim, first, "d1", NOW, HOUR) is not None
    merge(database)
    assert database.write(deliveries.sent, first, "d1", NOW)
    sent = detail_of(database).deliveries[0]
    assert sent.state is DeliveryState.SENT
    assert sent.error.endswith("It was sent before and must be corrected there.")
    assert [one.cause for one in detail_of(database).events if one.entity == "delivery"][-1] == sent.error


def test_what_is_sent_after_a_person_has_released_it_is_not_marked(database: Database) -> None:
    _, (first, _) = finished(database)
    merge(database)
    database.write(holds.release, study_of(database), "ann", NOW)
    assert database.write(deliveries.claim, first, "d1", NOW, HOUR) is not None
    assert database.write(deliveries.sent, first, "d1", NOW)
    assert detail_of(database).deliveries[0].error == ""


def test_a_summary_that_was_made_meanwhile_is_made_again(database: Database) -> None:
    finished(database)
    before = detail_of(database)
    merge(database)
    summary = (result("summary", 900),)
    study = study_of(database)
    assert database.write(studies.complete, study, summary, {}, NOW + HOUR, before.activity) is None
    assert detail_of(database).row.state is StudyState.OPEN
    now = detail_of(database).activity
    assert database.write(studies.complete, study, summary, {}, NOW + HOUR, now) is not None


def test_a_name_that_was_only_spelled_in_capitals_runs_nothing_again(database: Database) -> None:
    job_id = record(database)
    assert database.write(jobs.claim, job_id, "w1", NOW, HOUR) is not None
    receive_message(database, message(1, patient=corrected(name="DOE^JANE^^")), NOW)
    assert database.write(jobs.finish, job_id, "w1", Outcome(), NOW) == ()


def test_a_study_that_is_held_and_corrected_shows_both_reasons(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    database.write(holds.hold, study_id, "ask the ward", "ann", NOW)
    merge(database)
    row = detail_of(database).row
    assert row.on_hold
    assert row.hold_reason.startswith("ask the ward; The hospital has corrected this patient")
    with database.engine.connect() as connection:
        shown = connection.execute(text("SELECT on_hold, reason FROM worklist")).one()
    assert (bool(shown.on_hold), shown.reason) == (True, row.hold_reason)


def test_a_further_reason_to_hold_is_shown_once_beside_the_first(database: Database) -> None:
    """Whoever releases a study for the one must not let the other pass unseen: an image of another patient."""
    finished(database)
    study_id = study_of(database)
    for reason in ("ask the ward", "another patient", "ask the ward", "another patient"):
        database.write(holds.hold, study_id, reason, "ann", NOW)
    detail = detail_of(database)
    assert detail.row.hold_reason == "ask the ward; another patient"
    told = [(one.from_state, one.to_state, one.cause) for one in detail.events if one.entity == "study"][-2:]
    assert told == [("released", "on_hold", "ask the ward"), ("on_hold", "on_hold", "another patient")]
    database.write(holds.hold, study_id, "ask", "ann", NOW)
    assert detail_of(database).row.hold_reason == "ask the ward; another patient; ask", (
        "a part of a reason is another one"
    )
    database.write(holds.release, study_id, "ann", NOW)
    database.write(holds.hold, study_id, "ask the ward", "ann", NOW)
    assert detail_of(database).row.hold_reason == "ask the ward", "what was released counts no more"


def test_how_many_reasons_to_hold_are_not_shown_is_told_and_the_history_has_them(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    for number in range(300):
        for _ in range(2):
            database.write(holds.hold, study_id, f"note {number}", "peer", NOW)
    detail = detail_of(database)
    *shown, rest = detail.row.hold_reason.split("; ")
    assert len(detail.row.hold_reason) <= 2000
    assert shown == [f"note {number}" for number in range(len(shown))]
    assert rest == f"and {300 - len(shown)} more: see the history"
    causes = [one.cause for one in detail.events if one.entity == "study" and one.to_state == "on_hold"]
    assert causes == [f"note {number}" for number in range(300)]
    database.write(holds.release, study_id, "ann", NOW)
    assert detail_of(database).row.hold_reason == ""


def test_every_correction_is_told_in_its_order(database: Database) -> None:
    """A person who releases for the one, or corrects the archive by it, must not miss the other."""
    _, (first, second) = finished(database)
    assert database.write(deliveries.claim, first, "d1", NOW, HOUR) is not None
    assert database.write(deliveries.sent, first, "d1", NOW)
    for number, changed in enumerate(({"birth_date": "19700102"}, {"name": "Roe^Jane"}, {"name": "Poe^Jane"}), 1):
        receive_message(database, message(number, patient=corrected(**{"name": "", "birth_date": ""} | changed)), NOW)
    names = "The hospital has corrected this patient (name): results carry what was known before."
    detail = detail_of(database)
    assert detail.row.hold_reason == names, "the birth date was not known before"
    receive_message(database, message(4, patient=corrected(name="", birth_date="19700201")), NOW)
    dates = names.replace("(name)", "(birth date)")
    detail = detail_of(database)
    assert detail.row.hold_reason == f"{names}; {dates}"
    sent, unsent = detail.deliveries[:2]
    assert (sent.id, sent.error) == (first, f"{names}; {dates}{TO_CORRECT}")
    assert (unsent.id, unsent.state) == (second, DeliveryState.ON_HOLD)


def test_what_must_be_corrected_there_outlasts_its_verification(database: Database) -> None:
    _, (first, _) = finished(database)
    assert database.write(deliveries.claim, first, "d1", NOW, HOUR) is not None
    assert database.write(deliveries.sent, first, "d1", NOW, MINUTE)
    merge(database)
    told = detail_of(database).deliveries[0].error
    assert told.endswith(TO_CORRECT)
    due = NOW + MINUTE
    (asked,) = database.write(verification.claim, first, "1.2.3", due, MINUTE)
    assert database.write(verification.postpone, asked, "not verified yet: busy", due, 0)
    assert detail_of(database).deliveries[0].error == told
    (asked,) = database.write(verification.claim, first, "1.2.4", due, MINUTE)
    assert database.write(verification.verified, asked, due)
    delivery = detail_of(database).deliveries[0]
    assert (delivery.state, delivery.error) == (DeliveryState.VERIFIED, told)
