"""Verification: who is asked about what and when, and what an answer changes."""

from __future__ import annotations

from db import deliveries, studies, verification
from db.database import Database
from db.queries import retention, study_details
from db.records import Unverified
from db.shown_records import DeliveryDetail
from db.states import DeliveryState
from tests.db.examples import HOUR, MINUTE, NOW, SECOND, finished, result, study_of


def sent(database: Database, number: int = 1, study: int = 1) -> tuple[int, ...]:
    """Finish a job and send its results to a destination that is asked after a minute."""
    _, delivery_ids = finished(database, number, study)
    for one in delivery_ids:
        assert database.write(deliveries.claim, one, "d1", NOW, MINUTE) is not None
        assert database.write(deliveries.sent, one, "d1", NOW, MINUTE)
    return delivery_ids


def detail(database: Database, delivery_id: int, study: int = 1) -> DeliveryDetail:
    delivery_ids = database.read(study_details.study_detail, study_of(database, study)).deliveries
    return next(one for one in delivery_ids if one.id == delivery_id)


def asked(database: Database, delivery_id: int, uid: str = "2.25.7") -> Unverified:
    return database.write(verification.claim, delivery_id, uid, NOW + MINUTE, MINUTE)[0]


def test_a_destination_is_asked_when_it_is_time_and_about_everything(database: Database) -> None:
    (seg, sr), others = sent(database), sent(database, study=2)
    assert database.read(deliveries.to_enqueue, NOW + SECOND, HOUR) == ()
    assert database.write(verification.claim, seg, "2.25.7", NOW + SECOND, MINUTE) == ()
    assert database.read(deliveries.to_enqueue, NOW + MINUTE, HOUR) == (seg,), "one task queue a destination"
    found = database.write(verification.claim, seg, "2.25.7", NOW + MINUTE, MINUTE)
    assert [one.id for one in found] == [seg, sr, *others]
    record = result("seg", 1010)
    assert (found[0].sop_class_uid, found[0].sop_instance_uid) == (record.sop_class_uid, record.sop_instance_uid)
    assert (found[0].series_instance_uid, found[0].study_instance_uid) == ("2.25.1", "1.2.826.0.2.1")
    assert (found[0].destination, found[0].attempts, found[0].missing) == ("pacs", 1, 0)
    assert database.write(verification.claim, sr, "2.25.8", NOW + MINUTE, MINUTE) == (), "somebody has it"
    again = database.write(verification.claim, sr, "2.25.8", NOW + 2 * MINUTE, MINUTE)
    assert [one.attempts for one in again] == [2] * 4, "whoever had it is gone"


def test_a_destination_that_need_not_verify_anything_is_never_asked(database: Database) -> None:
    _, (seg, _) = finished(database)
    database.write(deliveries.claim, seg, "d1", NOW, MINUTE)
    database.write(deliveries.sent, seg, "d1", NOW)
    assert seg not in database.read(deliveries.to_enqueue, NOW + 100 * HOUR, MINUTE)
    assert database.write(verification.claim, seg, "2.25.7", NOW + 100 * HOUR, MINUTE) == ()


def test_a_verification_ends_the_questions(database: Database) -> None:
    seg, _ = sent(database)
    question = asked(database, seg)
    assert database.write(verification.verified, question, NOW + 2 * MINUTE)
    assert database.write(verification.verified, question, NOW + HOUR) is False
    one = detail(database, seg)
    assert (one.state, one.verified_at, one.error) == (DeliveryState.VERIFIED, NOW + 2 * MINUTE, "")
    assert database.write(verification.claim, seg, "2.25.8", NOW + HOUR, MINUTE) == ()
    assert database.read(study_details.study_detail, study_of(database)).events[-1].cause == "destination holds it"


def test_what_was_not_sent_cannot_be_verified(database: Database) -> None:
    _, (seg, _) = finished(database)
    never = Unverified(seg, "pacs", "1.2", "1.3", "1.4", "1.5", 1, 0, "2.25.7")
    assert database.write(verification.verified, never, NOW) is False
    assert detail(database, seg).state is DeliveryState.PENDING


def test_an_answer_to_an_earlier_question_changes_nothing(database: Database) -> None:
    seg, _ = sent(database)
    before = asked(database, seg)
    (now, *_) = database.write(verification.claim, seg, "2.25.8", NOW + HOUR, MINUTE)
    for not_eligible in (
        database.write(verification.verified, before, NOW),
        database.write(verification.postpone, before, "no", None),
        database.write(verification.send_again, before, "no", NOW),
        database.write(verification.give_up, before, "no", NOW),
    ):
        assert not_eligible is False
    assert database.read(verification.asked_in, "2.25.7", [before.sop_instance_uid]) == ()
    assert database.read(verification.asked_in, "2.25.8", [before.sop_instance_uid, "1.2.3"]) == (now,)


def test_what_is_missing_is_asked_for_again_with_a_note(database: Database) -> None:
    seg, _ = sent(database)
    assert database.write(verification.postpone, asked(database, seg), "not there", NOW + HOUR, 1)
    assert (detail(database, seg).state, detail(database, seg).error) == (DeliveryState.SENT, "not there")
    assert database.write(verification.claim, seg, "2.25.8", NOW + HOUR - SECOND, MINUTE) == ()
    (again, *_) = (
        one for one in database.write(verification.claim, seg, "2.25.8", NOW + HOUR, MINUTE) if one.id == seg
    )
    assert (again.attempts, again.missing) == (2, 1)
    assert database.write(verification.postpone, again, "never verified", None)
    assert database.write(verification.claim, seg, "2.25.9", NOW + 100 * HOUR, MINUTE) == ()


def test_a_report_that_comes_before_the_note_that_none_has_come_still_counts(database: Database) -> None:
    """A destination may report Storage Commitment before the worker that has asked notes that it waits for it."""
    seg, _ = sent(database)
    asking = asked(database, seg)
    (reported,) = database.read(verification.asked_in, asking.transaction_uid, [asking.sop_instance_uid])
    assert database.write(verification.postpone, reported, "not there", NOW + HOUR, 1)
    assert database.write(verification.postpone, asking, "has not reported yet", NOW + 2 * HOUR) is False
    assert detail(database, seg).error == "not there"
    (again, *_) = (
        one for one in database.write(verification.claim, seg, "2.25.8", NOW + HOUR, MINUTE) if one.id == seg
    )
    assert again.missing == 1, "so that it is sent again where it is missing once more"


def test_what_was_lost_is_sent_again_and_then_given_up(database: Database) -> None:
    seg, _ = sent(database)
    assert database.write(verification.send_again, asked(database, seg), "lost", NOW + MINUTE)
    assert (detail(database, seg).state, detail(database, seg).attempts) == (DeliveryState.PENDING, 0)
    assert seg in database.read(deliveries.to_enqueue, NOW + MINUTE, HOUR)
    claimed = database.write(deliveries.claim, seg, "d2", NOW + MINUTE, MINUTE)
    assert claimed is not None
    assert claimed.missing == 1
    assert database.write(deliveries.sent, seg, "d2", NOW + MINUTE, MINUTE)
    (again, *_) = (
        one for one in database.write(verification.claim, seg, "2.25.9", NOW + HOUR, MINUTE) if one.id == seg
    )
    assert (again.attempts, again.missing) == (1, 1), "what it had lost before still counts"
    assert database.write(verification.give_up, again, "lost twice", NOW + HOUR)
    assert (detail(database, seg).state, detail(database, seg).error) == (DeliveryState.FAILED, "lost twice")
    database.write(deliveries.requeue, seg, "admin", "the PACS is fixed", NOW + HOUR)
    claimed = database.write(deliveries.claim, seg, "d3", NOW + HOUR, MINUTE)
    assert claimed is not None
    assert claimed.missing == 0, "a person has decided"
    assert database.write(deliveries.sent, seg, "d3", NOW + HOUR, MINUTE)
    (fresh, *_) = (
        one for one in database.write(verification.claim, seg, "2.25.10", NOW + 3 * HOUR, MINUTE) if one.id == seg
    )
    assert fresh.missing == 0


def test_what_a_person_sends_again_is_not_verified_by_an_old_answer(database: Database) -> None:
    seg, _ = sent(database)
    question = asked(database, seg)
    database.write(deliveries.requeue, seg, "admin", "again", NOW)
    assert database.write(verification.verified, question, NOW) is False
    assert detail(database, seg).state is DeliveryState.PENDING


def test_files_are_kept_until_nobody_asks_any_more(database: Database) -> None:
    (seg, _), study_id = sent(database), study_of(database)
    assert database.write(studies.complete, study_id, (), {}, NOW) is not None
    assert database.read(retention.expired, NOW + HOUR) == ()
    for question in database.write(verification.claim, seg, "2.25.7", NOW + MINUTE, MINUTE):
        if question.id == seg:
            database.write(verification.verified, question, NOW + MINUTE)
        else:
            database.write(verification.postpone, question, "never verified", None)
    assert [one.study_id for one in database.read(retention.expired, NOW + HOUR)] == [study_id]
