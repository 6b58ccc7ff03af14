"""A clock that was an hour ahead and is set back stops nothing."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine, insert, select

from db import backfill, deliveries, jobs, priors, studies
from db.clock_correction import LongestWaits, pull_back
from db.database import Database
from db.destinations import DestinationLeases
from db.login_attempts import FAILURES_PER_USER, LOGIN_WINDOW, Attempts, TooManyAttemptsError
from db.records import StudyFacts, TriageDecision
from db.states import Analysis, Priority
from db.study_status import report
from db.tables import BackfilledStudy, PriorSearch, Study
from db.user_tables import Role
from db.users import Accounts
from tests.commands import record_instance
from tests.db.examples import HOUR, MINUTE, NOW, PIPELINE, SECOND, claim, finished, outcome, received, study_of
from tests.rules import NO_RULES

WAITS = LongestWaits(
    attempt=5 * MINUTE,
    verification=2 * HOUR,
    job_lease=3 * MINUTE,
    delivery_lease=6 * MINUTE,
    session=12 * HOUR,
    due={
        Priority.CRITICAL: (2 * HOUR, 15 * MINUTE),
        Priority.URGENT: (7 * HOUR, HOUR),
        Priority.ROUTINE: (9 * HOUR, 8 * HOUR),
    },
)
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


def _decided(decision: TriageDecision, facts: StudyFacts) -> TriageDecision:
    del facts
    return decision


def test_a_critical_study_does_not_stand_behind_every_other(database: Database, engine: Engine) -> None:
    """The worklist is ordered by when studies are due."""
    for number, priority in ((1, Priority.ROUTINE), (2, Priority.CRITICAL), (3, Priority.ROUTINE)):
        at = NOW if number == 3 else NOW + 365 * 24 * HOUR
        record_instance(database, received(number, number), None, PIPELINE, at)
        decided = TriageDecision(priority, at + WAITS.due[priority][1], Analysis.ANALYSED, "")
        database.write(studies.triage, number, partial(_decided, decided), NO_RULES, at)
    database.write(report, 1, NOW, actor="ann", cause="read")
    pull_back(engine, NOW, WAITS)
    with engine.connect() as connection:
        due = {row.id: row.due_at for row in connection.execute(select(Study.id, Study.due_at))}
    assert due[2] == NOW + 15 * MINUTE < due[3]
    assert due[1] > NOW + 364 * 24 * HOUR, "a reported one stays where it was"


def test_a_study_that_comes_by_itself_is_not_taken_for_a_pulled_one(database: Database, engine: Engine) -> None:
    """The pull ended with a process that was killed while the clock was ahead; until its end nobody is notified."""
    record_instance(database, received(), None, PIPELINE, NOW)
    with engine.begin() as connection:
        ahead = {"requested_at": NOW + 24 * HOUR, "pull_ends_at": NOW + 25 * HOUR}
        connection.execute(insert(BackfilledStudy).values(study_instance_uid="1.9", **ahead))
        connection.execute(insert(PriorSearch).values(study_id=1, started_at=NOW + 24 * HOUR))
    assert pull_back(engine, NOW, WAITS) >= 2
    with engine.connect() as connection:
        assert set(connection.scalars(select(BackfilledStudy.pull_ends_at))) == {NOW}
    assert database.read(priors.lost, NOW + HOUR) == (1,)


def test_a_backfill_whose_process_is_gone_is_taken_over(database: Database, engine: Engine) -> None:
    days = ("20260101", "20260102")
    assert database.write(backfill.begin_run, "20260102", "pacs", days, NOW + 20 * HOUR) is not None
    pull_back(engine, NOW, WAITS)
    assert database.write(backfill.begin_run, "20260102", "pacs", days, NOW + backfill.LEASE + SECOND) is not None


def test_no_lock_out_and_no_session_lasts_longer_than_it_may(engine: Engine) -> None:
    users = Accounts(engine, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    user = users.add_user("ann", "correct horse battery", Role.ADMIN, NOW, actor="cli")
    token = users.open_session(user, "", NOW + 365 * 24 * HOUR, 12 * HOUR)
    attempts = Attempts(engine)
    for _ in range(FAILURES_PER_USER):
        attempts.fail(attempts.begin("ann", "", NOW + 24 * HOUR), "ann", "", NOW + 24 * HOUR)
    pull_back(engine, NOW, WAITS)
    assert users.session(token, NOW + 11 * HOUR) is not None
    assert users.session(token, NOW + 13 * HOUR) is None
    with pytest.raises(TooManyAttemptsError):
        attempts.begin("ann", "", NOW)
    assert attempts.begin("ann", "", NOW + LOGIN_WINDOW)


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
