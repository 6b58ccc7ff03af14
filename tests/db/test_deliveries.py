"""Deliveries: storing order, claims, and how each one ends."""

from __future__ import annotations

import pytest

from db.errors import StudyOnHoldError, TransitionError
from db.records import Delivery, DeliveryDetail, DeliveryState
from db.worklist import Worklist
from tests.db.examples import HOUR, MINUTE, NOW, SECOND, finished, outcome, received, result, study_of


def delivery(worklist: Worklist, delivery_id: int) -> DeliveryDetail:
    (found,) = (one for one in worklist.study_detail(study_of(worklist)).deliveries if one.id == delivery_id)
    return found


def sending(worklist: Worklist, delivery_id: int, worker: str = "d1") -> Delivery:
    claimed = worklist.claim_delivery(delivery_id, worker, NOW, MINUTE)
    assert claimed is not None
    return claimed


def test_a_claim_gives_what_sending_needs(worklist: Worklist) -> None:
    job_id, (seg, _) = finished(worklist)
    claimed = sending(worklist, seg)
    record = result("seg", 1010)
    assert (claimed.kind, claimed.sop_instance_uid, claimed.path) == ("seg", record.sop_instance_uid, record.path)
    assert (claimed.patient_id, claimed.study_instance_uid) == ("P1", received().study_instance_uid)
    assert (claimed.state, claimed.attempts, claimed.job_id) == (DeliveryState.SENDING, 1, job_id)
    assert worklist.claim_delivery(seg, "d2", NOW, MINUTE) is None
    assert worklist.claim_delivery(seg, "d2", NOW + MINUTE, MINUTE) is not None
    assert worklist.delivery_sent(seg, "d1", NOW + MINUTE) is False


def test_a_group_is_claimed_in_storing_order(worklist: Worklist) -> None:
    job_id, (seg, sr) = finished(worklist)
    group = worklist.claim_deliveries("pacs", job_id, study_of(worklist), "d1", NOW, MINUTE)
    assert [one.id for one in group] == [seg, sr]
    assert worklist.claim_deliveries("pacs", job_id, study_of(worklist), "d1", NOW, MINUTE) == ()
    assert worklist.claim_deliveries("elsewhere", job_id, study_of(worklist), "d1", NOW, MINUTE) == ()


def test_a_report_does_not_overtake_its_segmentation(worklist: Worklist) -> None:
    job_id, (seg, sr) = finished(worklist)
    sending(worklist, seg)
    assert worklist.claim_delivery(sr, "d2", NOW, MINUTE) is None
    assert worklist.retry_delivery(seg, "d1", "no association", NOW, MINUTE)
    assert worklist.claim_delivery(sr, "d2", NOW + SECOND, MINUTE) is None
    assert worklist.claim_deliveries("pacs", job_id, study_of(worklist), "d2", NOW + SECOND, MINUTE) == ()
    group = worklist.claim_deliveries("pacs", job_id, study_of(worklist), "d2", NOW + MINUTE, MINUTE)
    assert [(one.id, one.attempts) for one in group] == [(seg, 2), (sr, 1)]


def test_a_segmentation_that_was_given_up_does_not_stop_the_report(worklist: Worklist) -> None:
    _, (seg, sr) = finished(worklist)
    sending(worklist, seg)
    assert worklist.fail_delivery(seg, "d1", "SOP class not supported", NOW)
    assert sending(worklist, sr).kind == "sr"
    (row,) = worklist.worklist()
    assert (row.deliveries_open, row.deliveries_failed) == (1, 1)


def test_sent(worklist: Worklist) -> None:
    _, (seg, _) = finished(worklist)
    sending(worklist, seg)
    assert worklist.delivery_sent(seg, "d1", NOW + SECOND)
    assert worklist.delivery_sent(seg, "d1", NOW + SECOND) is False
    one = delivery(worklist, seg)
    assert (one.state, one.sent_at, one.verified_at) == (DeliveryState.SENT, NOW + SECOND, None)


def test_a_lost_task_queue_is_enqueued_again(worklist: Worklist) -> None:
    _, (seg, sr) = finished(worklist)
    assert worklist.deliveries_to_enqueue(NOW + SECOND, MINUTE) == ()
    assert worklist.deliveries_to_enqueue(NOW + MINUTE, MINUTE) == (seg, sr)
    worklist.mark_deliveries_dispatched([seg, sr], NOW + MINUTE)
    assert worklist.deliveries_to_enqueue(NOW + MINUTE, MINUTE) == ()
    sending(worklist, seg)
    assert worklist.retry_delivery(seg, "d1", "busy", NOW + HOUR, MINUTE)
    worklist.mark_deliveries_dispatched([sr], NOW + HOUR)
    assert worklist.deliveries_to_enqueue(NOW + HOUR, HOUR) == ()
    assert worklist.deliveries_to_enqueue(NOW + HOUR + MINUTE, HOUR) == (seg,)


def test_the_deliveries_of_dead_workers_are_pending_again(worklist: Worklist) -> None:
    _, (seg, sr) = finished(worklist)
    sending(worklist, seg, "host-1.4")
    assert worklist.release_deliveries("host-1.", NOW) == (seg,)
    assert worklist.deliveries_to_enqueue(NOW, HOUR) == (seg,)
    assert worklist.release_deliveries("host-1.", NOW) == ()
    assert delivery(worklist, sr).state is DeliveryState.PENDING


def test_a_delivery_on_hold_for_its_own_reason_is_not_released_with_the_study(worklist: Worklist) -> None:
    _, (seg, sr) = finished(worklist)
    study_id = study_of(worklist)
    sending(worklist, seg)
    assert worklist.hold_delivery(seg, "d1", "the PACS says another patient", NOW)
    worklist.hold_study(study_id, "merged", "admin", NOW)
    with pytest.raises(StudyOnHoldError):
        worklist.requeue_delivery(seg, "admin", "corrected", NOW)
    worklist.release_study(study_id, "admin", NOW)
    assert [delivery(worklist, one).state for one in (seg, sr)] == [DeliveryState.ON_HOLD, DeliveryState.PENDING]
    worklist.requeue_delivery(seg, "admin", "corrected", NOW)
    assert delivery(worklist, seg).state is DeliveryState.PENDING
    assert worklist.deliveries_to_enqueue(NOW, HOUR) == (seg, sr)


def test_a_retry_in_a_on_hold_study_is_on_hold_with_it(worklist: Worklist) -> None:
    _, (seg, _) = finished(worklist)
    study_id = study_of(worklist)
    sending(worklist, seg)
    worklist.hold_study(study_id, "merged", "admin", NOW)
    assert worklist.retry_delivery(seg, "d1", "busy", NOW, SECOND)
    assert delivery(worklist, seg).state is DeliveryState.ON_HOLD
    worklist.release_study(study_id, "admin", NOW)
    assert delivery(worklist, seg).state is DeliveryState.PENDING


def test_only_what_has_ended_is_sent_again_on_request(worklist: Worklist) -> None:
    _, (seg, sr) = finished(worklist)
    for one, state in ((seg, "sending"), (sr, "pending")):
        if state == "sending":
            sending(worklist, one)
        with pytest.raises(TransitionError, match=state):
            worklist.requeue_delivery(one, "admin", "again", NOW)
    worklist.delivery_sent(seg, "d1", NOW)
    worklist.requeue_delivery(seg, "admin", "lost by the PACS", NOW)
    assert (delivery(worklist, seg).state, delivery(worklist, seg).attempts) == (DeliveryState.PENDING, 0)


def test_the_state_of_a_destination_is_kept(worklist: Worklist) -> None:
    from sqlalchemy import text

    _, (seg, sr) = finished(worklist)
    sending(worklist, seg)
    worklist.retry_delivery(seg, "d1", "connection refused", NOW, SECOND)

    def known() -> tuple[str, bool]:
        with worklist._engine.connect() as connection:
            row = connection.execute(text("SELECT last_error, last_sent_at FROM destinations")).one()
        return row.last_error, row.last_sent_at is not None

    assert known() == ("connection refused", False)
    worklist.claim_deliveries("pacs", None, study_of(worklist), "d1", NOW + MINUTE, MINUTE)
    assert worklist.claim_delivery(seg, "d1", NOW + MINUTE, MINUTE) is not None
    assert worklist.delivery_sent(seg, "d1", NOW + MINUTE)
    assert known() == ("", True)
    assert sr


def test_nothing_goes_to_a_destination_that_takes_nothing(worklist: Worklist) -> None:
    from tests.db.examples import claim, record

    job_id = record(worklist)
    claim(worklist, job_id)
    assert worklist.finish_job(job_id, "w1", outcome(destinations={"pacs": ("gsps",)}), NOW) == ()
