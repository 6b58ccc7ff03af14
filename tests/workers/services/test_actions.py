"""What a person can do, on a real database: the change, its line of the audit trail, and what follows from both."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from config.settings import Settings
from db import jobs
from db.audit import AuditFilter, AuditTrail
from db.database import Database
from db.engine import connect
from db.errors import DatabaseError, RecordNotFoundError
from db.model_states import ModelState
from db.queries import study_details
from db.queries.problems import Selection, problems
from db.records import Outcome
from db.states import JobState, Priority
from tests.commands import record_instance, study_facts
from tests.db.examples import PIPELINE, received
from tests.fakes import RecordingTaskQueue
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.workers.builders import NOON, finding
from workers.services.actions import Actions, Retried

LEASE = timedelta(minutes=1)


class Desk:
    """One STAT study with one job, and a person who acts on it."""

    def __init__(self, folder: Path) -> None:
        self.engine = connect(f"sqlite:///{folder}/test.sqlite")
        migrate(self.engine)
        self.database = Database(self.engine, NO_RULES)
        self.task_queue = RecordingTaskQueue()
        self.actions = Actions(Settings(), self.database, self.task_queue, "ann", NOON, "10.0.0.7")
        (self.job,) = record_instance(self.database, received(stat=True), None, PIPELINE, NOON).job_ids

    def fail(self) -> None:
        self.database.write(jobs.claim, self.job, "w", NOON, LEASE)
        self.database.write(jobs.fail, self.job, "w", "broken", NOON)

    def finish(self) -> None:
        self.database.write(jobs.claim, self.job, "w", NOON, LEASE)
        self.database.write(jobs.finish, self.job, "w", Outcome(findings=(finding(),)), NOON)

    def audit(self) -> list[tuple[str, str, str]]:
        entries = AuditTrail(self.engine).entries(AuditFilter(study_id=1))
        assert {(entry.actor, entry.address, entry.at) for entry in entries} <= {("ann", "10.0.0.7", NOON)}
        return [(entry.action, entry.subject, entry.detail) for entry in reversed(entries)]

    def priority(self) -> Priority:
        return self.database.read(study_details.study_detail, 1).row.priority


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.engine.dispose()


def test_a_failed_job_of_a_stat_study_is_enqueued_as_stat(desk: Desk) -> None:
    desk.fail()
    assert desk.actions.retry_job(1, desk.job)
    assert desk.task_queue.jobs == [(desk.job, True)]
    assert desk.database.read(study_details.study_detail, 1).jobs[0].state is JobState.QUEUED
    assert desk.audit() == [("retry job", f"job {desk.job}", "")]


def test_everything_of_one_cause_is_retried_and_what_is_on_hold_stays(desk: Desk) -> None:
    others = [
        record_instance(desk.database, received(1, study), None, PIPELINE, NOON).job_ids[0] for study in range(2, 254)
    ]
    for job in (desk.job, *others):
        desk.database.write(jobs.claim, job, "w", NOON, LEASE)
        desk.database.write(jobs.fail, job, "w", f"no memory for {job} pixels", NOON)
    desk.actions.hold(253, "wrong patient")
    assert desk.actions.retry_all(Selection("delivery")) == Retried(0, 0, 0)
    assert desk.actions.retry_all(Selection(cause="something else")) == Retried(0, 0, 0)
    assert desk.actions.retry_all(Selection("job", cause="no memory for # pixels")) == Retried(252, 0, 1)
    [left] = desk.database.read(problems)
    assert (left.count, left.study_ids) == (1, (253,))
    lines = [entry for entry in AuditTrail(desk.engine).entries() if entry.action == "retry all"]
    assert [entry.detail for entry in reversed(lines)] == [
        f"{count} jobs: no memory for # pixels" for count in (100, 100, 52)
    ]


def test_a_broker_that_does_not_answer_is_told_of_and_the_job_is_queued_all_the_same(desk: Desk) -> None:
    desk.fail()
    desk.task_queue.works = False
    assert not desk.actions.retry_job(1, desk.job)
    assert desk.database.read(study_details.study_detail, 1).jobs[0].state is JobState.QUEUED


def test_what_cannot_be_done_leaves_no_line_in_the_audit_trail(desk: Desk) -> None:
    with pytest.raises(DatabaseError):
        desk.actions.retry_job(1, desk.job)
    with pytest.raises(RecordNotFoundError):
        desk.actions.resend(1, 99)
    with pytest.raises(RecordNotFoundError):
        desk.actions.hold(99, "why")
    assert desk.audit() == []
    assert desk.task_queue.dispatched == []


def test_a_change_whose_line_cannot_be_written_does_not_happen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("workers.services.actions.write_entry", full)
    with pytest.raises(OSError, match="no space"):
        desk.actions.report(1)
    assert desk.database.read(study_details.study_detail, 1).row.reported_at is None


def test_hold_and_release(desk: Desk) -> None:
    desk.actions.hold(1, "  ")
    assert desk.actions.release(1) == 1
    assert desk.task_queue.jobs == [(desk.job, True)]
    assert desk.audit() == [("hold", "study", "put on hold by hand"), ("release", "study", "")]


def test_the_same_again_is_not_written_twice(desk: Desk) -> None:
    assert [desk.actions.report(1), desk.actions.report(1)] == [True, False]
    assert [desk.actions.undo_report(1), desk.actions.undo_report(1)] == [True, False]
    assert desk.audit() == [("reported", "study", ""), ("unreported", "study", "")]


def test_triage_looks_at_a_study_that_comes_back(desk: Desk) -> None:
    desk.finish()
    desk.actions.report(1)
    assert desk.actions.undo_report(1)
    assert desk.priority() is Priority.CRITICAL


def test_a_priority_is_a_floor(desk: Desk) -> None:
    desk.finish()
    assert desk.actions.set_priority(1, Priority.ROUTINE) is Priority.CRITICAL
    assert study_facts(desk.database, 1).hospital_priority is Priority.ROUTINE
    desk.actions.set_priority(1, None)
    assert desk.audit() == [("set priority", "study", "routine"), ("set priority", "study", "by triage")]


def test_a_model_that_analyses_nothing_here_cannot_be_switched(desk: Desk) -> None:
    with pytest.raises(RecordNotFoundError):
        desk.actions.switch_model("unknown", ModelState.OFF, "why")
