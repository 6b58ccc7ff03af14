"""Rows as a busy node has them when it is stopped for an upgrade, and what must become of them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text

from db import deliveries, jobs, studies
from db.database import Database
from db.states import JobState
from tests.db.examples import HOUR, MINUTE, NOW, claim, finished, outcome, record

LATER = NOW + 2 * HOUR
_LEASE = MINUTE
_STUDIES = 6


def make(database: Database) -> None:
    """A job in each state in which it still has something to do, deliveries likewise, and a study that is complete."""
    record(database, study=1)
    claim(database, record(database, study=2))
    retrying = record(database, study=3)
    claim(database, retrying)
    database.write(jobs.retry, retrying, "w1", "busy", NOW, MINUTE)
    finished(database, study=4)
    _, (segmentation, _report) = finished(database, study=5)
    assert database.write(deliveries.claim, segmentation, "w1", NOW, _LEASE) is not None
    for delivery in finished(database, study=6)[1]:
        assert database.write(deliveries.claim, delivery, "w1", NOW, _LEASE) is not None
        database.write(deliveries.sent, delivery, "w1", NOW)


def finish(database: Database) -> None:
    """Do all that is left, as workers and scheduler do: each job and each delivery can be claimed, once."""
    waiting = [job_id for job_id, _ in database.read(jobs.to_enqueue, LATER, timedelta(0))]
    assert len(waiting) == 3, "queued, running with a lease that has run out, retrying"
    for number, job_id in enumerate(waiting, 50):
        claim(database, job_id, "w2", now=LATER)
        assert database.write(jobs.claim, job_id, "w3", LATER, _LEASE) is None
        assert database.write(jobs.finish, job_id, "w2", outcome(100_000 + 10 * number), LATER) is not None
    sent = 0
    while unsent := database.read(deliveries.to_enqueue, LATER, timedelta(0)):
        for delivery in unsent:
            assert database.write(deliveries.claim, delivery, "w2", LATER, _LEASE) is not None
            database.write(deliveries.sent, delivery, "w2", LATER)
        sent += len(unsent)
    assert sent == 2 * (_STUDIES - 1), "both objects of each study but the one that was through before"
    stable = database.read(studies.stable, LATER + HOUR, MINUTE)
    assert len(stable) == _STUDIES
    with database.engine.connect() as connection:
        states = set(connection.execute(text("select distinct state from jobs")).scalars())
    assert states == {JobState.DONE}
