"""An HL7-reported study leaves the list and cancels its notification; and a notification gets out once, whatever dies.

Real processes: ``pleura hl7`` takes the hospital's messages, ``pleura scheduler`` sends the notifications to a real
web server.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.settings import load
from db import jobs, notifications
from db.database import Database
from db.engine import connect
from db.order_tables import NotificationState
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import Outcome
from db.states import Priority
from tests.commands import record_instance
from tests.db.examples import PIPELINE, finding, received
from tests.migrated import migrate
from tests.node.hl7.messages import Sender, correction, order, report
from tests.node.hl7.process import Process, write_config
from tests.orthanc import wait_until
from tests.workers.notifications.receivers import Request, Web, web
from workers.open_database import triage_study


@pytest.fixture
def receiver() -> Iterator[Web]:
    with web() as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, receiver: Web) -> Path:
    webhook = {
        "enabled": True,
        "url": f"http://127.0.0.1:{receiver.port}/",
        "secret": "secret",
        "timeout_seconds": 60,
    }
    workers = {"scheduler_interval_seconds": 0.1, "backoff_seconds": 0.2, "maximum_backoff_seconds": 0.2}
    path = write_config(tmp_path, {"notifications": {"webhook": webhook, "attempts": 100000}, "workers": workers})
    migrate(connect(load(path).database_url))
    return path


def analyse(config: Path, study: int = 1) -> int:
    """Do what listener and worker do with an image that shows a pneumothorax."""
    settings = load(config)
    database: Database = Process(config, "scheduler").database
    now = datetime.now(UTC)
    (job,) = record_instance(database, received(study=study), None, PIPELINE, now).job_ids
    claimed = database.write(jobs.claim, job, "w", now, timedelta(minutes=1))
    assert claimed is not None
    database.write(jobs.finish, job, "w", Outcome(findings=(finding(),)), now)
    triage_study(claimed.study_id, database, settings.triage, now)
    return claimed.study_id


def states(config: Path, study: int) -> list[NotificationState]:
    return [one.state for one in Process(config, "scheduler").database.read(notifications.of_study, study)]


def await_state(config: Path, study: int, state: NotificationState, part: Process) -> None:
    wait_until(lambda: states(config, study) == [state], f"a notification {state}", seconds=120, alive=part.check_alive)


def test_an_hl7_reported_study_leaves_the_list_and_cancels_its_notification(config: Path, receiver: Web) -> None:
    receiver.status = 503
    with Process(config, "hl7") as hl7, Process(config, "scheduler") as scheduler:
        ris = Sender(hl7.port)
        assert ris.send(order()).code == "AA"
        reported = analyse(config)
        row = hl7.database.read(study_details.study_detail, reported).row
        assert row.priority is Priority.CRITICAL
        wait_until(lambda: receiver.requests, "an attempt to tell", seconds=120, alive=scheduler.check_alive)
        assert ris.send(report(status="P")).code == "AA"
        assert [one.study_id for one in Worklist(hl7.database.engine).page()] == [reported], (
            "a preliminary report changes nothing"
        )

        assert ris.send(report("M9")).code == "AA"

        assert Worklist(hl7.database.engine).page() == ()
        await_state(config, reported, NotificationState.WITHDRAWN, scheduler)
        receiver.status = 200
        attempts = len(receiver.requests)
        # A notification that nobody has reported gets through meanwhile: the sender is alive, and the receiver takes.
        other = analyse(config, study=2)
        await_state(config, other, NotificationState.SENT, scheduler)
        assert len(receiver.requests) == attempts + 1
        assert b"A-2" in receiver.requests[-1].body
        # Nothing notifications after that: neither another analysis nor a corrected name brings it back.
        triage_study(reported, hl7.database, load(config).triage, datetime.now(UTC))
        assert ris.send(correction()).code == "AA"
        assert states(config, reported) == [NotificationState.WITHDRAWN]
        assert scheduler.end(signal.SIGTERM) == 0
        assert hl7.end(signal.SIGTERM) == 0
    logs = hl7.log.read_text() + scheduler.log.read_text()
    assert not any(secret in logs for secret in ("Doe", "Roe", "A-1", "A-2", "1.2.826"))


def test_kill_9_between_telling_and_writing_it_down_is_recognised_by_the_receiver(config: Path, receiver: Web) -> None:
    scheduler = Process(config, "scheduler")

    def kill(_: Request) -> None:
        if len(receiver.requests) == 1:
            assert scheduler.process is not None
            os.kill(scheduler.process.pid, signal.SIGKILL)

    receiver.before = kill
    study = analyse(config)
    with scheduler:
        assert scheduler.process is not None
        assert scheduler.process.wait(120) == -signal.SIGKILL
        assert states(config, study) == [NotificationState.SENDING]
        scheduler.start()
        await_state(config, study, NotificationState.SENT, scheduler)
    keys: list[Any] = [request.headers["webhook-id"] for request in receiver.requests]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert receiver.requests[0].body == receiver.requests[1].body


def test_a_notification_waits_for_a_sender_that_was_not_there(config: Path, receiver: Web) -> None:
    study = analyse(config)
    assert states(config, study) == [NotificationState.PENDING]
    with Process(config, "scheduler") as scheduler:
        await_state(config, study, NotificationState.SENT, scheduler)
    assert len(receiver.requests) == 1
