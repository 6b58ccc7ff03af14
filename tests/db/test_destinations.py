"""DestinationLeases with destinations: each has its share, and one that is silent is left alone by everybody."""

from __future__ import annotations

from sqlalchemy import Engine

from db import deliveries, jobs
from db.database import Database
from db.destinations import DestinationLeases
from db.records import TriageDecision
from db.states import Analysis, Priority
from tests.commands import record_instance, record_triage
from tests.db.examples import HOUR, MINUTE, NOW, PIPELINE, SECOND, claim, outcome, received, study_of

BOTH = {"pacs": ("seg", "sr"), "viewer": ("seg", "sr")}
TWO = {"pacs": 2, "viewer": 2}


def sent_to_both(database: Database, number: int = 1, *, stat: bool = False) -> dict[str, int]:
    """A finished job with deliveries to two destinations; the SEG's delivery of each."""
    (job_id,) = record_instance(database, received(1, number, stat=stat), None, PIPELINE, NOW).job_ids
    claim(database, job_id)
    ids = database.write(jobs.finish, job_id, "w1", outcome(1000 * number, destinations=BOTH), NOW)
    assert ids is not None
    taken = [database.write(deliveries.claim, each, "looks", NOW, SECOND) for each in ids]
    first = {each.destination: each.id for each in reversed(taken) if each is not None and each.kind == "seg"}
    database.write(deliveries.release, "looks", NOW)
    return first


def test_a_destination_has_its_share_of_the_workers_and_no_more(database: Database, engine: Engine) -> None:
    of, leases = sent_to_both(database), DestinationLeases(engine)
    taken = [leases.acquire(of["pacs"], TWO, f"w{number}", NOW, MINUTE) is not None for number in range(3)]
    assert taken == [True, True, False]
    assert leases.acquire(of["viewer"], TWO, "w4", NOW, MINUTE) is not None, "the other one has its own"
    leases.release("w0")
    assert leases.acquire(of["pacs"], TWO, "w5", NOW, MINUTE) is not None


def test_results_of_an_urgent_study_overtake_all_others(database: Database, engine: Engine) -> None:
    one, urgent, other, stat = (sent_to_both(database, number, stat=number == 4)["pacs"] for number in (1, 2, 3, 4))
    decision = TriageDecision(Priority.CRITICAL, NOW, Analysis.ANALYSED, "pneumothorax 90 %")
    record_triage(database, study_of(database, 2), decision, NOW)
    heads = [each for each in DestinationLeases(engine).waiting("pacs", NOW) if each in (one, urgent, other, stat)]
    assert heads == [stat, urgent, one, other]
    assert stat in database.read(deliveries.to_enqueue, NOW + HOUR, SECOND, 2)


def test_what_dead_workers_had_is_free_again(database: Database, engine: Engine) -> None:
    of, leases = sent_to_both(database), DestinationLeases(engine)
    for number in (1, 2):
        assert leases.acquire(of["pacs"], TWO, f"host/{number}#1", NOW, MINUTE) is not None
    assert leases.acquire(of["pacs"], TWO, "host/3#1", NOW + MINUTE, MINUTE) is not None, "their leases are over"
    leases.release_workers("host/3#")
    leases.release_workers("host/2#")
    assert leases.acquire(of["pacs"], TWO, "host/2#2", NOW, MINUTE) is not None


def test_a_silent_destination_is_left_alone_by_everybody(database: Database, engine: Engine) -> None:
    of, leases = sent_to_both(database), DestinationLeases(engine)
    leases.record_no_answer("pacs", NOW + MINUTE)
    assert DestinationLeases(engine).acquire(of["pacs"], TWO, "w1", NOW + 59 * SECOND, MINUTE) is None
    assert not {of["pacs"]} & set(database.read(deliveries.to_enqueue, NOW + 59 * SECOND, SECOND))
    assert of["viewer"] in database.read(deliveries.to_enqueue, NOW + 59 * SECOND, SECOND)

    probe = leases.acquire(of["pacs"], TWO, "w1", NOW + MINUTE, MINUTE)
    assert probe is not None
    assert probe.failures == 1
    assert leases.acquire(of["pacs"], TWO, "w2", NOW + MINUTE, MINUTE) is None, "one at a time until it answers"
    leases.record_answer("pacs")
    again = leases.acquire(of["pacs"], TWO, "w2", NOW + MINUTE, MINUTE)
    assert again is not None
    assert again.failures == 0


def test_the_many_that_wait_for_one_do_not_hide_what_waits_for_another(database: Database, engine: Engine) -> None:
    of = [sent_to_both(database, number) for number in range(1, 6)]
    dispatched = database.read(deliveries.to_enqueue, NOW + HOUR, MINUTE, limit=4)
    assert len(dispatched) == 4
    waiting = DestinationLeases(engine).waiting("viewer", NOW + HOUR)
    assert len(waiting) == 10, "SEG and SR of five"
    assert len(set(dispatched) & set(waiting)) == 2
    assert {each["viewer"] for each in of} <= set(waiting)


def test_claims_that_end_with_their_process_are_counted(database: Database, engine: Engine) -> None:
    del engine
    delivery_id, now = sent_to_both(database)["pacs"], NOW
    for lost in (1, 2):  # the helper's own claim is the first
        now += HOUR
        taken = database.write(deliveries.claim, delivery_id, "w1", now, MINUTE)
        assert taken is not None
        assert taken.lost == lost
    assert database.write(deliveries.retry, delivery_id, "w1", "busy", now, SECOND)
    taken = database.write(deliveries.claim, delivery_id, "w1", now + SECOND, MINUTE)
    assert taken is not None
    assert taken.lost == 0, "it has come to an end with a word"
    assert taken.series_instance_uid == "2.25.1"
