"""Which studies want a prior, how long its summary may wait for one, and which study is the last prior."""

from __future__ import annotations

from typing import Any

import pytest

from db import backfill, deliveries, holds, jobs, priors, rejection_notes, studies
from db.database import Database
from db.patients import PatientIdentifier, PatientRules, PatientUpdate
from db.queries.priors import comparable_findings, last_prior
from db.queries.study_details import study_detail
from db.records import IS_PRIOR, FindingRecord, NotEligible, RejectionNote
from db.states import DeliveryState, StudyState
from db.study_status import report
from tests.commands import receive_message, record_instance, study_facts
from tests.db.examples import HOUR, MINUTE, NOW, PIPELINE, SECOND, claim, finding, outcome, received, result, study_of
from tests.db.test_orders import message

WAIT = 2 * MINUTE
RULES = PatientRules((), (r"0+",))


def film(database: Database, study: int, date: str = "20260301", **changes: Any) -> int:
    """A study with one image that waits for its analysis; its row."""
    values = {"patient_id": "P1", "study_date": date, "view": "PA"} | changes
    record_instance(database, received(1, study, **values), None, PIPELINE, NOW)
    return study_of(database, study)


def analyse(database: Database, study: int, *findings: FindingRecord) -> None:
    detail = database.read(_job_of, study_of(database, study))
    claim(database, detail, now=NOW)
    assert database.write(jobs.finish, detail, "w1", outcome(100 * study, findings=findings), NOW) is not None


def _job_of(connection: Any, study_id: int) -> int:
    return int(connection.exec_driver_sql(f"select id from jobs where study_id = {study_id}").scalar_one())


def uid_of(study: int) -> str:
    return received(1, study).study_instance_uid


def test_a_new_study_wants_its_prior_once_and_for_a_while(database: Database) -> None:
    new = film(database, 1)
    (wanted,) = database.read(priors.wanted, NOW, WAIT)
    assert (wanted.study_id, wanted.identifier.patient_id, wanted.study_date) == (new, "P1", "20260301")
    assert database.read(priors.wanted, NOW + WAIT, WAIT) == ()
    assert database.write(priors.begin, new, NOW)
    assert not database.write(priors.begin, new, NOW), "another scheduler has begun"
    assert database.read(priors.wanted, NOW, WAIT) == ()


def test_a_study_waits_for_a_prior_that_may_come_and_never_longer_than_it_may(database: Database) -> None:
    new = film(database, 1)
    analyse(database, 1)

    def waits(after: Any = MINUTE) -> bool:
        return database.read(priors.may_still_come, new, NOW + after, WAIT)

    assert waits(), "nobody has searched yet"
    database.write(priors.begin, new, NOW)
    assert waits()
    assert not waits(WAIT)
    film(database, 2, "20260101")
    database.write(priors.end, new, uid_of(2), "", NOW)
    assert waits(), "the prior is being analysed"
    analyse(database, 2)
    assert not waits()
    database.write(priors.end, new, "", "there is none", NOW)
    assert not waits()


def test_what_was_pulled_is_silent_and_off_the_worklist(database: Database) -> None:
    database.write(backfill.note_request, uid_of(2), NOW, for_prior=True)
    prior = film(database, 2, "20260101")
    assert database.read(priors.wanted, NOW, WAIT) == (), "a prior wants no prior"
    assert not database.read(priors.may_still_come, prior, NOW, WAIT)
    facts = study_facts(database, prior)
    assert (facts.pulled, facts.only_prior) == (True, True)
    assert database.read(studies.arrival, prior).only_prior
    database.write(priors.take_off_worklist, uid_of(2), NOW)
    assert study_facts(database, prior).reported
    own = film(database, 3)
    database.write(priors.take_off_worklist, uid_of(3), NOW)
    facts = study_facts(database, own)
    assert (facts.only_prior, facts.reported) == (False, False), "it came by itself"
    assert not database.read(studies.arrival, own).only_prior


@pytest.mark.parametrize("again", [True, False])
def test_a_prior_that_comes_by_itself_as_well_is_silent_no_more(database: Database, again: bool) -> None:
    """Its sender was slower than we: what is critical on a film of last night must be told, and leave."""
    ends = database.write(backfill.note_request, uid_of(2), NOW, for_prior=True)
    prior = film(database, 2, "20260228")
    record_instance(database, received(9, 2, patient_id="P1"), NotEligible("derived", "It is derived."), PIPELINE, NOW)
    job = database.read(_job_of, prior)
    claim(database, job, now=NOW)
    made = outcome(200, findings=(finding(),), recorded=IS_PRIOR)
    assert database.write(jobs.finish, job, "w1", made, NOW) == ()
    database.write(priors.take_off_worklist, uid_of(2), NOW)
    database.write(backfill.end_request, uid_of(2), ends, NOW)
    record_instance(
        database, received(9, 2, patient_id="P1"), NotEligible("derived", "It is derived."), PIPELINE, NOW + HOUR
    )
    assert study_facts(database, prior).only_prior, "no image, so it says nothing"

    values = {"patient_id": "P1", "study_date": "20260228", "view": "PA"}
    came = record_instance(database, received(1 if again else 3, 2, **values), None, PIPELINE, NOW + HOUR)

    facts = study_facts(database, prior)
    assert (facts.pulled, facts.only_prior, facts.reported, facts.returned_at) == (False, False, False, None)
    assert came.returned == prior, "triage looks at it again"
    sent = database.read(study_detail, prior).deliveries
    assert {row.state for row in sent} == {DeliveryState.PENDING}


@pytest.mark.parametrize("for_prior", [True, False])
def test_what_two_pulls_at_once_bring_twice_does_not_come_by_itself(database: Database, for_prior: bool) -> None:
    first = database.write(backfill.note_request, uid_of(2), NOW, for_prior=True)
    second = database.write(backfill.note_request, uid_of(2), NOW + SECOND, for_prior=for_prior)
    values = {"patient_id": "P1", "study_date": "20260101", "view": "PA"}
    record_instance(database, received(1, 2, **values), None, PIPELINE, NOW + MINUTE)
    database.write(backfill.end_request, uid_of(2), first, NOW + MINUTE)
    for image in (1, 3):  # the other one still sends
        record_instance(database, received(image, 2, **values), None, PIPELINE, NOW + 2 * MINUTE)
    database.write(backfill.end_request, uid_of(2), second, NOW + 3 * MINUTE)
    facts = study_facts(database, study_of(database, 2))
    assert (facts.pulled, facts.only_prior) == (True, for_prior)
    record_instance(database, received(1, 2, **values), None, PIPELINE, NOW + HOUR)
    assert not study_facts(database, study_of(database, 2)).pulled, "its modality sends it as well"


def test_a_pull_that_brings_nothing_ends_no_other(database: Database) -> None:
    first = database.write(backfill.note_request, uid_of(2), NOW)
    database.write(backfill.note_request, uid_of(2), NOW + SECOND)
    database.write(backfill.end_request, uid_of(2), first, NOW + MINUTE)
    film(database, 2, "20260101")
    assert study_facts(database, study_of(database, 2)).pulled


@pytest.mark.parametrize("came", [True, False])
def test_a_pull_that_began_last_and_ends_first_ends_no_other(database: Database, came: bool) -> None:
    """What the first one still brings came by itself otherwise, and notifies of last year."""
    values = {"patient_id": "P1", "study_date": "20260101", "view": "PA"}
    first = database.write(backfill.note_request, uid_of(2), NOW, for_prior=True)
    second = database.write(backfill.note_request, uid_of(2), NOW + SECOND, for_prior=True)
    if came:
        record_instance(database, received(1, 2, **values), None, PIPELINE, NOW + MINUTE)
    database.write(backfill.end_request, uid_of(2), second, NOW + MINUTE)
    for image in (1, 3):
        record_instance(database, received(image, 2, **values), None, PIPELINE, NOW + 2 * MINUTE)
    facts = study_facts(database, study_of(database, 2))
    assert (facts.pulled, facts.only_prior) == (True, True)
    database.write(backfill.end_request, uid_of(2), first, NOW + 3 * MINUTE)
    record_instance(database, received(1, 2, **values), None, PIPELINE, NOW + 4 * MINUTE)
    assert not study_facts(database, study_of(database, 2)).pulled, "both have ended: its modality sends it as well"


def test_pulls_that_bring_nothing_leave_no_note(database: Database) -> None:
    ends = [database.write(backfill.note_request, uid_of(2), NOW + each * SECOND) for each in range(3)]
    for end in (ends[1], ends[2], ends[0]):
        database.write(backfill.end_request, uid_of(2), end, NOW + MINUTE)
    assert not study_facts(database, film(database, 2, "20260101")).pulled


@pytest.mark.parametrize("killed", [True, False])
def test_a_pull_that_took_too_long_ends_none_that_began_since(database: Database, killed: bool) -> None:
    values = {"patient_id": "P1", "study_date": "20260101", "view": "PA"}
    first = database.write(backfill.note_request, uid_of(2), NOW)
    later = NOW + HOUR + MINUTE
    second = database.write(backfill.note_request, uid_of(2), later)
    if not killed:
        database.write(backfill.end_request, uid_of(2), first, later)
    record_instance(database, received(1, 2, **values), None, PIPELINE, later + MINUTE)
    assert study_facts(database, study_of(database, 2)).pulled
    database.write(backfill.end_request, uid_of(2), second, later + MINUTE)
    record_instance(database, received(1, 2, **values), None, PIPELINE, later + 2 * MINUTE)
    assert not study_facts(database, study_of(database, 2)).pulled


def test_what_a_pull_brings_does_not_come_by_itself(database: Database) -> None:
    ends = database.write(backfill.note_request, uid_of(2), NOW, for_prior=True)
    prior = film(database, 2, "20260101")
    database.write(priors.take_off_worklist, uid_of(2), NOW)
    database.write(backfill.end_request, uid_of(2), ends, NOW)
    database.write(backfill.note_request, uid_of(2), NOW + HOUR)
    for image in (1, 3):  # a series of which an image was missing is pulled as a whole
        values = {"patient_id": "P1", "study_date": "20260101", "view": "PA"}
        record_instance(database, received(image, 2, **values), None, PIPELINE, NOW + HOUR)
    facts = study_facts(database, prior)
    assert (facts.only_prior, facts.reported) == (True, True), "nor is it to be read here, whoever has asked for it"


@pytest.mark.parametrize("came", [True, False])
def test_what_a_lost_process_had_pulled_leaves_the_worklist_and_is_compared(database: Database, came: bool) -> None:
    new = film(database, 1)
    database.write(priors.begin, new, NOW)
    database.write(priors.pulling, new, uid_of(2))
    database.write(backfill.note_request, uid_of(2), NOW, for_prior=True)
    if came:
        assert not study_facts(database, film(database, 2, "20260101")).reported
    assert database.read(priors.lost, NOW + HOUR - MINUTE) == (), "it may pull still"
    assert database.read(priors.lost, NOW + HOUR) == (new,)
    database.write(priors.end_lost, new, NOW + HOUR)
    assert database.read(priors.lost, NOW + HOUR) == ()
    search = database.read(study_detail, new).prior_search
    assert search is not None
    assert (search.prior_study_instance_uid, bool(search.problem)) == ((uid_of(2), False) if came else ("", True))
    if came:
        assert study_facts(database, study_of(database, 2)).reported


def test_the_last_prior_is_of_the_same_patient_and_was_made_before(database: Database) -> None:
    new = film(database, 1, "20260301")
    days = {2: "20260101", 3: "20260201", 4: "20260401", 5: "20240101"}
    for study, day in days.items():
        film(database, study, day)
    film(database, 6, "20260220", patient_name="Somebody^Else")
    film(database, 7, "20260221", patient_id="P2")
    waiting = film(database, 8, "20260222")
    for study in (2, 3, 4, 5, 6, 7):
        analyse(database, study, finding(side="left"), finding("lung_opacity", shadow=True))

    def found(since: str = "20250101") -> str | None:
        prior = database.read(last_prior, new, RULES, since)
        return prior.study_date if prior is not None else None

    assert found() == "20260201"
    database.write(holds.hold, study_of(database, 3), "a doubt", "ada", NOW)
    assert found() == "20260101", "one on hold says nothing"
    assert found("20260102") is None
    assert database.read(last_prior, waiting, RULES, "20250101") is not None
    prior = database.read(last_prior, new, RULES, "20250101")
    assert prior is not None
    (seen,) = prior.findings
    assert (seen.finding.side, seen.view, seen.rejected, seen.sop_instance_uid) == (
        "left",
        "PA",
        False,
        received(1, 2).sop_instance_uid,
    )


@pytest.mark.parametrize("day", ["2026.01.2", "20260230", "2026AB01", "2026010"])
def test_a_study_with_a_date_that_is_none_is_no_prior(database: Database, day: str) -> None:
    """A summary that told it could not be written, so the study would have none."""
    new, odd = film(database, 1, "20260301"), film(database, 2, day)
    analyse(database, 2, finding())
    analyse(database, 1, finding())
    assert database.read(last_prior, new, RULES, "20250101") is None
    assert database.read(last_prior, odd, RULES, "20250101") is None


def test_a_prior_is_usable_where_something_of_it_is_analysed(database: Database) -> None:
    study = film(database, 1)
    assert database.read(priors.is_usable, uid_of(1))
    assert not database.read(priors.is_usable, uid_of(2))
    assert database.write(report, study, NOW + HOUR, actor="ada", cause="read")
    assert database.read(comparable_findings, study) == ()


def compared(database: Database) -> tuple[int, int]:
    """A prior and a newer study of its patient, complete, whose summary has compared them and was sent; their rows."""
    prior, new = film(database, 2, "20260101"), film(database, 1)
    analyse(database, 2, finding())
    analyse(database, 1, finding())
    made = database.write(
        studies.complete, new, (result("summary", 300),), {"pacs": ("summary",)}, NOW, compared_with=uid_of(2)
    )
    (delivery,) = made or ()
    database.write(deliveries.claim, delivery, "d1", NOW, HOUR)
    assert database.write(deliveries.sent, delivery, "d1", NOW)
    return prior, new


def taken_back(database: Database, new: int) -> bool:
    """Whether the summary is withdrawn where it was sent, and the study open for another one."""
    detail = database.read(study_detail, new)
    sent = detail.deliveries[-1]
    withdrawn = (sent.state, sent.stale_code) == (DeliveryState.WITHDRAWN, "113037")
    assert withdrawn == (detail.row.state is StudyState.OPEN)
    return withdrawn


@pytest.mark.parametrize("rejected", [True, False])
def test_a_comparison_with_a_prior_that_is_in_doubt_is_taken_back(database: Database, rejected: bool) -> None:
    prior, new = compared(database)
    assert not taken_back(database, new)
    if rejected:
        note = RejectionNote("1.9", "113001", "Rejected.", (received(1, 2).sop_instance_uid,))
        assert database.write(rejection_notes.reject, note, NOW)
    else:
        database.write(holds.hold, prior, "a doubt", "ada", NOW)
    assert taken_back(database, new)


def test_a_patient_who_gets_another_id_keeps_the_comparison(database: Database) -> None:
    _, new = compared(database)
    merged = PatientUpdate((PatientIdentifier("P2"),), prior=(PatientIdentifier("P1"),))
    assert len(receive_message(database, message(1, patient=merged), NOW).study_ids) == 2
    assert not taken_back(database, new)
    prior = database.read(last_prior, new, RULES, "20250101")
    assert prior is not None
    assert prior.study_instance_uid == uid_of(2)
