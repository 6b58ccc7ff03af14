"""What a destination holds and is not right any more: when it is marked, and what a note does."""

from __future__ import annotations

from db.records import FOR_QUALITY, FOR_SAFETY, NOTE, DeliveryState, RejectionNote, ResultRecord
from db.worklist import Worklist
from tests.db.examples import HOUR, MINUTE, NOW, TO_PACS, claim, finished, outcome, received, result, study_of

RECORD = ResultRecord(NOTE, "1.2.840.10008.5.1.4.1.1.88.59", "2.25.7", "2.25.8", "e" * 64, "results/note", 10)
QUALITY = RejectionNote("1.2.9", "113001", "The hospital has rejected it.", (received().sop_instance_uid,))
SAFETY = RejectionNote("1.2.9", "113037", "The hospital has rejected it.", (received().sop_instance_uid,))
PACS = ("pacs",)


def send(worklist: Worklist, delivery_id: int) -> None:
    assert worklist.claim_delivery(delivery_id, "d", NOW, MINUTE) is not None
    assert worklist.delivery_sent(delivery_id, "d", NOW, MINUTE)


def sent(worklist: Worklist) -> int:
    """A study whose SEG has been sent and whose SR has not; the job."""
    job_id, (seg, _) = finished(worklist)
    send(worklist, seg)
    return job_id


def codes(worklist: Worklist) -> list[tuple[str, str]]:
    return [(one.kind, one.code) for one in worklist.stale_objects(study_of(worklist), PACS)]


def test_what_was_sent_of_a_rejected_image_is_stale_with_the_title_of_the_hospitals_note(worklist: Worklist) -> None:
    sent(worklist)
    assert worklist.studies_with_stale_objects(PACS) == ()
    worklist.reject_instances(QUALITY, NOW)
    assert codes(worklist) == [("seg", "113001")]
    assert worklist.studies_with_stale_objects(PACS) == (study_of(worklist),)
    assert worklist.studies_with_stale_objects(("elsewhere",)) == worklist.studies_with_stale_objects(()) == ()


def test_what_was_being_sent_may_have_arrived(worklist: Worklist) -> None:
    _, (seg, _) = finished(worklist)
    worklist.claim_delivery(seg, "d", NOW, MINUTE)
    worklist.reject_instances(SAFETY, NOW)
    assert codes(worklist) == [("seg", FOR_SAFETY)]


def again(worklist: Worklist, job_id: int) -> tuple[int, ...]:
    worklist.requeue_job(job_id, "admin", "again", NOW)
    claim(worklist, job_id)
    deliveries = worklist.finish_job(job_id, "w1", outcome(7000), NOW)
    assert deliveries is not None
    return deliveries


def test_a_newer_revision_makes_the_sent_one_stale_once_it_has_left_itself(worklist: Worklist) -> None:
    job_id = sent(worklist)
    newer = again(worklist, job_id)
    assert codes(worklist) == [], "the archive is not left without either"
    for delivery in newer:
        send(worklist, delivery)
    assert codes(worklist) == [("seg", FOR_QUALITY)]
    stale = worklist.study_detail(study_of(worklist)).deliveries[0]
    assert "Revision 2 replaces it" in stale.error
    assert stale.id not in worklist.deliveries_to_enqueue(NOW + HOUR, MINUTE), (
        "nobody asks any more whether it is there"
    )


def test_a_newer_summary_makes_the_sent_one_stale(worklist: Worklist) -> None:
    sent(worklist)
    study_id = study_of(worklist)
    for revision in (1, 2):
        if revision == 2:
            finished(worklist, 2)
        deliveries = worklist.complete_study(study_id, (result("summary", 90 + revision),), TO_PACS, NOW)
        assert deliveries
        send(worklist, deliveries[0])
    for one in worklist.study_detail(study_id).deliveries:
        if one.state is DeliveryState.PENDING:
            send(worklist, one.id)
    assert codes(worklist) == [("summary", FOR_QUALITY)]


def test_a_note_is_kept_once_and_leaves_though_the_study_is_on_hold(worklist: Worklist) -> None:
    sent(worklist)
    study_id = study_of(worklist)
    worklist.reject_instances(SAFETY, NOW)
    assert worklist.study_detail(study_id).row.on_hold
    stale = worklist.stale_objects(study_id, PACS)
    (note,) = worklist.record_note(study_id, RECORD, stale, NOW)
    assert worklist.record_note(study_id, RECORD, stale, NOW) == (), "another scheduler was quicker"
    assert codes(worklist) == []
    assert worklist.deliveries_to_enqueue(NOW + HOUR, MINUTE) == (note,)
    worklist.hold_study(study_id, "once more", "admin", NOW)
    claimed = worklist.claim_delivery(note, "d", NOW, MINUTE)
    assert claimed is not None
    assert claimed.kind == NOTE
    assert worklist.retry_delivery(note, "d", "busy", NOW, MINUTE)
    assert worklist.claim_delivery(note, "d", NOW + HOUR, MINUTE) is not None
    detail = worklist.study_detail(study_id)
    assert detail.deliveries[0].note_id == detail.results[-1].id


def test_a_later_summary_does_not_withdraw_a_note_that_waits(worklist: Worklist) -> None:
    sent(worklist)
    study_id = study_of(worklist)
    assert worklist.complete_study(study_id, (result("summary", 91),), TO_PACS, NOW) is not None
    worklist.reject_instances(QUALITY, NOW)
    (note,) = worklist.record_note(study_id, RECORD, worklist.stale_objects(study_id, PACS), NOW)
    assert worklist.complete_study(study_id, (result("summary", 92),), TO_PACS, NOW) is not None
    states = {one.id: one.state for one in worklist.study_detail(study_id).deliveries}
    assert states[note] is DeliveryState.PENDING


def test_a_summary_that_tells_of_a_rejected_image_is_stale_though_no_newer_one_follows(worklist: Worklist) -> None:
    finished(worklist)
    study_id = study_of(worklist)
    deliveries = worklist.complete_study(study_id, (result("summary", 91),), TO_PACS, NOW)
    assert deliveries
    send(worklist, deliveries[0])
    worklist.reject_instances(SAFETY, NOW)
    assert codes(worklist) == [("summary", FOR_SAFETY)]
