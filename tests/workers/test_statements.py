"""How often a study's way asks the database, on SQLite: each write waits for the disk, and no two happen at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import Connection, Engine, event, func, select

from config.settings import Settings
from db.database import Database
from db.engine import WRITING, connect
from db.prepared_statements import Prepared
from db.records import StudyFacts, TriageDecision
from db.states import StudyState
from db.tables import Study
from models.contract import ModelInput
from models.model_spec import Mode
from tests.commands import record_instance
from tests.db.examples import PIPELINE, received
from tests.fakes import RecordingTaskQueue
from tests.migrated import migrate
from tests.workers.builders import NOON, FakeClock
from tests.workers.test_analysis import EQUIPMENT, FakePredictor, positive, small_object
from tests.workers.test_scheduler import SUMMARY
from workers.analysis import analyse_job
from workers.analysis_tools import AnalysisTools
from workers.job_outcome import EncodedResult
from workers.open_database import database_of
from workers.results.source_image import SourceImage
from workers.retention import Retention
from workers.scheduler import Scheduler

STUDIES = 3


@contextmanager
def counted(engine: Engine) -> Iterator[Counter[str]]:
    """Statements, those among them that SQLAlchemy puts together anew, and transactions that read and that write."""
    found: Counter[str] = Counter()

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        found["statements"] += statement != "BEGIN"
        found["made anew"] += statement != "BEGIN"

    def begin(connection: Connection) -> None:
        found["writes" if connection.get_execution_options().get(WRITING) else "reads"] += 1

    def prepared(statement: Prepared, on: Connection, compiled: Any, *several: Any) -> Any:
        found["statements"] += len(several)
        return execute(statement, on, compiled, *several)

    execute = Prepared._execute
    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "begin", begin)
    try:
        with patch.object(Prepared, "_execute", prepared):
            yield found
    finally:
        event.remove(engine, "before_cursor_execute", count)
        event.remove(engine, "begin", begin)


@pytest.fixture
def database(settings: Settings) -> Database:
    engine = connect(settings.database_url)
    migrate(engine)
    return database_of(settings, engine)


@pytest.fixture
def analyse(settings: Settings, database: Database) -> Callable[[int], None]:
    def read(_: Path) -> SourceImage:
        return SourceImage(Dataset(), ModelInput(np.zeros((4, 5), np.float32), "1.2.3"))

    def encode(analysis: Any, kinds: Any) -> dict[str, Dataset]:
        return {kind: small_object(kind, analysis) for kind in sorted(kinds)}

    tools = AnalysisTools(
        settings=settings,
        database=database,
        read_source=read,
        difference=lambda before, after: "",
        predictor=FakePredictor(replace(positive(), findings=positive().findings[1:])),
        encode=encode,
        equipment=EQUIPMENT,
        pipeline=PIPELINE,
        task_queue=RecordingTaskQueue(),
        clock=FakeClock(),
        elapsed=lambda: 0.0,
        worker="host/jobs/0/0#1",
        modes={"chest": Mode.ACTIVE},
    )
    return lambda job_id: analyse_job(job_id, tools)


def take_in(database: Database, folder: Path) -> list[int]:
    jobs: list[int] = []
    for number in range(1, STUDIES + 1):
        image = received(number, number)
        (folder / image.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / image.path).write_bytes(b"as received")
        jobs += record_instance(database, image, None, PIPELINE, NOON).job_ids
    return jobs


def test_an_analysis_writes_twice_and_a_completion_once(
    settings: Settings, database: Database, analyse: Callable[[int], None]
) -> None:
    jobs = take_in(database, settings.store.folder)
    with counted(database.engine) as found:
        for job_id in jobs:
            analyse(job_id)
    assert found["writes"] == 2 * STUDIES, "it claims the job, and writes what came of it and what triage decides"
    assert found["reads"] == STUDIES
    assert found["statements"] <= 27 * STUDIES
    assert found["made anew"] == 0, "each takes ten times as long as a prepared one"

    with counted(database.engine) as found:
        scheduler(settings, database).complete_stable_studies()
    assert database.read(complete_studies) == STUDIES
    assert (found["writes"], found["reads"]) == (STUDIES, STUDIES + 2), "what triage has decided already stands there"
    assert found["statements"] <= 14 * STUDIES + 2
    assert found["made anew"] == 2, "which studies are stable, and whether many images wait: once a round"


def scheduler(settings: Settings, database: Database) -> Scheduler:
    def summarise(study: StudyFacts, _: TriageDecision) -> list[EncodedResult]:
        return [replace(SUMMARY, record=replace(SUMMARY.record, sop_instance_uid=f"1.9.{study.study_id}"))]

    clock, retention = FakeClock(NOON + timedelta(hours=1)), Retention(settings.store.folder, 0, database)
    return Scheduler(settings, database, RecordingTaskQueue(), clock, summarise, retention, lambda now: None)


def complete_studies(connection: Connection) -> int:
    query = select(func.count()).where(Study.state == StudyState.COMPLETE)
    return connection.execute(query).scalar_one()
