"""A disk that is full, on a small file system of its own: old files go, and the summary that had no room is written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from config.settings import Settings, Store
from db import deliveries, jobs, studies
from db.database import Database
from db.engine import connect
from db.queries import study_details
from db.records import ResultRecord, StudyFacts, TriageDecision
from tests.db.examples import NOW, claim, finished, received, record
from tests.migrated import migrate
from tests.rules import NO_RULES
from workers.enqueue import TaskQueue
from workers.job_outcome import EncodedResult
from workers.retention import Retention
from workers.scheduler import Scheduler

SIZE = 2 * 1024 * 1024
LATER = NOW + timedelta(days=40)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_freed_by_retention_and_the_node_goes_on(small_disk: Path, tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/pleura.sqlite")
    migrate(engine)
    database = Database(engine, NO_RULES)
    old = settled_long_ago(database)
    path = small_disk / received(1, 1).path
    path.parent.mkdir(parents=True)
    with pytest.raises(OSError, match="No space"):
        path.write_bytes(bytes(2 * SIZE))
    young = quiet_now(database)

    node_scheduler = scheduler(database, small_disk, LATER)
    node_scheduler.summarise = summary
    node_scheduler.retention.rest_until = LATER + timedelta(hours=1)  # it was here a moment ago
    node_scheduler.once()
    assert database.read(study_details.study_detail, young).row.state.value == "open"
    node_scheduler.retention.rest_until = None
    node_scheduler.studies.until.clear()
    node_scheduler.once()
    assert not path.exists()
    assert database.read(study_details.study_detail, young).row.state.value == "complete"
    assert database.read(study_details.study_detail, old).row.state.value == "complete"
    assert (small_disk / "results/summary.dcm").stat().st_size == SIZE // 2


def settled_long_ago(database: Database) -> int:
    finished(database, study=1)
    for delivery_id in database.read(deliveries.to_enqueue, NOW + timedelta(hours=1), timedelta(0)):
        assert database.write(deliveries.claim, delivery_id, "w1", NOW, timedelta(minutes=1)) is not None
        database.write(deliveries.sent, delivery_id, "w1", NOW)
    found = database.read(study_details.find_study, received(1, 1).study_instance_uid)
    assert found is not None
    assert database.write(studies.complete, found, (), {}, NOW) == ()
    return found


def quiet_now(database: Database) -> int:
    job_id = record(database, study=2)
    claim(database, job_id)
    database.write(jobs.fail, job_id, "w1", "it failed", NOW)
    found = database.read(study_details.find_study, received(1, 2).study_instance_uid)
    assert found is not None
    return found


def summary(study: StudyFacts, decision: TriageDecision) -> Sequence[EncodedResult]:
    record = ResultRecord("summary", "1.2", "2.25.77", "2.25.78", "d" * 64, "results/summary.dcm", SIZE // 2)
    return (EncodedResult(record, bytes(SIZE // 2)),)


def scheduler(database: Database, folder: Path, now: datetime) -> Scheduler:
    settings = Settings(store=Store(folder=folder))
    task_queue = TaskQueue(f"redis+socket://{folder}/none.sock")
    retention = Retention(folder, 30, database)
    return Scheduler(settings, database, task_queue, lambda: now, lambda *_: (), retention, lambda _: None)
