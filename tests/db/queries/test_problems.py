"""What fails, grouped by cause and destination; and a delivery that is tried now instead of later."""

from __future__ import annotations

from datetime import timedelta

import pytest

from db import deliveries, jobs
from db.database import Database
from db.destinations import DestinationLeases
from db.queries import study_details
from db.queries.problems import Selection, cause_of, failing, problems
from db.states import DeliveryState
from tests.db.examples import HOUR, MINUTE, NOW, claim, finished, record

REFUSED = "the peer cannot be reached, or aborted the association"


def _fail(database: Database, delivery_id: int, error: str, *, retry: bool = False) -> None:
    assert database.write(deliveries.claim, delivery_id, "w1", NOW, MINUTE) is not None
    if retry:
        assert database.write(deliveries.retry, delivery_id, "w1", error, NOW, HOUR)
    else:
        assert database.write(deliveries.fail, delivery_id, "w1", error, NOW)


def _outage(database: Database) -> list[int]:
    """Four deliveries of two studies that cannot reach the PACS, of which one is tried again in an hour."""
    ids = [*finished(database, 1, 1)[1], *finished(database, 1, 2)[1]]
    _fail(database, ids[0], f"{REFUSED} after 3 s")
    for each in ids[2:3]:
        _fail(database, each, f"{REFUSED} after 4.5 s", retry=True)
    return ids


def test_one_outage_is_one_problem(database: Database) -> None:
    _outage(database)
    job = record(database, 1, 3)
    claim(database, job)
    database.write(jobs.fail, job, "w1", "out of memory", NOW)
    first, second = sorted(database.read(problems), key=lambda one: one.entity)
    assert (first.entity, first.destination, first.failed, first.retrying) == ("delivery", "pacs", 1, 1)
    assert first.cause == f"{REFUSED} after # s"
    assert first.error.startswith(REFUSED)
    assert (first.since, first.next_at, first.study_ids) == (NOW, NOW + HOUR, (2, 1))
    assert (second.entity, second.destination, second.count, second.study_ids) == ("job", "", 1, (3,))


def test_the_next_attempt_is_not_before_the_destination_may_be_called(database: Database) -> None:
    """What comes while it rests is due at once, and is not sent before."""
    _outage(database)
    DestinationLeases(database.engine).record_no_answer("pacs", NOW + 2 * HOUR)
    (problem,) = database.read(problems)
    assert problem.next_at == NOW + 2 * HOUR


def test_what_is_on_hold_has_not_failed(database: Database) -> None:
    delivery = finished(database)[1][0]
    database.write(deliveries.claim, delivery, "w1", NOW, MINUTE)
    database.write(deliveries.hold, delivery, "w1", "another patient", NOW)
    assert database.read(problems) == ()
    row = database.read(study_details.study_detail, 1).row
    assert (row.deliveries_failed, row.deliveries_on_hold) == (0, 1)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("no answer within 30 s", "no answer within # s"),
        ("status 0xA700", "status 0xA700"),
        ("instance 1.2.826.0.1 is gone", "instance # is gone"),
        ("host10 refused", "host10 refused"),
    ],
)
def test_numbers_make_no_cause_of_their_own(error: str, cause: str) -> None:
    assert cause_of(error) == cause


def test_a_selection_is_by_kind_destination_and_cause(database: Database) -> None:
    _outage(database)
    everything = database.read(failing, "delivery", Selection(), 0, 10)
    assert everything is not None
    assert len(everything[0]) == 2
    for selection in (
        Selection("delivery", "pacs", f"{REFUSED} after # s"),
        Selection(destination="pacs"),
        Selection(cause=f"{REFUSED} after # s"),
    ):
        assert database.read(failing, "delivery", selection, 0, 10) == everything
    for selection in (Selection("job"), Selection(destination="archive"), Selection(cause="other")):
        assert database.read(failing, "delivery", selection, 0, 10) == ({}, everything[1])
    assert database.read(failing, "delivery", Selection(), everything[1], 10) is None


def test_a_waiting_delivery_is_sent_now_though_its_destination_was_silent(database: Database) -> None:
    delivery = finished(database)[1][0]
    _fail(database, delivery, REFUSED, retry=True)
    breaker = DestinationLeases(database.engine)
    breaker.record_no_answer("pacs", NOW + HOUR)
    assert delivery not in database.read(deliveries.to_enqueue, NOW, timedelta(0))
    database.write(deliveries.requeue, delivery, "ann", "requested by a person", NOW)
    assert delivery in database.read(deliveries.to_enqueue, NOW, timedelta(0))
    assert breaker.acquire(delivery, {"pacs": 1}, "w2", NOW, MINUTE) is not None
    detail = database.read(study_details.study_detail, 1)
    [one] = [each for each in detail.deliveries if each.id == delivery]
    assert (one.state, one.error, one.attempts) == (DeliveryState.PENDING, "", 0)
    last = detail.events[-1]
    assert (last.entity, last.to_state, last.actor) == ("delivery", "pending", "ann")
