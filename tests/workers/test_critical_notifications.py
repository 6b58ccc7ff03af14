"""Which studies notification, from the received image to the notification: known, late and back-filled ones do not."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from config.triage import Triage
from db import feedback, jobs, study_status
from db.database import Database
from db.engine import connect
from db.order_tables import NotificationRow
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import Outcome, ReceivedInstance
from db.shown_records import WorklistRow
from db.states import Priority
from db.study_rules import NotificationRules
from db.user_tables import Verdict
from tests.commands import record_instance, record_triage, study_facts
from tests.migrated import migrate
from tests.rules import rules_that_notify
from tests.workers.builders import NOON, finding
from workers.triage import decide

RULES = Triage()
DAY = timedelta(days=1)
JANE = {"patient_name": "Doe^Jane", "patient_birth_date": "19700101", "patient_sex": "F"}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'notifications.sqlite'}")
    migrate(engine)
    return engine


class Node:
    """A node that has its findings at once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.database = Database(engine, rules_that_notify(NotificationRules(channels=("webhook",))))
        self.images = 0

    def film(self, study: str, at: datetime, side: str = "", **changes: Any) -> WorklistRow:
        """A film with a pneumothorax arrives and is analysed."""
        self.images += 1
        values: dict[str, Any] = {"study_date": at.strftime("%Y%m%d"), "patient_id": "P1"} | JANE | changes
        received = ReceivedInstance(
            sop_instance_uid=f"1.2.{self.images}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            digest=f"{self.images:064}",
            path="a.dcm",
            byte_count=1,
            study_instance_uid=study,
            series_instance_uid=f"{study}.0",
            **values,
        )
        (job,) = record_instance(self.database, received, None, "pipeline", at).job_ids
        assert self.database.write(jobs.claim, job, "worker", at, timedelta(minutes=5))
        self.database.write(jobs.finish, job, "worker", Outcome(findings=(finding(side=side),)), at)
        return self.triage(study, at)

    def triage(self, study: str, at: datetime) -> WorklistRow:
        row = self.database.read(study_details.find_study, study)
        assert row is not None
        record_triage(self.database, row, decide(study_facts(self.database, row), RULES, at), at)
        return self.database.read(study_details.study_detail, row).row

    @property
    def notified(self) -> list[int]:
        with self.engine.connect() as connection:
            return list(connection.scalars(select(NotificationRow.study_id).order_by(NotificationRow.id)))


@pytest.fixture
def node(engine: Engine) -> Node:
    return Node(engine)


def test_a_daily_film_notifies_once(node: Node) -> None:
    rows = [node.film(f"1.{day}", NOON + day * DAY) for day in range(1, 6)]
    assert [row.priority for row in rows] == [Priority.CRITICAL, *[Priority.URGENT] * 4]
    assert node.notified == [1]
    assert rows[4].reason == "pneumothorax 93%, known since the film of 2026-02-04"
    assert node.triage("1.1", NOON + 6 * DAY).priority is Priority.CRITICAL, "the first film keeps its priority"


def test_the_other_side_notifies(node: Node) -> None:
    node.film("1.1", NOON, "left")
    node.film("1.2", NOON + DAY, "right")
    assert node.notified == [1, 2]


def test_another_patient_notifies(node: Node) -> None:
    node.film("1.1", NOON)
    node.film("1.2", NOON + DAY, patient_id="P2")
    assert node.notified == [1, 2]


def test_what_a_reader_has_rejected_notifies_again(node: Node, engine: Engine) -> None:
    node.film("1.1", NOON)
    (first,) = node.database.read(feedback.findings, 1)
    node.database.write(feedback.give, first.id, Verdict.REJECT, NOON, actor="ann")
    node.film("1.2", NOON + DAY)
    assert node.notified == [1, 2]


def test_an_archive_that_is_filled_notifies_nobody(node: Node) -> None:
    row = node.film("1.1", NOON, study_date="20250101")
    assert row.priority is Priority.ROUTINE
    assert node.notified == []


def test_an_older_film_that_comes_after_the_newer_one_is_known(node: Node) -> None:
    node.film("1.1", NOON)
    node.film("1.2", NOON + timedelta(hours=1), study_date=(NOON - DAY).strftime("%Y%m%d"))
    assert node.notified == [1]


def test_an_image_after_the_report_is_on_the_list_and_notifies_nobody(node: Node, engine: Engine) -> None:
    node.film("1.1", NOON, study_date="")
    node.database.write(study_status.report, 1, NOON + timedelta(hours=1), actor="ann", cause="marked as reported")
    late = NOON + timedelta(hours=2)
    row = node.film("1.1", late, study_date="")
    assert [one.study_id for one in Worklist(node.database.engine).page()] == [1]
    assert (row.priority, row.due_at) == (Priority.URGENT, late + timedelta(minutes=RULES.urgent_minutes))
    assert node.notified == [1], "only the one before the report"
