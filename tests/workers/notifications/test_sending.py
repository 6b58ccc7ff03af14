"""What the sender does with an answer: note it, try again later, or fail it; without a word of the message."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from config.notifications import Notifications as Rules
from config.settings import Settings, Workers
from db import notifications, study_status
from db.database import Database
from db.engine import connect
from db.notifications import Notification
from db.order_tables import NotificationState
from db.orders import HospitalMessage
from db.patients import PatientIdentifier, PatientUpdate
from db.records import TriageDecision
from db.states import Analysis, Priority
from db.study_rules import NotificationRules
from tests.commands import receive_message, record_triage
from tests.db.examples import MINUTE, NOW, finding, finished, study_of
from tests.migrated import migrate
from tests.rules import rules_that_notify
from tests.workers.builders import FakeClock
from workers.notifications.channel import NotSentError, PartlySentError
from workers.notifications.sending import Sender

CRITICAL = TriageDecision(Priority.CRITICAL, NOW, Analysis.ANALYSED, "pneumothorax", (finding(),))


@dataclass
class FakeChannel:
    """Remembers what it was given, and does what a test says."""

    act: Callable[[], None]
    notified: list[Notification]

    def send(self, notification: Notification, settings: Settings, now: datetime) -> None:
        self.notified.append(notification)
        self.act()

    def verify(self, settings: Settings) -> str:
        return "here"


class Desk:
    """A sender of one channel on a real database, with a clock that a test moves."""

    def __init__(self, folder: Path, attempts: int = 3) -> None:
        engine = connect(f"sqlite:///{folder}/test.sqlite")
        migrate(engine)
        self.database = Database(engine, rules_that_notify(NotificationRules(("webhook",))))
        self.channel = FakeChannel(lambda: None, [])
        self.clock = FakeClock(NOW)
        settings = Settings(notifications=Rules(attempts=attempts), workers=Workers(backoff_seconds=10))
        self.sender = Sender("webhook", self.channel, settings, self.database, self.clock, "w")

    def notification(self, study: int = 1) -> int:
        finished(self.database, study=study)
        record_triage(self.database, study_of(self.database, study), CRITICAL, NOW)
        return study_of(self.database, study)

    def state(self, study: int) -> tuple[NotificationState, int, str]:
        (one,) = self.database.read(notifications.of_study, study)
        return one.state, one.attempts, one.error


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def no_answer(*_: object) -> bool:
    raise OperationalError("UPDATE", None, Exception("the database has not answered"))


def refuse() -> None:
    raise NotSentError("status 503")


def test_all_that_waits_is_sent_once(desk: Desk) -> None:
    studies = [desk.notification(study) for study in (1, 2)]
    desk.sender.once()
    desk.sender.once()
    assert [one.study_id for one in desk.channel.notified] == studies
    assert {desk.state(study)[0] for study in studies} == {NotificationState.SENT}


def test_pauses_grow_and_the_last_attempt_fails(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    study = desk.notification()
    desk.channel.act = refuse
    desk.sender.once()
    assert desk.state(study) == (NotificationState.PENDING, 1, "status 503")
    for seconds, attempts in ((9, 1), (1, 2), (19, 2), (1, 3)):
        desk.clock.pass_by(seconds=seconds)
        desk.sender.once()
        assert desk.state(study)[1] == attempts
    assert desk.state(study) == (NotificationState.FAILED, 3, "status 503")
    desk.clock.pass_by(days=1)
    desk.sender.once()
    assert len(desk.channel.notified) == 3
    assert {one.key for one in desk.channel.notified} == {desk.channel.notified[0].key}
    assert "failed" in caplog.text


def test_who_has_taken_it_is_remembered_and_the_others_are_told_again(desk: Desk) -> None:
    first, second = desk.notification(1), desk.notification(2)

    def refuse_some() -> None:
        if desk.channel.notified[-1].study_id == first:
            raise PartlySentError("not for recipient 2", ["a@north.example"])

    desk.channel.act = refuse_some
    desk.sender.once()
    assert desk.state(first) == (NotificationState.PENDING, 1, "not for recipient 2")
    assert desk.state(second)[0] is NotificationState.SENT, "a server that answers takes the next one"
    desk.clock.pass_by(seconds=11)
    desk.channel.act = lambda: None
    desk.sender.once()
    assert desk.channel.notified[-1].taken_by == ("a@north.example",)
    assert desk.state(first)[0] is NotificationState.SENT


def test_what_was_sent_while_the_database_did_not_answer_is_recorded_later_and_not_sent_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = desk.notification()
    with monkeypatch.context() as patched:
        patched.setattr(notifications, "sent", no_answer)
        for _ in range(2):
            with pytest.raises(OperationalError):
                desk.sender.once()
            desk.clock.pass_by(days=1)  # its lease is long over
    desk.sender.once()
    assert desk.state(study)[0] is NotificationState.SENT
    assert len(desk.channel.notified) == 1


def test_a_receiver_that_is_down_is_asked_once_a_round(desk: Desk) -> None:
    for study in (1, 2, 3):
        desk.notification(study)
    desk.channel.act = refuse
    desk.sender.once()
    assert len(desk.channel.notified) == 1
    desk.channel.act = lambda: None
    desk.sender.once()
    assert len(desk.channel.notified) == 3


def test_a_study_that_is_reported_while_its_notification_waits_is_not_told(desk: Desk) -> None:
    study = desk.notification()
    desk.channel.act = refuse
    desk.sender.once()
    desk.database.write(study_status.report, study, NOW, actor="ann", cause="read")
    desk.channel.act = lambda: None
    desk.clock.pass_by(minutes=5)
    desk.sender.once()
    assert len(desk.channel.notified) == 1
    assert desk.state(study)[0] is NotificationState.WITHDRAWN


def test_a_defect_is_tried_again_and_quotes_nothing(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    study = desk.notification()

    def defect() -> None:
        raise KeyError("Doe^Jane")

    desk.channel.act = defect
    with caplog.at_level(logging.DEBUG):
        desk.sender.once()
    assert desk.state(study) == (NotificationState.PENDING, 1, "KeyError in this node")
    assert "Doe" not in caplog.text


def test_a_claim_that_was_lost_meanwhile_changes_nothing(desk: Desk) -> None:
    study = desk.notification()

    def dawdle() -> None:
        (waiting,) = desk.database.read(notifications.waiting, "webhook", NOW + timedelta(days=1))
        assert desk.database.write(notifications.claim, waiting, "other", NOW + timedelta(days=1), MINUTE) is not None

    desk.channel.act = dawdle
    desk.sender.once()
    assert desk.state(study)[:2] == (NotificationState.SENDING, 2)


def test_the_study_is_told_as_it_is_now(desk: Desk) -> None:
    desk.notification()
    desk.channel.act = refuse
    desk.sender.once()
    news = PatientUpdate((PatientIdentifier("P1"),), name="Roe^Jane")
    receive_message(desk.database, HospitalMessage("A", "1", "d", "ADT^A08", patients=(news,)), NOW)
    desk.clock.pass_by(minutes=1)
    desk.sender.once()
    assert [one.patient_name for one in desk.channel.notified] == ["Doe^Jane", "Roe^Jane"]
    assert desk.channel.notified[1] == replace(desk.channel.notified[1], key=desk.channel.notified[0].key)
