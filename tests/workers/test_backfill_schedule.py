"""The daily backfill: when it starts, that one of several schedulers runs it, and what goes on after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from config.settings import Settings
from db import backfill as store
from db import erasures
from db.database import Database
from db.tables import BackfillRun
from tests.db.examples import record
from workers.backfill_schedule import BackfillSchedule, due_day
from workers.destinations.destination_kind import PeerError
from workers.services import backfill as service

MORNING = datetime(2026, 11, 28, 5, 31, tzinfo=UTC)
SETTINGS = Settings.model_validate(
    {
        "site": {"time_zone": "Europe/Berlin"},
        "destinations": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}],
        "backfill": {"archive": "pacs", "daily_at": "06:30", "hours": 24},
    }
)


def latest_run(connection: Connection) -> Any:
    return connection.execute(select(BackfillRun.__table__).order_by(BackfillRun.id.desc())).first()


class NoStudies:
    """An archive that answers each query with nothing; the real one is in tests/integration/test_backfill.py."""

    def __init__(self, *, down: bool = False) -> None:
        self.asked: list[str] = []
        self.down = down
        self.uids: list[str] = []

    @contextmanager
    def open(self, *arguments: object) -> Iterator[NoStudies]:
        if self.down:
            raise PeerError("it is down")
        yield self

    def study_uids(self, day: datetime, modality: str) -> list[str]:
        self.asked.append(f"{day:%Y%m%d} {modality}")
        return self.uids


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> NoStudies:
    made = NoStudies()
    monkeypatch.setattr(service, "open_archive", made.open)
    return made


def schedule(database: Database, now: datetime) -> BackfillSchedule:
    return BackfillSchedule(SETTINGS, database, lambda: now, lambda seconds: False)


@pytest.mark.parametrize(
    ("daily_at", "day"), [("05:30", "20261128"), ("05:31", "20261128"), ("05:32", None), ("", None)]
)
def test_a_run_is_due_once_its_time_has_come(daily_at: str, day: str | None) -> None:
    assert due_day(MORNING, daily_at) == day


def test_one_scheduler_runs_it_once_a_day(database: Database, archive: NoStudies) -> None:
    for minutes in (-5, 0, 1, 60):
        schedule(database, MORNING + timedelta(minutes=minutes)).once()
    assert archive.asked == ["20261127 CR", "20261127 DX", "20261128 CR", "20261128 DX"]
    schedule(database, MORNING + timedelta(days=1)).once()
    assert len(archive.asked) == 8


def test_what_came_while_the_node_was_away_is_searched_for(database: Database, archive: NoStudies) -> None:
    schedule(database, MORNING).once()
    archive.asked.clear()
    schedule(database, MORNING + timedelta(days=3)).once()
    assert archive.asked[::2] == ["20261128 CR", "20261129 CR", "20261130 CR", "20261201 CR"]
    archive.asked.clear()
    schedule(database, MORNING + timedelta(days=400)).once()
    assert (len(archive.asked[::2]), archive.asked[0]) == (32, "20271202 CR")


def test_the_hour_that_comes_twice_or_never_is_no_second_run_and_no_run_less(
    database: Database, archive: NoStudies
) -> None:
    settings = SETTINGS.model_copy(update={"backfill": SETTINGS.backfill.model_copy(update={"daily_at": "02:30"})})
    ends = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)  # 02:00 of both times follows
    begins = datetime(2027, 3, 28, 0, 30, tzinfo=UTC)  # 01:30, and 03:00 half an hour later
    moment = [ends]
    daily = BackfillSchedule(settings, database, lambda: moment[0], lambda seconds: False)
    for start, runs in ((ends, 1), (begins, 2)):
        for minutes in range(0, 180, 10):
            moment[0] = start + timedelta(minutes=minutes)
            daily.once()
        assert database.read(lambda one: one.scalar(select(func.count(BackfillRun.id)))) == runs


def test_a_study_that_was_erased_is_left_out_every_morning_and_counted(database: Database, archive: NoStudies) -> None:
    record(database)
    database.write(erasures.request, 1, "ann", "", "case 88", MORNING)
    assert database.write(erasures.erase, 1, MORNING) is None
    archive.uids = ["1.2.826.0.2.1"]
    for day in range(2):
        schedule(database, MORNING + timedelta(days=day)).once()
        run = database.read(latest_run)
        assert (run.studies, run.erased, run.incomplete, run.problem) == (1, 1, 0, "")


def test_a_run_whose_process_has_died_is_taken_over(database: Database, archive: NoStudies) -> None:
    days = ("20261127", "20261128")
    assert database.write(store.begin_run, "20261128", "pacs", days, MORNING) is not None
    assert database.write(store.begin_run, "20261128", "pacs", days, MORNING) is None, "another scheduler runs it"
    schedule(database, MORNING + timedelta(minutes=20)).once()
    assert archive.asked == []
    schedule(database, MORNING + timedelta(minutes=31)).once()
    assert len(archive.asked) == 4


def test_an_archive_that_is_down_is_tried_again(
    database: Database, archive: NoStudies, caplog: pytest.LogCaptureFixture
) -> None:
    archive.down = True
    schedule(database, MORNING).once()
    assert "pacs cannot be searched for missing images: it is down" in caplog.text
    assert database.read(latest_run).problem == "it is down"
    archive.down = False
    schedule(database, MORNING + timedelta(minutes=31)).once()
    run = database.read(latest_run)
    assert (run.problem, run.ended_at) == ("", MORNING + timedelta(minutes=31))
