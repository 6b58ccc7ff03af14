"""A worker that works for long keeps its claim; one that is cut off loses it, and what it brings back is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from db import jobs
from db.database import Database
from db.engine import connect
from db.leases import LEASE
from tests.db.examples import NOW, outcome, record
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.workers.builders import FakeClock
from workers.heartbeat import BEAT_SECONDS, Heartbeat


class Worker:
    """A worker at work on a job, with a clock that a test moves, and a database that it may be cut off from."""

    def __init__(self, folder: Path) -> None:
        engine = connect(f"sqlite:///{folder}/test.sqlite")
        migrate(engine)
        self.database = Database(engine, NO_RULES)
        self.clock = FakeClock(NOW)
        self.heartbeat = Heartbeat(self.database, "w", self.clock)
        self.job = record(self.database)

    def pass_by(self, seconds: float) -> None:
        """Let time pass, with the heartbeat beside it."""
        while seconds > 0:
            self.clock.pass_by(seconds=BEAT_SECONDS)
            self.heartbeat.beat()
            seconds -= BEAT_SECONDS

    def another_claims(self) -> bool:
        return self.database.write(jobs.claim, self.job, "other", self.clock(), LEASE) is not None


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    worker.database.engine.dispose()


def test_what_is_worked_at_for_long_stays_with_its_worker(worker: Worker) -> None:
    with worker.heartbeat.working():
        worker.database.write(jobs.claim, worker.job, "w", worker.clock(), LEASE)
        worker.pass_by(600)
        assert not worker.another_claims()
        assert worker.database.write(jobs.finish, worker.job, "w", outcome(), worker.clock()) is not None


def test_a_worker_that_is_cut_off_and_comes_back_records_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_answer(*_: object) -> None:
        raise OperationalError("UPDATE", None, Exception("the database has not answered"))

    with worker.heartbeat.working():
        worker.database.write(jobs.claim, worker.job, "w", worker.clock(), LEASE)
        with monkeypatch.context() as cut_off:
            cut_off.setattr(worker.heartbeat, "database", type("Cut", (), {"write": no_answer}))
            worker.pass_by(LEASE.total_seconds())
        assert "are not renewed" in caplog.text
        assert worker.another_claims()
        worker.heartbeat.beat()
        assert worker.database.write(jobs.finish, worker.job, "w", outcome(), worker.clock()) is None
        assert worker.database.write(jobs.finish, worker.job, "other", outcome(), worker.clock()) is not None


def test_what_was_left_lying_is_not_renewed_by_later_work(worker: Worker) -> None:
    with worker.heartbeat.working():
        worker.database.write(jobs.claim, worker.job, "w", worker.clock(), LEASE)
    worker.clock.pass_by(seconds=1)
    with worker.heartbeat.working():
        worker.pass_by(LEASE.total_seconds())
        assert worker.another_claims()


def test_what_could_not_be_recorded_is_not_renewed_by_the_work_around_it(worker: Worker) -> None:
    with worker.heartbeat.working():
        worker.database.write(jobs.claim, worker.job, "w", worker.clock(), LEASE)
        worker.heartbeat.let_lie.add(worker.job)
        worker.pass_by(LEASE.total_seconds())
        assert worker.another_claims()
    with worker.heartbeat.working():
        assert worker.heartbeat.let_lie == set()
