"""Claims are renewed while their worker works, and no others; the scheduler's lease goes by the database's clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from db import deliveries, jobs, scheduler_lease
from db.database import Database
from db.destinations import DestinationLeases
from db.leases import LEASE, renew
from db.tables import Delivery, DestinationLease, Job
from tests.db.examples import MINUTE, NOW, finished, outcome, record

SECOND = timedelta(seconds=1)


def _until(database: Database, table: Any, row_id: int) -> Any:
    return database.read(lambda connection: connection.scalar(select(table.lease_until).where(table.id == row_id)))


def test_what_is_claimed_since_is_renewed(database: Database) -> None:
    _, (delivery, *_) = finished(database)
    job = record(database, number=2, study=2)
    database.write(jobs.claim, job, "w", NOW, LEASE)
    database.write(deliveries.claim, delivery, "w", NOW, LEASE)
    DestinationLeases(database.engine).acquire(delivery, {}, "w", NOW, LEASE)

    database.write(renew, "w", NOW, NOW + 10 * SECOND)
    assert _until(database, Job, job) == _until(database, Delivery, delivery) == NOW + 10 * SECOND + LEASE
    [lease] = database.read(lambda connection: connection.scalars(select(DestinationLease.lease_until)).all())
    assert lease == NOW + 10 * SECOND + LEASE


def test_what_was_claimed_before_or_by_others_is_not(database: Database) -> None:
    left, others = record(database), record(database, number=2, study=2)
    database.write(jobs.claim, left, "w", NOW - SECOND, LEASE)
    database.write(jobs.claim, others, "x", NOW, LEASE)

    database.write(renew, "w", NOW, NOW + 10 * SECOND)
    assert _until(database, Job, left) == NOW - SECOND + LEASE
    assert _until(database, Job, others) == NOW + LEASE


def test_a_worker_that_comes_back_records_nothing_where_another_one_has_its_job(database: Database) -> None:
    """It was cut off, its lease ran out, another one claimed the job; what it computed meanwhile counts for nothing."""
    job = record(database)
    database.write(jobs.claim, job, "cut off", NOW, LEASE)
    assert database.write(jobs.claim, job, "other", NOW + LEASE - SECOND, LEASE) is None
    assert database.write(jobs.claim, job, "other", NOW + LEASE, LEASE) is not None

    later = NOW + LEASE + SECOND
    database.write(renew, "cut off", NOW, later)
    assert database.write(jobs.finish, job, "cut off", outcome(first=100), later) is None
    assert database.write(jobs.retry, job, "cut off", "error", later, MINUTE) is False
    assert database.write(jobs.fail, job, "cut off", "error", later) is False
    assert database.write(jobs.finish, job, "other", outcome(first=200), later) is not None
    assert database.write(jobs.finish, job, "cut off", outcome(first=100), later) is None


def test_one_scheduler_holds_the_lease_by_the_clock_of_the_database(database: Database) -> None:
    ahead = NOW + timedelta(hours=1)  # PostgreSQL asks its own
    assert database.write(scheduler_lease.hold, "a", NOW, MINUTE)
    assert not database.write(scheduler_lease.hold, "b", NOW + SECOND, MINUTE)
    if database.engine.dialect.name == "postgresql":
        assert not database.write(scheduler_lease.hold, "b", ahead, MINUTE)
    assert database.write(scheduler_lease.hold, "a", NOW + SECOND, MINUTE)
    assert database.write(scheduler_lease.give_up, "a", NOW + SECOND)
    assert database.write(scheduler_lease.hold, "b", NOW + SECOND, MINUTE)
    assert database.write(scheduler_lease.release, "b")
    assert not database.write(scheduler_lease.release, "b")
