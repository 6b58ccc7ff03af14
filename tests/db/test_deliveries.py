"""Deliveries: storing order, claims, and how each one ends."""

from __future__ import annotations

import pytest

from db import deliveries, holds, jobs
from db.database import Database
from db.destinations import DestinationLeases
from db.errors import StudyOnHoldError, TransitionError
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import Delivery
from db.shown_records import DeliveryDetail
from db.states import DeliveryState
from tests.db.examples import HOUR, MINUTE, NOW, SECOND, finished, outcome, received, result, study_of


def delivery(database: Database, delivery_id: int) -> DeliveryDetail:
    (found,) = (
        one for one in database.read(study_details.study_detail, study_of(database)).deliveries if one.id == delivery_id
    )
    return found


def sending(database: Database, delivery_id: int, worker: str = "d1") -> Delivery:
    claimed = database.write(deliveries.claim, delivery_id, worker, NOW, MINUTE)
    assert claimed is not None
    return claimed


def test_a_claim_gives_what_sending_needs(database: Database) -> None:
    job_id, (seg, _) = finished(database)
    claimed = sending(database, seg)
    record = result("seg", 1010)
    assert (claimed.kind, claimed.sop_instance_uid, claimed.path) == ("seg", record.sop_instance_uid, record.path)
    assert (claimed.patient_id, claimed.study_instance_uid) == ("P1", received().study_instance_uid)
    assert claimed.made_at == NOW
    assert (claimed.state, claimed.attempts, claimed.job_id) == (DeliveryState.SENDING, 1, job_id)
    assert database.write(deliveries.claim, seg, "d2", NOW, MINUTE) is None
    assert database.write(deliveries.claim, seg, "d2", NOW + MINUTE, MINUTE) is not None
    assert database.write(deliveries.sent, seg, "d1", NOW + MINUTE) is False


def test_a_group_is_claimed_in_storing_order(database: Database) -> None:
    job_id, (seg, sr) = finished(database)
    group = database.write(deliveries.claim_group, "pacs", job_id, study_of(database), "d1", NOW, MINUTE)
    assert [one.id for one in group] == [seg, sr]
    assert database.write(deliveries.claim_group, "pacs", job_id, study_of(database), "d1", NOW, MINUTE) == ()
    assert database.write(deliveries.claim_group, "elsewhere", job_id, study_of(database), "d1", NOW, MINUTE) == ()


def test_the_reports_of_a_study_are_those_of_its_images(database: Database) -> None:
    finished(database)
    record = result("sr", 1011)
    assert database.read(deliveries.study_reports, study_of(database)) == ((record.path, record.sop_instance_uid),)


def test_a_report_does_not_overtake_its_segmentation(database: Database) -> None:
    job_id, (seg, sr) = finished(database)
    sending(database, seg)
    assert database.write(deliveries.claim, sr, "d2", NOW, MINUTE) is None
    assert database.write(deliveries.retry, seg, "d1", "no association", NOW, MINUTE)
    assert database.write(deliveries.claim, sr, "d2", NOW + SECOND, MINUTE) is None
    assert database.write(deliveries.claim_group, "pacs", job_id, study_of(database), "d2", NOW + SECOND, MINUTE) == ()
    group = database.write(deliveries.claim_group, "pacs", job_id, study_of(database), "d2", NOW + MINUTE, MINUTE)
    assert [(one.id, one.attempts) for one in group] == [(seg, 2), (sr, 1)]


def test_a_segmentation_that_was_given_up_does_not_stop_the_report(database: Database) -> None:
    _, (seg, sr) = finished(database)
    sending(database, seg)
    assert database.write(deliveries.fail, seg, "d1", "SOP class not supported", NOW)
    assert sending(database, sr).kind == "sr"
    (row,) = Worklist(database.engine).page()
    assert (row.deliveries_open, row.deliveries_failed) == (1, 1)


def test_sent(database: Database) -> None:
    _, (seg, _) = finished(database)
    sending(database, seg)
    assert database.write(deliveries.sent, seg, "d1", NOW + SECOND)
    assert database.write(deliveries.sent, seg, "d1", NOW + SECOND) is False
    one = delivery(database, seg)
    assert (one.state, one.sent_at, one.verified_at) == (DeliveryState.SENT, NOW + SECOND, None)


def test_a_lost_task_queue_is_enqueued_again(database: Database) -> None:
    _, (seg, sr) = finished(database)
    assert database.read(deliveries.to_enqueue, NOW + SECOND, MINUTE) == ()
    assert database.read(deliveries.to_enqueue, NOW + MINUTE, MINUTE) == (seg, sr)
    database.write(deliveries.mark_dispatched, [seg, sr], NOW + MINUTE)
    assert database.read(deliveries.to_enqueue, NOW + MINUTE, MINUTE) == ()
    sending(database, seg)
    assert database.write(deliveries.retry, seg, "d1", "busy", NOW + HOUR, MINUTE)
    database.write(deliveries.mark_dispatched, [sr], NOW + HOUR)
    assert database.read(deliveries.to_enqueue, NOW + HOUR, HOUR) == ()
    assert database.read(deliveries.to_enqueue, NOW + HOUR + MINUTE, HOUR) == (seg,)


def test_a_peer_that_hangs_at_one_object_gets_the_others(database: Database) -> None:
    _, (hangs, behind) = finished(database)
    _, later = finished(database, study=2)
    database.write(deliveries.claim_with_group, hangs, "d1", NOW, MINUTE, lambda _: None)
    for each in (hangs, behind):
        assert database.write(deliveries.retry, each, "d1", "no answer", NOW, SECOND)
    leases = DestinationLeases(database.engine)
    leases.record_no_answer("pacs", NOW + SECOND)
    assert database.read(deliveries.to_enqueue, NOW + MINUTE, SECOND)[0] == later[0]
    leases.record_answer("pacs")
    assert database.read(deliveries.to_enqueue, NOW + MINUTE, SECOND)[0] == hangs


def test_the_deliveries_of_dead_workers_are_pending_again(database: Database) -> None:
    _, (seg, sr) = finished(database)
    sending(database, seg, "host-1.4")
    assert database.write(deliveries.release, "host-1.", NOW) == (seg,)
    assert database.read(deliveries.to_enqueue, NOW, HOUR) == (seg,)
    assert database.write(deliveries.release, "host-1.", NOW) == ()
    assert delivery(database, sr).state is DeliveryState.PENDING


def test_a_delivery_on_hold_for_its_own_reason_is_not_released_with_the_study(database: Database) -> None:
    _, (seg, sr) = finished(database)
    study_id = study_of(database)
    sending(database, seg)
    assert database.write(deliveries.hold, seg, "d1", "the PACS says another patient", NOW)
    database.write(holds.hold, study_id, "merged", "admin", NOW)
    with pytest.raises(StudyOnHoldError):
        database.write(deliveries.requeue, seg, "admin", "corrected", NOW)
    database.write(holds.release, study_id, "admin", NOW)
    assert [delivery(database, one).state for one in (seg, sr)] == [DeliveryState.ON_HOLD, DeliveryState.PENDING]
    database.write(deliveries.requeue, seg, "admin", "corrected", NOW)
    assert delivery(database, seg).state is DeliveryState.PENDING
    assert database.read(deliveries.to_enqueue, NOW, HOUR) == (seg, sr)


def test_a_retry_in_a_study_on_hold_is_on_hold_with_it(database: Database) -> None:
    _, (seg, _) = finished(database)
    study_id = study_of(database)
    sending(database, seg)
    database.write(holds.hold, study_id, "merged", "admin", NOW)
    assert database.write(deliveries.retry, seg, "d1", "busy", NOW, SECOND)
    assert delivery(database, seg).state is DeliveryState.ON_HOLD
    database.write(holds.release, study_id, "admin", NOW)
    assert delivery(database, seg).state is DeliveryState.PENDING


def test_what_is_being_sent_is_not_sent_again_on_request(database: Database) -> None:
    _, (seg, _) = finished(database)
    sending(database, seg)
    with pytest.raises(TransitionError, match="sending"):
        database.write(deliveries.requeue, seg, "admin", "again", NOW)
    database.write(deliveries.sent, seg, "d1", NOW)
    database.write(deliveries.requeue, seg, "admin", "lost by the PACS", NOW)
    assert (delivery(database, seg).state, delivery(database, seg).attempts) == (DeliveryState.PENDING, 0)


def test_only_what_a_destination_refuses_counts_as_refused(database: Database) -> None:
    _, (seg, _) = finished(database)
    for number, refused in enumerate((False, True, False, True), 1):
        taken = database.write(deliveries.claim, seg, "d1", NOW + number * MINUTE, MINUTE)
        assert taken is not None
        outcome = ("busy", NOW + number * MINUTE, SECOND, False, refused)
        assert database.write(deliveries.retry, seg, "d1", *outcome)
    taken = database.write(deliveries.claim, seg, "d1", NOW + HOUR, MINUTE)
    assert taken is not None
    assert (taken.attempts, taken.refused) == (5, 2)
    database.write(deliveries.sent, seg, "d1", NOW + HOUR)
    database.write(deliveries.requeue, seg, "admin", "lost by the PACS", NOW + HOUR)
    taken = database.write(deliveries.claim, seg, "d1", NOW + HOUR, MINUTE)
    assert taken is not None
    assert (taken.attempts, taken.refused) == (1, 0)


def test_the_state_of_a_destination_is_kept(database: Database) -> None:
    from sqlalchemy import text

    _, (seg, sr) = finished(database)
    sending(database, seg)
    database.write(deliveries.retry, seg, "d1", "connection refused", NOW, SECOND)

    def known() -> tuple[str, bool]:
        with database.engine.connect() as connection:
            row = connection.execute(text("SELECT last_error, last_sent_at FROM destinations")).one()
        return row.last_error, row.last_sent_at is not None

    assert known() == ("connection refused", False)
    database.write(deliveries.claim_group, "pacs", None, study_of(database), "d1", NOW + MINUTE, MINUTE)
    assert database.write(deliveries.claim, seg, "d1", NOW + MINUTE, MINUTE) is not None
    assert database.write(deliveries.sent, seg, "d1", NOW + MINUTE)
    assert known() == ("", True)
    assert sr


def test_nothing_goes_to_a_destination_that_takes_nothing(database: Database) -> None:
    from tests.db.examples import claim, record

    job_id = record(database)
    claim(database, job_id)
    assert database.write(jobs.finish, job_id, "w1", outcome(destinations={"pacs": ("gsps",)}), NOW) == ()
