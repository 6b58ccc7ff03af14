"""A clock that was an hour ahead and is set back stops nothing."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from db import deliveries, jobs, studies
from db.clock_correction import LongestWaits, pull_back
from db.database import Database
from db.destinations import DestinationLeases
from tests.commands import record_instance
from tests.db.examples import HOUR, MINUTE, NOW, PIPELINE, SECOND, claim, finished, outcome, received, study_of

WAITS = LongestWaits(attempt=5 * MINUTE, verification=2 * HOUR, job_lease=3 * MINUTE, delivery_lease=6 * MINUTE)
AHEAD = NOW + HOUR
QUIET = timedelta(seconds=30)


def test_jobs_go_on(database: Database, engine: Engine) -> None:
    """Queued, retrying and left behind, all by a clock that was an hour ahead, with a broker that was flushed since."""
    ids = [
        record_instance(database, received(number, number), None, PIPELINE, AHEAD).job_ids[0] for number in (1, 2, 3)
    ]
    claim(database, ids[1], now=AHEAD)
    database.write(jobs.retry, ids[1], "w1", "busy", AHEAD, MINUTE)
    claim(database, ids[2], now=AHEAD)
    assert database.read(jobs.to_enqueue, NOW + QUIET, QUIET) == ()

    assert pull_back(engine, NOW, WAITS) > 0
    later = NOW + WAITS.job_lease
    assert {job_id for job_id, _ in database.read(jobs.to_enqueue, later, QUIET)} == set(ids)
    assert all(database.write(jobs.claim, job_id, "w2", later, MINUTE) for job_id in ids)


def test_deliveries_go_on(database: Database, engine: Engine) -> None:
    _, (seg, _sr) = finished(database)
    leases = DestinationLeases(engine)
    assert leases.acquire(seg, {"pacs": 1}, "w1", AHEAD, MINUTE) is not None
    assert database.write(deliveries.claim, seg, "w1", AHEAD, MINUTE) is not None
    database.write(deliveries.retry, seg, "w1", "busy", AHEAD, MINUTE)
    leases.record_no_answer("pacs", AHEAD + MINUTE)

    pull_back(engine, NOW, WAITS)
    later = NOW + WAITS.delivery_lease
    assert seg in database.read(deliveries.to_enqueue, later, QUIET)
    assert leases.acquire(seg, {"pacs": 1}, "w2", later, MINUTE) is not None
    assert database.write(deliveries.claim, seg, "w2", later, MINUTE) is not None


def test_studies_complete(database: Database, engine: Engine) -> None:
    (job_id,) = record_instance(database, received(), None, PIPELINE, AHEAD).job_ids
    claim(database, job_id, now=AHEAD)
    database.write(jobs.finish, job_id, "w1", outcome(), AHEAD)
    pull_back(engine, NOW, WAITS)
    assert database.read(studies.stable, NOW + QUIET, QUIET) == (study_of(database),)


def test_what_waits_as_it_should_is_left_alone(database: Database, engine: Engine) -> None:
    (job_id,) = record_instance(database, received(), None, PIPELINE, NOW).job_ids
    claim(database, job_id)
    database.write(jobs.retry, job_id, "w1", "busy", NOW, 4 * MINUTE)
    finished(database, study=2)
    assert pull_back(engine, NOW + SECOND, WAITS) == 0


def test_what_another_process_writes_at_the_same_moment_is_no_sign_of_a_wrong_clock(
    database: Database, engine: Engine
) -> None:
    """A listener writes while the scheduler waits for the database with a time that it took before."""
    record_instance(database, received(), None, PIPELINE, NOW + 5 * SECOND)
    assert pull_back(engine, NOW, WAITS) == 0
