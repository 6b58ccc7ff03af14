"""Verification: who is asked about what and when, and what an answer changes."""

from __future__ import annotations

from db.records import DeliveryDetail, DeliveryState, Unverified
from db.worklist import Worklist
from tests.db.examples import HOUR, MINUTE, NOW, SECOND, finished, result, study_of


def sent(worklist: Worklist, number: int = 1, study: int = 1) -> tuple[int, ...]:
    """Finish a job and send its results to a destination that is asked after a minute."""
    _, deliveries = finished(worklist, number, study)
    for one in deliveries:
        assert worklist.claim_delivery(one, "d1", NOW, MINUTE) is not None
        assert worklist.delivery_sent(one, "d1", NOW, MINUTE)
    return deliveries


def detail(worklist: Worklist, delivery_id: int, study: int = 1) -> DeliveryDetail:
    deliveries = worklist.study_detail(study_of(worklist, study)).deliveries
    return next(one for one in deliveries if one.id == delivery_id)


def asked(worklist: Worklist, delivery_id: int, uid: str = "2.25.7") -> Unverified:
    return worklist.claim_verifications(delivery_id, uid, NOW + MINUTE, MINUTE)[0]


def test_a_destination_is_asked_when_it_is_time_and_about_everything(worklist: Worklist) -> None:
    (seg, sr), others = sent(worklist), sent(worklist, study=2)
    assert worklist.deliveries_to_enqueue(NOW + SECOND, HOUR) == ()
    assert worklist.claim_verifications(seg, "2.25.7", NOW + SECOND, MINUTE) == ()
    assert worklist.deliveries_to_enqueue(NOW + MINUTE, HOUR) == (seg,), "one task queue a destination"
    found = worklist.claim_verifications(seg, "2.25.7", NOW + MINUTE, MINUTE)
    assert [one.id for one in found] == [seg, sr, *others]
    record = result("seg", 1010)
    assert (found[0].sop_class_uid, found[0].sop_instance_uid) == (record.sop_class_uid, record.sop_instance_uid)
    assert (found[0].series_instance_uid, found[0].study_instance_uid) == ("2.25.1", "1.2.826.0.2.1")
    assert (found[0].destination, found[0].attempts, found[0].missing) == ("pacs", 1, 0)
    assert worklist.claim_verifications(sr, "2.25.8", NOW + MINUTE, MINUTE) == (), "somebody has it"
    again = worklist.claim_verifications(sr, "2.25.8", NOW + 2 * MINUTE, MINUTE)
    assert [one.attempts for one in again] == [2] * 4, "whoever had it is gone"


def test_a_destination_that_need_not_verify_anything_is_never_asked(worklist: Worklist) -> None:
    _, (seg, _) = finished(worklist)
    worklist.claim_delivery(seg, "d1", NOW, MINUTE)
    worklist.delivery_sent(seg, "d1", NOW)
    assert seg not in worklist.deliveries_to_enqueue(NOW + 100 * HOUR, MINUTE)
    assert worklist.claim_verifications(seg, "2.25.7", NOW + 100 * HOUR, MINUTE) == ()


def test_a_verification_ends_the_questions(worklist: Worklist) -> None:
    seg, _ = sent(worklist)
    question = asked(worklist, seg)
    assert worklist.delivery_verified(question, NOW + 2 * MINUTE)
    assert worklist.delivery_verified(question, NOW + HOUR) is False
    one = detail(worklist, seg)
    assert (one.state, one.verified_at, one.error) == (DeliveryState.VERIFIED, NOW + 2 * MINUTE, "")
    assert worklist.claim_verifications(seg, "2.25.8", NOW + HOUR, MINUTE) == ()
    assert worklist.study_detail(study_of(worklist)).events[-1].cause == "destination holds it"


def test_what_was_not_sent_cannot_be_verified(worklist: Worklist) -> None:
    _, (seg, _) = finished(worklist)
    never = Unverified(seg, "pacs", "1.2", "1.3", "1.4", "1.5", 1, 0, "2.25.7")
    assert worklist.delivery_verified(never, NOW) is False
    assert detail(worklist, seg).state is DeliveryState.PENDING


def test_an_answer_to_an_earlier_question_changes_nothing(worklist: Worklist) -> None:
    seg, _ = sent(worklist)
    before = asked(worklist, seg)
    (now, *_) = worklist.claim_verifications(seg, "2.25.8", NOW + HOUR, MINUTE)
    for not_eligible in (
        worklist.delivery_verified(before, NOW),
        worklist.postpone_verification(before, "no", None),
        worklist.send_again(before, "no", NOW),
        worklist.give_up_verification(before, "no", NOW),
    ):
        assert not_eligible is False
    assert worklist.asked_in("2.25.7", [before.sop_instance_uid]) == ()
    assert worklist.asked_in("2.25.8", [before.sop_instance_uid, "1.2.3"]) == (now,)


def test_what_is_missing_is_asked_for_again_with_a_note(worklist: Worklist) -> None:
    seg, _ = sent(worklist)
    assert worklist.postpone_verification(asked(worklist, seg), "not there", NOW + HOUR, missing=True)
    assert (detail(worklist, seg).state, detail(worklist, seg).error) == (DeliveryState.SENT, "not there")
    assert worklist.claim_verifications(seg, "2.25.8", NOW + HOUR - SECOND, MINUTE) == ()
    (again, *_) = (one for one in worklist.claim_verifications(seg, "2.25.8", NOW + HOUR, MINUTE) if one.id == seg)
    assert (again.attempts, again.missing) == (2, 1)
    assert worklist.postpone_verification(again, "never verified", None)
    assert worklist.claim_verifications(seg, "2.25.9", NOW + 100 * HOUR, MINUTE) == ()


def test_what_was_lost_is_sent_again_and_then_given_up(worklist: Worklist) -> None:
    seg, _ = sent(worklist)
    assert worklist.send_again(asked(worklist, seg), "lost", NOW + MINUTE)
    assert (detail(worklist, seg).state, detail(worklist, seg).attempts) == (DeliveryState.PENDING, 0)
    assert seg in worklist.deliveries_to_enqueue(NOW + MINUTE, HOUR)
    claimed = worklist.claim_delivery(seg, "d2", NOW + MINUTE, MINUTE)
    assert claimed is not None
    assert claimed.missing == 1
    assert worklist.delivery_sent(seg, "d2", NOW + MINUTE, MINUTE)
    (again, *_) = (one for one in worklist.claim_verifications(seg, "2.25.9", NOW + HOUR, MINUTE) if one.id == seg)
    assert (again.attempts, again.missing) == (1, 1), "what it had lost before still counts"
    assert worklist.give_up_verification(again, "lost twice", NOW + HOUR)
    assert (detail(worklist, seg).state, detail(worklist, seg).error) == (DeliveryState.FAILED, "lost twice")
    worklist.requeue_delivery(seg, "admin", "the PACS is fixed", NOW + HOUR)
    claimed = worklist.claim_delivery(seg, "d3", NOW + HOUR, MINUTE)
    assert claimed is not None
    assert claimed.missing == 0, "a person has decided"
    assert worklist.delivery_sent(seg, "d3", NOW + HOUR, MINUTE)
    (fresh, *_) = (one for one in worklist.claim_verifications(seg, "2.25.10", NOW + 3 * HOUR, MINUTE) if one.id == seg)
    assert fresh.missing == 0


def test_what_a_person_sends_again_is_not_verified_by_an_old_answer(worklist: Worklist) -> None:
    seg, _ = sent(worklist)
    question = asked(worklist, seg)
    worklist.requeue_delivery(seg, "admin", "again", NOW)
    assert worklist.delivery_verified(question, NOW) is False
    assert detail(worklist, seg).state is DeliveryState.PENDING


def test_files_are_kept_until_nobody_asks_any_more(worklist: Worklist) -> None:
    (seg, _), study_id = sent(worklist), study_of(worklist)
    assert worklist.complete_study(study_id, (), {}, NOW) is not None
    assert worklist.expired_studies(NOW + HOUR) == ()
    for question in worklist.claim_verifications(seg, "2.25.7", NOW + MINUTE, MINUTE):
        if question.id == seg:
            worklist.delivery_verified(question, NOW + MINUTE)
        else:
            worklist.postpone_verification(question, "never verified", None)
    assert [one.study_id for one in worklist.expired_studies(NOW + HOUR)] == [study_id]
