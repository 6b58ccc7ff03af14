"""A STAT image that a busy process analyses between two stages of a routine one, and what may go wrong with it there.

Nothing that happens to it may cost the routine image anything, and both end with exactly one set of results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydicom import dcmwrite
from sqlalchemy.exc import OperationalError

from config.destinations import Destination
from config.settings import Settings, Store
from db import holds, jobs
from db.database import Database
from db.engine import connect
from db.errors import DuplicateResultError
from db.queries import study_details
from db.records import ReceivedInstance
from db.shown_records import JobDetail
from db.states import JobState
from models.contract import ModelInput, Prediction
from tests.commands import record_instance
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.workers.fallible_worker import PIPELINE, MadeUpNetwork, Points
from tests.workers.harness import CR, radiograph
from workers import analysis
from workers.clock import utc_now
from workers.composition import analysis_handler
from workers.enqueue import TaskQueue
from workers.model_state_resolver import ResolvedModels, States
from workers.siblings import OF_THIS_WORKER
from workers.store_files import INSTANCES
from workers.worker_id import WorkerId

STAT_ROWS = 65


class Killed(BaseException):
    """The process ends here, and runs no other line."""


class Network(MadeUpNetwork):
    """Does something for each STAT image, known by its size, before it answers."""

    runs_on = device = "cpu"
    other_files: ClassVar[dict[str, str]] = {}

    def __init__(self, folder: Path) -> None:
        super().__init__(Points(folder))
        self.at_stat: Callable[[], None] = lambda: None

    def resolve(self, states: States) -> ResolvedModels:
        return ResolvedModels(self)

    def only(self, names: Collection[str]) -> Network:
        return self

    def predict(self, model_input: ModelInput) -> Prediction:
        if model_input.shape[0] == STAT_ROWS:
            self.at_stat()
        return super().predict(model_input)


class Process:
    """A process of a worker with a routine image and, if the broker says so, a STAT image that waits."""

    def __init__(self, folder: Path) -> None:
        pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1, kinds=("sr",))
        self.settings = Settings(store=Store(folder=folder), destinations=(pacs,))
        (folder / INSTANCES).mkdir()
        engine = connect(self.settings.database_url)
        migrate(engine)
        self.database = Database(engine, NO_RULES)
        self.network = Network(folder)
        self.loading: Callable[[], None] = lambda: None
        self.start()
        self.routine, self.stat = self.receive(1), self.receive(2, stat=True)

    def start(self) -> None:
        """Start the process, at the place of its predecessor."""
        here = WorkerId("here/jobs/0/0#", "1")
        self.handle = analysis_handler(self.settings, here, database=self.database, load=self.load)

    def load(self, _: Settings) -> tuple[Any, str]:
        self.loading()
        return self.network, PIPELINE

    def receive(self, number: int, *, stat: bool = False) -> int:
        uid = f"1.2.3.{number}"
        image = radiograph(uid, STAT_ROWS if stat else 64)
        dcmwrite(self.settings.store.folder / f"{number}.dcm", image, enforce_file_format=True)
        received = ReceivedInstance(
            uid, CR, "1.2.840.10008.1.2.1", f"{number:064x}", f"{number}.dcm", 1, f"{uid}.1", f"{uid}.2", stat=stat
        )
        return record_instance(self.database, received, None, PIPELINE, utc_now()).job_ids[0]

    def job(self, job_id: int) -> JobDetail:
        return self.detail(job_id).jobs[0]

    def detail(self, job_id: int) -> Any:
        return self.database.read(study_details.study_detail, 1 if job_id == self.routine else 2)

    def states(self) -> list[tuple[JobState, int]]:
        """State and counted attempts of the routine image, then of the STAT image."""
        return [(self.job(each).state, self.job(each).attempts) for each in (self.routine, self.stat)]

    def results(self) -> list[int]:
        """How many reports each has."""
        return [
            Counter(one.record.kind for one in self.detail(each).results)["sr"] for each in (self.routine, self.stat)
        ]


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    monkeypatch.setattr(TaskQueue, "stat_waits", lambda *_: True)
    return Process(tmp_path)


def failing(monkeypatch: pytest.MonkeyPatch, job_id: int, error: Exception, times: int) -> list[int]:
    """Recording this job fails so many times; what is given back counts them."""
    finish, failed = jobs.finish, list[int]()

    def fail(connection: Any, recorded: int, *arguments: Any) -> Any:
        if recorded == job_id and len(failed) < times:
            failed.append(recorded)
            raise error
        return finish(connection, recorded, *arguments)

    monkeypatch.setattr(jobs, "finish", fail)
    return failed


GONE = OperationalError("", {}, Exception("gone"))


def test_it_is_analysed_first(process: Process) -> None:
    process.handle(process.routine)
    assert process.states() == [(JobState.DONE, 1), (JobState.DONE, 1)]
    ended = [process.job(each).finished_at for each in (process.stat, process.routine)]
    assert ended == sorted(ended, key=str)
    process.handle(process.stat)
    assert process.results() == [1, 1], "its message finds nothing to do"


def test_recording_is_tried_again_where_the_database_was_away_for_a_moment(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "_FIRST_PAUSE_SECONDS", 0.0)
    failing(monkeypatch, process.stat, GONE, times=2)
    process.handle(process.routine)
    assert process.states() == [(JobState.DONE, 1), (JobState.DONE, 1)]
    assert process.results() == [1, 1]


def test_a_database_that_stays_away_costs_the_routine_image_nothing(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "_PATIENCE_SECONDS", 0.0)
    failing(monkeypatch, process.stat, GONE, times=1)
    process.handle(process.routine)
    assert process.states() == [(JobState.DONE, 1), (JobState.RUNNING, 1)], "free when its lease is over"
    assert process.results() == [1, 0]


def test_what_cannot_be_recorded_is_tried_again_and_costs_the_routine_image_nothing(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, process.stat, DuplicateResultError("1.2"), times=1)
    process.handle(process.routine)
    assert process.states() == [(JobState.DONE, 1), (JobState.RETRYING, 1)]
    assert process.job(process.stat).error.startswith("DuplicateResultError")
    assert process.results() == [1, 0]


def test_an_image_that_kills_the_process_costs_the_routine_image_no_attempt(process: Process) -> None:
    def kill() -> None:
        raise Killed

    process.network.at_stat = kill
    with pytest.raises(Killed):
        process.handle(process.routine)
    process.start()
    assert process.states() == [(JobState.QUEUED, 0), (JobState.QUEUED, 1)]
    process.handle(process.routine)
    assert process.states() == [(JobState.DONE, 1), (JobState.QUEUED, 1)], "it comes between no other image again"


def test_the_others_need_not_rest_for_an_image_whose_process_has_died(process: Process) -> None:
    OF_THIS_WORKER[0], seen = 1, list[int]()
    process.loading = lambda: seen.append(OF_THIS_WORKER[0])
    process.start()
    assert seen == [0], "before its networks are loaded"


def test_a_database_that_does_not_say_which_one_waits_costs_the_routine_image_nothing(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise GONE

    monkeypatch.setattr(jobs, "first_stat", gone)
    process.handle(process.routine)
    assert process.states() == [(JobState.DONE, 1), (JobState.QUEUED, 0)]


def test_a_held_one_is_left_alone(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    first_stat = jobs.first_stat

    def hold(connection: Any, queue: str) -> int | None:
        found = first_stat(connection, queue)
        process.database.write(holds.hold, 2, "a person looks at it", "ada", utc_now())
        return found

    monkeypatch.setattr(jobs, "first_stat", hold)
    process.handle(process.routine)
    assert process.states() == [(JobState.DONE, 1), (JobState.ON_HOLD, 0)]
