"""The scheduler with fakes: it enqueues what is quiet, tells each late job once, completes what is complete."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from sqlalchemy.exc import OperationalError

from config.archives import Priors
from config.destinations import Destination
from config.settings import Results, Settings, Store
from db import deliveries, jobs, priors, studies
from db.node_rules import Rules
from db.queries import retention
from db.records import IS_PRIOR, IS_REPORTED, ExpiredStudy, ResultRecord, Route, StudyFacts, TriageDecision
from tests.fakes import RecordingTaskQueue
from tests.rules import NO_RULES
from tests.scripted import Scripted
from tests.stores import store_away
from tests.workers.builders import NOON, FakeClock, facts
from workers.completion import comes_too_late, may_complete
from workers.job_outcome import EncodedResult
from workers.repeat import repeat_until
from workers.retention import Retention
from workers.scheduler import Scheduler
from workers.store_files import INSTANCES
from workers.triage import decide


@dataclass
class FakeDatabase(Scripted):
    answers: ClassVar[Mapping[Callable[..., Any], str]] = {
        jobs.to_enqueue: "jobs_to_enqueue",
        jobs.mark_dispatched: "mark_dispatched",
        jobs.in_other_queues: "in_other_queues",
        jobs.late: "late_jobs",
        jobs.as_many_wait: "as_many_wait",
        deliveries.to_enqueue: "deliveries_to_enqueue",
        deliveries.mark_dispatched: "mark_deliveries_dispatched",
        studies.stable: "stable_studies",
        studies.to_complete: "study_to_complete",
        priors.may_still_come: "prior_may_come",
        studies.triage: "triage",
        studies.complete: "complete_study",
        retention.expired: "expired_studies",
        retention.removed: "files_removed",
    }
    jobs: tuple[tuple[int, bool], ...] = ()
    deliveries: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    many_wait: bool = False
    quiet: tuple[int, ...] = ()
    study: StudyFacts = field(default_factory=facts)
    routes: tuple[Route | None, ...] = ()
    prior_comes: bool = False
    arrived: bool = False
    notes: list[tuple[Any, ...]] = field(default_factory=list)
    compared_with: list[str] = field(default_factory=list)
    rules: Rules = NO_RULES

    def jobs_to_enqueue(
        self, now: datetime, quiet: timedelta, limit: int = 500, queue: str = "jobs"
    ) -> tuple[tuple[int, bool], ...]:
        return self.jobs

    def in_other_queues(self, queues: Sequence[str], limit: int) -> tuple[tuple[int, Route | None], ...]:
        return ()

    def mark_dispatched(self, job_ids: Sequence[int], now: datetime) -> None:
        self.notes.append(("dispatched", *job_ids))

    def deliveries_to_enqueue(self, now: datetime, quiet: timedelta, limit: int = 500) -> tuple[int, ...]:
        return self.deliveries

    def mark_deliveries_dispatched(self, delivery_ids: Sequence[int], now: datetime) -> None:
        self.notes.append(("deliveries enqueued", *delivery_ids))

    def as_many_wait(self, number: int) -> bool:
        return self.many_wait

    def late_jobs(self, now: datetime, older_than: timedelta) -> tuple[int, ...]:
        return self.late

    def stable_studies(self, now: datetime, quiet: timedelta, limit: int = 100) -> tuple[int, ...]:
        return self.quiet

    def study_to_complete(self, study_id: int, _rules: object) -> tuple[StudyFacts, tuple[Route | None, ...]]:
        return self.study, self.routes

    def prior_may_come(self, study_id: int, now: datetime, wait: timedelta) -> bool:
        return self.prior_comes

    def triage(
        self, study_id: int, decide: Callable[[StudyFacts], TriageDecision], _rules: object, now: datetime
    ) -> TriageDecision:
        decision = decide(self.study)
        self.notes.append(("triage", decision.priority.value))
        return decision

    def expired_studies(self, before: datetime, after_id: int = 0, limit: int = 100) -> tuple[ExpiredStudy, ...]:
        raise AssertionError("with 0 days nothing is looked for")

    def files_removed(self, study: ExpiredStudy, now: datetime) -> None:
        raise AssertionError("with 0 days nothing is removed")

    def complete_study(
        self,
        study_id: int,
        results: Sequence[ResultRecord],
        destinations: Mapping[str, Sequence[str]],
        now: datetime,
        activity: int | None = None,
        recorded: str = "",
        compared_with: str = "",
    ) -> tuple[int, ...] | None:
        if self.arrived:
            return None
        self.notes.append(("complete", [result.kind for result in results], dict(destinations), activity, recorded))
        self.compared_with.append(compared_with)
        return (50,)


SUMMARY = EncodedResult(ResultRecord("summary", "1.2", "1.2.3", "1.2.4", "d", "results/dd/d.dcm", 4), b"DICM")


def scheduler(
    database: FakeDatabase, task_queue: RecordingTaskQueue, folder: Path, *summaries: EncodedResult, hours: float = 0
) -> Scheduler:
    settings = Settings(
        store=Store(folder=folder),
        results=Results(late_after_hours=hours),
        destinations=(Destination(name="pacs", ae_title="PACS", host="h", port=104),),
    )
    (folder / INSTANCES).mkdir(parents=True, exist_ok=True)
    retention = Retention(folder, 0, database)
    return Scheduler(
        settings, database, task_queue, FakeClock(), lambda study, decision: summaries, retention, lambda now: None
    )


def test_it_enqueues_for_what_nobody_has_heard_of(tmp_path: Path) -> None:
    database, task_queue = FakeDatabase(jobs=((1, True), (2, False)), deliveries=(9,)), RecordingTaskQueue()
    scheduler(database, task_queue, tmp_path).once()
    assert task_queue.dispatched == [(1, True), (2, False), 9]
    assert database.notes == [("dispatched", 1, 2), ("deliveries enqueued", 9)]


def test_what_the_broker_did_not_hear_is_not_noted_as_enqueued(tmp_path: Path) -> None:
    database, task_queue = FakeDatabase(jobs=((1, True),), deliveries=(9,)), RecordingTaskQueue(works=False)
    scheduler(database, task_queue, tmp_path).once()
    assert database.notes == []


def test_each_late_job_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = FakeDatabase(late=(3, 4))
    node_scheduler = scheduler(database, RecordingTaskQueue(), tmp_path)
    with caplog.at_level(logging.WARNING):
        node_scheduler.once()
        node_scheduler.once()
        database.late = (4,)
        node_scheduler.once()
        database.late = (3, 4)
        node_scheduler.once()
    found = [record.args[0] for record in caplog.records if isinstance(record.args, tuple)]
    assert found == [3, 4, 3], "job 3 was late, then not, then late again"


def test_a_stable_study_is_triaged_summarised_and_complete(tmp_path: Path) -> None:
    database, task_queue = FakeDatabase(quiet=(1,), study=facts(activity=7)), RecordingTaskQueue()
    scheduler(database, task_queue, tmp_path, replace(SUMMARY, compared_with="1.9")).once()
    assert database.compared_with == ["1.9"]
    assert database.notes == [
        ("triage", "routine"),
        ("complete", ["summary"], {"pacs": ("seg", "sr", "summary")}, 7, ""),
    ]
    assert (tmp_path / "results/dd/d.dcm").read_bytes() == b"DICM"
    assert task_queue.dispatched == [50]


def test_what_triage_has_decided_already_is_not_written_again(tmp_path: Path) -> None:
    database = FakeDatabase(quiet=(1,))
    node_scheduler = scheduler(database, RecordingTaskQueue(), tmp_path, SUMMARY)
    decision = decide(database.study, node_scheduler.settings.triage, NOON)
    database.study = replace(database.study, decision=decision)
    node_scheduler.once()
    assert [note[0] for note in database.notes] == ["complete"]
    database.study = replace(database.study, decision=replace(decision, reason="another"))
    node_scheduler.once()
    assert [note[0] for note in database.notes] == ["complete", "triage", "complete"]


@pytest.mark.parametrize(("many_wait", "completed"), [(False, 3), (True, 1)])
def test_many_stable_studies_keep_no_other_step_waiting(tmp_path: Path, many_wait: bool, completed: int) -> None:
    """Two seconds each: the third begins within five seconds, and the others come in the next round. While many images
    wait, it is one at a time.
    """
    database = FakeDatabase(quiet=tuple(range(1, 9)), many_wait=many_wait)
    node_scheduler = scheduler(database, RecordingTaskQueue(), tmp_path)
    seconds = [0.0]

    def summarise(study: StudyFacts, decision: TriageDecision) -> Sequence[EncodedResult]:
        seconds[0] += 2
        return ()

    node_scheduler.summarise, node_scheduler.elapsed = summarise, lambda: seconds[0]
    node_scheduler.complete_stable_studies()
    assert [note[0] for note in database.notes].count("complete") == completed


def test_a_summary_that_cannot_be_made_does_not_keep_a_study_open_for_ever(tmp_path: Path) -> None:
    database = FakeDatabase(quiet=(1,))
    node_scheduler = scheduler(database, RecordingTaskQueue(), tmp_path)

    def fail(study: StudyFacts, decision: TriageDecision) -> Sequence[EncodedResult]:
        raise OSError("the image is gone")

    node_scheduler.summarise = fail
    for _ in range(3):
        node_scheduler.once()
    assert [note[0] for note in database.notes] == ["triage"] * 3
    node_scheduler.once()
    assert database.notes[-1] == ("complete", [], {"pacs": ("seg", "sr", "summary")}, 0, "")
    assert node_scheduler.failures == {}


def test_no_study_is_completed_without_a_summary_because_the_store_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = FakeDatabase(quiet=(1,))
    node_scheduler = scheduler(database, RecordingTaskQueue(), tmp_path / "store", SUMMARY)
    seconds = [0.0]
    node_scheduler.elapsed = node_scheduler.pauses.elapsed = lambda: seconds[0]
    with store_away(tmp_path / "store"):
        for _ in range(5):
            node_scheduler.once()
            seconds[0] += 60  # no step rests longer than 30 s
        assert list((tmp_path / "store").iterdir()) == []
    assert "complete" not in [note[0] for note in database.notes]
    assert "complete studies: the store is away" in caplog.text
    assert "Traceback" not in caplog.text
    node_scheduler.once()
    assert database.notes[-1][:2] == ("complete", ["summary"])


def test_a_database_that_is_away_is_a_sentence_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Away(FakeDatabase):
        def stable_studies(self, *_: object) -> tuple[int, ...]:
            raise OperationalError("SELECT 1", {}, Exception("connection refused\n\tIs the server running?"))

    scheduler(Away(), RecordingTaskQueue(), tmp_path).once()
    [record] = caplog.records
    assert record.exc_info is None
    assert record.message.endswith(
        "could not complete studies: the database cannot be used (connection refused); again in 2 s"
    )


def test_a_broker_that_is_away_is_noticed_on_a_quiet_night(tmp_path: Path) -> None:
    """Nothing is to be enqueued, and the broker is asked once a minute all the same."""
    task_queue, seconds = RecordingTaskQueue(), [0.0]
    node_scheduler = scheduler(FakeDatabase(), task_queue, tmp_path)
    node_scheduler.elapsed = lambda: seconds[0]
    for seconds[0] in (0.0, 30.0, 59.0, 61.0):
        node_scheduler.once()
    assert task_queue.asked == 2


def test_what_has_its_message_already_is_not_enqueued_again(tmp_path: Path) -> None:
    database, task_queue = (
        FakeDatabase(jobs=((1, True), (2, False)), deliveries=(9,)),
        RecordingTaskQueue(there=frozenset({2, 9})),
    )
    scheduler(database, task_queue, tmp_path).once()
    assert task_queue.dispatched == [(1, True)]
    assert database.notes == [("dispatched", 1, 2), ("deliveries enqueued", 9)], "it is looked for again after a while"


def test_a_study_that_cannot_be_complete_is_in_no_other_study_s_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk takes no file for the first one: the second completes, and the first is tried again, ever more
    rarely.
    """
    database = FakeDatabase(quiet=(1, 2))
    node_scheduler = scheduler(database, RecordingTaskQueue(), tmp_path)
    node_scheduler.elapsed, seconds = lambda: seconds[0], [0.0]
    node_scheduler.studies.elapsed = node_scheduler.elapsed
    tries: list[float] = []
    name = "PATIENT^NAME"

    def to_complete(study_id: int, _rules: object) -> tuple[StudyFacts, tuple[Route | None, ...]]:
        if study_id == 1:
            tries.append(seconds[0])
            raise OSError(28, name)
        return database.study, ()

    database.study_to_complete = to_complete  # type: ignore[method-assign]
    for _ in range(10):
        node_scheduler.once()
        seconds[0] += 1
    assert tries == [0, 2, 6]
    assert [note[0] for note in database.notes].count("complete") == 10
    assert name not in caplog.text


def test_a_step_that_fails_keeps_no_other_from_its_turn(tmp_path: Path) -> None:
    database = FakeDatabase(quiet=(1,), deliveries=(9,))
    node_scheduler = scheduler(database, RecordingTaskQueue(), tmp_path, SUMMARY)
    pulled: list[datetime] = []

    def pull_back(now: datetime) -> int:
        pulled.append(now)
        return 0

    node_scheduler.pull_back = pull_back

    def broken(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError

    database.jobs_to_enqueue = database.late_jobs = broken  # type: ignore[method-assign]
    node_scheduler.retention.keep_days = 30
    node_scheduler.once()
    assert [note[0] for note in database.notes] == ["deliveries enqueued", "triage", "complete"]
    assert len(pulled) == 1


def test_a_late_summary_is_kept_and_not_sent(tmp_path: Path) -> None:
    old = facts(first_received_at=NOON - timedelta(hours=5))
    database = FakeDatabase(quiet=(1,), study=old)
    scheduler(database, RecordingTaskQueue(), tmp_path, SUMMARY, hours=4).once()
    assert database.notes[-1] == (
        "complete",
        ["summary"],
        {"pacs": ("seg", "sr", "summary")},
        0,
        "the study came more than 4 hours before",
    )


def test_a_study_in_which_something_arrived_meanwhile_stays_open(tmp_path: Path) -> None:
    database, task_queue = FakeDatabase(quiet=(1,), arrived=True), RecordingTaskQueue()
    scheduler(database, task_queue, tmp_path).once()
    assert task_queue.dispatched == []


def test_a_study_with_waiting_jobs_is_left_alone(tmp_path: Path) -> None:
    database = FakeDatabase(quiet=(1,), study=facts(jobs_waiting=1))
    scheduler(database, RecordingTaskQueue(), tmp_path).once()
    assert database.notes == []


def test_the_loop_outlives_what_goes_wrong_and_ends_when_told(caplog: pytest.LogCaptureFixture) -> None:
    stop, rounds = threading.Event(), []

    def once() -> None:
        rounds.append(1)
        if len(rounds) == 2:
            raise RuntimeError("the database is away")
        if len(rounds) == 4:
            stop.set()

    repeat_until(stop, once, 0.001)
    assert len(rounds) == 4
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_database_that_is_away_is_told_by_the_part_that_misses_it(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()

    def once() -> None:
        stop.set()
        raise OperationalError("SELECT 1", {}, OSError("connection refused"))

    repeat_until(stop, once, 0.001, "the scheduler")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("a round of the scheduler failed: ")
    assert "Thread" not in line


@pytest.mark.parametrize(("hours", "age", "late"), [(0, 999, False), (4, 3.9, False), (4, 4.1, True)])
def test_results_of_an_old_study_come_too_late(hours: float, age: float, late: bool) -> None:
    study = facts(first_received_at=NOON - timedelta(hours=age))
    assert bool(comes_too_late(study, Results(late_after_hours=hours), NOON)) is late


@pytest.mark.parametrize(
    ("reported", "rule", "late"), [(True, "record", True), (True, "send", False), (False, "record", False)]
)
def test_results_of_a_reported_study_come_too_late(reported: bool, rule: Literal["send", "record"], late: bool) -> None:
    study = facts(first_received_at=NOON, reported=reported)
    assert (comes_too_late(study, Results(after_report=rule), NOON) == IS_REPORTED) is late


def test_only_a_study_without_waiting_jobs_may_complete() -> None:
    assert may_complete(facts())
    assert not may_complete(replace(facts(), jobs_waiting=1))


def test_a_summary_waits_for_a_prior_only_where_the_site_wants_one(tmp_path: Path) -> None:
    database = FakeDatabase(quiet=(1,), prior_comes=True)
    node_scheduler = scheduler(database, RecordingTaskQueue(), tmp_path, SUMMARY)
    settings = node_scheduler.settings
    node_scheduler.settings = settings.model_copy(update={"priors": Priors(archive="pacs")})
    node_scheduler.once()
    assert database.notes == []
    node_scheduler.settings = settings
    node_scheduler.once()
    assert [note[0] for note in database.notes] == ["triage", "complete"]


def test_results_of_a_prior_stay_here_unless_the_site_wants_them() -> None:
    prior = facts(only_prior=True, pulled=True, reported=True)
    assert comes_too_late(prior, Results(), NOON) == IS_PRIOR
    assert comes_too_late(prior, Results(priors="send"), NOON) == ""
