"""What a destination holds and is not right any more: when it is marked, and what a note does."""

from __future__ import annotations

from datetime import datetime

import pytest

from db import deliveries, holds, jobs, rejection_notes, stale_objects, studies, verification
from db.database import Database
from db.errors import TransitionError
from db.leases import LEASE, renew
from db.queries import study_details
from db.records import FOR_QUALITY, FOR_SAFETY, NOTE, RejectionNote, ResultRecord
from db.states import DeliveryState
from tests.db.examples import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    TO_PACS,
    claim,
    deliveries_of,
    finished,
    outcome,
    received,
    result,
    study_of,
)

RECORD = ResultRecord(NOTE, "1.2.840.10008.5.1.4.1.1.88.59", "2.25.7", "2.25.8", "e" * 64, "results/note", 10)
QUALITY = RejectionNote("1.2.9", "113001", "The hospital has rejected it.", (received().sop_instance_uid,))
SAFETY = RejectionNote("1.2.9", "113037", "The hospital has rejected it.", (received().sop_instance_uid,))
PACS = ("pacs",)


def send(database: Database, delivery_id: int) -> None:
    assert database.write(deliveries.claim, delivery_id, "d", NOW, MINUTE) is not None
    assert database.write(deliveries.sent, delivery_id, "d", NOW, MINUTE)


def sent(database: Database) -> int:
    """A study whose SEG has been sent and whose SR has not; the job."""
    job_id, (seg, _) = finished(database)
    send(database, seg)
    return job_id


def codes(database: Database, now: datetime = NOW) -> list[tuple[str, str]]:
    found = database.read(stale_objects.stale_objects, study_of(database), PACS, now)
    return [(one.kind, one.code) for one in found]


def test_what_was_sent_of_a_rejected_image_is_stale_with_the_title_of_the_hospitals_note(database: Database) -> None:
    sent(database)
    assert database.read(stale_objects.studies_with_stale, PACS, NOW) == ()
    database.write(rejection_notes.reject, QUALITY, NOW)
    assert codes(database) == [("seg", "113001")]
    assert database.read(stale_objects.studies_with_stale, PACS, NOW) == (study_of(database),)
    assert (
        database.read(stale_objects.studies_with_stale, ("elsewhere",), NOW)
        == database.read(stale_objects.studies_with_stale, (), NOW)
        == ()
    )


def test_what_is_being_sent_may_arrive_and_its_note_waits_until_it_has(database: Database) -> None:
    _, (seg, _) = finished(database)
    database.write(deliveries.claim, seg, "d", NOW, MINUTE)
    database.write(rejection_notes.reject, SAFETY, NOW)
    assert codes(database) == [], "a note that is there first takes back nothing"
    assert codes(database, NOW + MINUTE) == [("seg", FOR_SAFETY)], "a process that is lost is not waited for"
    database.write(renew, "d", NOW + MINUTE - LEASE, NOW + SECOND)
    assert codes(database, NOW + SECOND + LEASE - SECOND) == [], "it works at it still"
    assert not database.write(deliveries.sent, seg, "d", NOW + SECOND)
    assert codes(database, NOW + SECOND) == [("seg", FOR_SAFETY)]


@pytest.mark.parametrize("end", ["tried again", "refused afterwards", "failed", "lost, then refused"])
def test_what_may_have_arrived_without_a_word_is_taken_back(database: Database, end: str) -> None:
    _, (seg, sr) = finished(database)
    assert database.write(deliveries.claim, seg, "d", NOW, MINUTE)
    if end == "failed":
        database.write(deliveries.fail, seg, "d", "no word", NOW, True)
    elif end == "lost, then refused":
        database.write(deliveries.release, "d", NOW)
    else:
        database.write(deliveries.retry, seg, "d", "no word", NOW, SECOND, True)
    if end.endswith("refused afterwards") or end.startswith("lost"):
        assert database.write(deliveries.claim, seg, "d", NOW + MINUTE, MINUTE)
        database.write(deliveries.retry, seg, "d", "no room", NOW + MINUTE, MINUTE)
    database.write(rejection_notes.reject, SAFETY, NOW)
    assert codes(database) == [("seg", FOR_SAFETY)], "and of what was never sent nobody need know"
    noted = {one.id: one for one in database.read(study_details.study_detail, study_of(database)).deliveries}
    assert "may have arrived" in noted[seg].error
    assert noted[sr].stale_code == ""


@pytest.mark.parametrize("word", ["being sent", "no word"])
def test_what_may_arrive_of_an_earlier_revision_is_taken_back_and_not_sent_again(database: Database, word: str) -> None:
    job_id, (seg, sr) = finished(database)
    assert database.write(deliveries.claim, seg, "d", NOW, MINUTE)
    if word == "no word":
        database.write(deliveries.retry, seg, "d", "no word", NOW, SECOND, True)
    again(database, job_id)
    noted = {one.id: one for one in database.read(study_details.study_detail, study_of(database)).deliveries}
    assert (noted[seg].state, noted[seg].stale_code) == (DeliveryState.WITHDRAWN, FOR_QUALITY)
    assert "may have arrived" in noted[seg].error
    assert (noted[sr].state, noted[sr].stale_code) == (DeliveryState.WITHDRAWN, "")
    assert not database.write(deliveries.retry, seg, "d", "busy", NOW, SECOND)
    assert codes(database) == [("seg", FOR_QUALITY)]


def again(database: Database, job_id: int) -> tuple[int, ...]:
    database.write(jobs.requeue, job_id, "admin", "again", NOW)
    claim(database, job_id)
    assert database.write(jobs.finish, job_id, "w1", outcome(7000), NOW) is not None
    return deliveries_of(database, job_id)


def test_a_newer_revision_makes_the_sent_one_stale_once_it_has_left_itself(database: Database) -> None:
    job_id = sent(database)
    newer = again(database, job_id)
    assert codes(database) == [], "the archive is not left without either"
    for delivery in newer:
        send(database, delivery)
    assert codes(database) == [("seg", FOR_QUALITY)]
    stale = database.read(study_details.study_detail, study_of(database)).deliveries[0]
    assert "Revision 2 replaces it" in stale.error
    assert stale.id not in database.read(deliveries.to_enqueue, NOW + HOUR, MINUTE), (
        "nobody asks any more whether it is there"
    )


def test_what_a_newer_revision_stands_for_is_not_sent_once_more(database: Database) -> None:
    """Neither at an answer to what the destination was asked before, nor by a person: it would stand beside, or after,
    the one that replaces it."""
    job_id = sent(database)
    (old,) = (one for one in database.read(study_details.study_detail, study_of(database)).deliveries if one.sent_at)
    (asked,) = database.write(verification.claim, old.id, "2.25.7", NOW + MINUTE, MINUTE)
    again(database, job_id)
    assert database.write(verification.send_again, asked, "it does not hold it", NOW + MINUTE) is False
    assert database.write(verification.postpone, asked, "later", NOW + HOUR) is False
    assert database.read(verification.asked_in, "2.25.7", [asked.sop_instance_uid]) == ()
    with pytest.raises(TransitionError):
        database.write(deliveries.requeue, old.id, "admin", "again", NOW)


def test_a_newer_summary_makes_the_sent_one_stale(database: Database) -> None:
    sent(database)
    study_id = study_of(database)
    for revision in (1, 2):
        if revision == 2:
            finished(database, 2)
        delivery_ids = database.write(studies.complete, study_id, (result("summary", 90 + revision),), TO_PACS, NOW)
        assert delivery_ids
        send(database, delivery_ids[0])
    for one in database.read(study_details.study_detail, study_id).deliveries:
        if one.state is DeliveryState.PENDING:
            send(database, one.id)
    assert codes(database) == [("summary", FOR_QUALITY)]


def test_a_note_is_kept_once_and_leaves_though_the_study_is_on_hold(database: Database) -> None:
    sent(database)
    study_id = study_of(database)
    database.write(rejection_notes.reject, SAFETY, NOW)
    assert database.read(study_details.study_detail, study_id).row.on_hold
    stale = database.read(stale_objects.stale_objects, study_id, PACS, NOW)
    (note,) = database.write(stale_objects.record_note, study_id, RECORD, stale, NOW)
    assert database.write(stale_objects.record_note, study_id, RECORD, stale, NOW) == (), (
        "another scheduler was quicker"
    )
    assert codes(database) == []
    assert database.read(deliveries.to_enqueue, NOW + HOUR, MINUTE) == (note,)
    database.write(holds.hold, study_id, "once more", "admin", NOW)
    claimed = database.write(deliveries.claim, note, "d", NOW, MINUTE)
    assert claimed is not None
    assert claimed.kind == NOTE
    assert database.write(deliveries.retry, note, "d", "busy", NOW, MINUTE)
    assert database.write(deliveries.claim, note, "d", NOW + HOUR, MINUTE) is not None
    detail = database.read(study_details.study_detail, study_id)
    assert detail.deliveries[0].note_id == detail.results[-1].id


def test_a_later_summary_does_not_withdraw_a_note_that_waits(database: Database) -> None:
    sent(database)
    study_id = study_of(database)
    assert database.write(studies.complete, study_id, (result("summary", 91),), TO_PACS, NOW) is not None
    database.write(rejection_notes.reject, QUALITY, NOW)
    (note,) = database.write(
        stale_objects.record_note,
        study_id,
        RECORD,
        database.read(stale_objects.stale_objects, study_id, PACS, NOW),
        NOW,
    )
    assert database.write(studies.complete, study_id, (result("summary", 92),), TO_PACS, NOW) is not None
    states = {one.id: one.state for one in database.read(study_details.study_detail, study_id).deliveries}
    assert states[note] is DeliveryState.PENDING


def test_a_summary_that_tells_of_a_rejected_image_is_stale_though_no_newer_one_follows(database: Database) -> None:
    finished(database)
    study_id = study_of(database)
    delivery_ids = database.write(studies.complete, study_id, (result("summary", 91),), TO_PACS, NOW)
    assert delivery_ids
    send(database, delivery_ids[0])
    database.write(rejection_notes.reject, SAFETY, NOW)
    assert codes(database) == [("summary", FOR_SAFETY)]
