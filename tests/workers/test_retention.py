"""Old files go, and nothing that may still be needed: against the real worklist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy.exc import OperationalError

from db import deliveries, holds, jobs, studies
from db.database import Database
from db.engine import connect
from db.queries import retention, study_details
from db.records import ExpiredStudy, NotEligible, Outcome, ReceivedInstance, ResultRecord
from tests.commands import record_instance
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.scripted import Scripted
from tests.stores import store_away
from tests.workers.builders import NOON
from workers.retention import PAUSE, STUDIES_AT_ONCE, Retention
from workers.store_files import INSTANCES, StoreAwayError

LEASE = timedelta(minutes=1)
LATER = NOON + timedelta(days=31)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    engine = connect(f"sqlite:///{tmp_path}/pleura.sqlite")
    migrate(engine)
    return Database(engine, NO_RULES)


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Path:
    (tmp_path / INSTANCES).mkdir()
    return tmp_path


def test_nothing_is_taken_for_removed_while_the_store_is_away(database: Database, tmp_path: Path) -> None:
    files = study(database, tmp_path, 1)
    with store_away(tmp_path), pytest.raises(StoreAwayError):
        Retention(tmp_path, 30, database).step(LATER)
    assert all(path.exists() for path in files)
    Retention(tmp_path, 30, database).step(LATER)
    assert not any(path.exists() for path in files)


def received(number: int) -> ReceivedInstance:
    return ReceivedInstance(
        sop_instance_uid=f"1.2.{number}",
        sop_class_uid="1.2",
        transfer_syntax_uid="1.2",
        digest=f"{number:064x}",
        path=f"instances/{number}.dcm",
        byte_count=1,
        study_instance_uid=f"1.3.{number}",
        series_instance_uid=f"1.4.{number}",
    )


def study(database: Database, folder: Path, number: int, *, sent: bool = True, complete: bool = True) -> list[Path]:
    """A study with one image and one result, brought as far as a test wants it; its files are given back."""
    paths = [folder / f"instances/{number}.dcm", folder / f"results/{number}.dcm"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (job_id,) = record_instance(database, received(number), None, "p" * 64, NOON).job_ids
    if not complete:
        return paths
    database.write(jobs.claim, job_id, "w", NOON, LEASE)
    result = ResultRecord("seg", "1.2", f"1.5.{number}", "1.6", "d", f"results/{number}.dcm", 1)
    outcome = Outcome(results=(result,), destinations={"pacs": ("seg",)})
    delivery_ids = database.write(jobs.finish, job_id, "w", outcome, NOON)
    assert delivery_ids is not None
    if sent:
        database.write(deliveries.claim, delivery_ids[0], "w", NOON, LEASE)
        database.write(deliveries.sent, delivery_ids[0], "w", NOON)
    found = database.read(study_details.find_study, f"1.3.{number}")
    assert found is not None
    assert database.write(studies.complete, found, (), {}, NOON) == ()
    return paths


def test_files_of_a_complete_and_delivered_study_go(database: Database, tmp_path: Path) -> None:
    paths = study(database, tmp_path, 1)
    old_files = Retention(tmp_path, 30, database)
    assert old_files.step(NOON + timedelta(days=29)) == 0
    old_files.rest_until = None
    assert old_files.step(LATER) == 2
    assert not any(path.exists() for path in paths)
    assert database.read(study_details.find_study, "1.3.1") is not None, "the rows stay"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda database, folder: study(database, folder, 1, sent=False),
        lambda database, folder: study(database, folder, 1, complete=False),
        lambda database, folder: [
            *study(database, folder, 1),
            database.write(
                holds.hold, database.read(study_details.find_study, "1.3.1"), "a person looks", "admin", NOON
            ),
        ][:2],
    ],
    ids=["not delivered", "not complete", "on_hold"],
)
def test_what_may_still_be_needed_stays(
    database: Database, tmp_path: Path, spoil: Callable[[Database, Path], list[Path]]
) -> None:
    paths = spoil(database, tmp_path)
    assert Retention(tmp_path, 30, database).step(LATER) == 0
    assert all(path.exists() for path in paths)


def test_0_days_keeps_everything(database: Database, tmp_path: Path) -> None:
    paths = study(database, tmp_path, 1)
    assert Retention(tmp_path, 0, database).step(LATER + timedelta(days=9999)) == 0
    assert all(path.exists() for path in paths)


@dataclass
class ManyStudies(Scripted):
    answers: ClassVar[Mapping[Callable[..., Any], str]] = {
        retention.expired: "expired_studies",
        retention.removed: "files_removed",
    }
    count: int
    path: str = "results/none.dcm"
    full: bool = False
    gone: list[int] = field(default_factory=list)

    def expired_studies(self, before: datetime, after_id: int = 0, limit: int = 100) -> tuple[ExpiredStudy, ...]:
        numbers = range(after_id + 1, min(after_id + limit, self.count) + 1)
        return tuple(ExpiredStudy(number, (self.path,)) for number in numbers)

    def files_removed(self, study: ExpiredStudy, now: datetime) -> None:
        self.gone.append(study.study_id)
        if self.full:
            raise OperationalError("update", {}, Exception("database or disk is full"))


def test_a_pass_goes_page_by_page_and_then_rests(tmp_path: Path) -> None:
    old_files = Retention(tmp_path, 30, ManyStudies(STUDIES_AT_ONCE + 1))
    old_files.step(NOON)
    assert (old_files.after_id, old_files.rest_until) == (STUDIES_AT_ONCE, None)
    old_files.step(NOON)
    assert old_files.after_id == 0
    assert old_files.rest_until is not None
    assert old_files.rest_until > NOON


def test_a_pass_goes_on_where_nothing_can_be_noted(tmp_path: Path) -> None:
    """A full disk has no room for the database's notes either."""
    old_files = Retention(tmp_path, 30, ManyStudies(STUDIES_AT_ONCE + 1, full=True))
    with pytest.raises(OperationalError):
        old_files.step(NOON)
    assert old_files.after_id == STUDIES_AT_ONCE, "the next studies have their turn"


def test_a_clock_that_was_set_back_does_not_put_a_pass_off(tmp_path: Path) -> None:
    some = ManyStudies(1)
    old_files = Retention(tmp_path, 30, some)
    old_files.step(NOON)
    old_files.step(NOON + PAUSE / 2)
    assert len(some.gone) == 1
    old_files.step(NOON - timedelta(hours=1))
    assert len(some.gone) == 2


def test_a_study_is_looked_at_once_and_again_when_something_has_come(database: Database, tmp_path: Path) -> None:
    study(database, tmp_path, 1)
    Retention(tmp_path, 30, database).step(LATER)
    assert database.read(retention.expired, LATER, 0) == ()

    late = ReceivedInstance("1.2.1.9", "1.2.840.1", "1.2.840.2", "e" * 64, "instances/late", 4, "1.3.1", "1.4.1", "")
    record_instance(database, late, NotEligible("report", "this is a report"), "p" * 64, LATER)
    (again,) = database.read(retention.expired, LATER, 0)
    assert "instances/late" in again.paths
    record_instance(
        database,
        replace(late, sop_instance_uid="1.2.1.10", digest="f" * 64),
        NotEligible("report", "this is a report"),
        "p" * 64,
        LATER,
    )
    database.write(retention.removed, again, LATER)
    assert database.read(retention.expired, LATER, 0) != (), "another file has come since it was found"


def test_an_image_that_is_sent_once_more_has_its_file_removed_once_more(database: Database, tmp_path: Path) -> None:
    image, _ = study(database, tmp_path, 1)
    Retention(tmp_path, 30, database).step(LATER)
    image.write_bytes(b"the same bytes, sent again")
    record_instance(database, received(1), None, "p" * 64, LATER)
    Retention(tmp_path, 30, database).step(LATER)
    assert not image.exists()


def test_a_path_out_of_the_store_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"x")
    store = tmp_path / "store"
    (store / INSTANCES).mkdir(parents=True)
    assert Retention(store, 30, ManyStudies(1, "../precious")).step(NOON) == 0
    assert precious.exists()
