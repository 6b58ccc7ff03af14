"""A notification is written with the triage that raises it, told once, claimed by one, and cancelled by the report."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Engine

from db import jobs, notifications, rejection_notes, study_status
from db.database import Database
from db.model_states import ModelState, set_model_state
from db.notifications import notification_key
from db.order_tables import NOTIFICATION_TRANSITIONS, NotificationState
from db.queries import study_details
from db.records import Outcome, RejectionNote
from db.study_rules import NotificationRules
from tests.commands import record_instance, record_triage
from tests.db.examples import CRITICAL, HOUR, MINUTE, NOW, PIPELINE, SECOND, finding, received, study_of
from tests.rules import rules_that_notify

BOTH = NotificationRules(("email", "webhook"))
NOTIFYING = replace(CRITICAL, notifications=(finding(),))


def worklist_with(engine: Engine, rules: NotificationRules = BOTH, **changes: Any) -> tuple[Database, int]:
    database = Database(engine, rules_that_notify(rules))
    find(database, **changes)
    return database, study_of(database)


def notification(engine: Engine, channel: str, rules: NotificationRules = BOTH) -> tuple[Database, int, int]:
    """A study for which somebody is to be notified: the database, the study, and the notification that waits."""
    database, study = worklist_with(engine, rules)
    record_triage(database, study, NOTIFYING, NOW)
    (waiting,) = database.read(notifications.waiting, channel, NOW)
    return database, study, waiting


def find(database: Database, number: int = 1, **changes: Any) -> None:
    """Do what listener and worker do with an image that shows two findings."""
    (job,) = record_instance(database, received(number, **changes), None, PIPELINE, NOW).job_ids
    database.write(jobs.claim, job, "w1", NOW, MINUTE)
    database.write(jobs.finish, job, "w1", Outcome(findings=(finding(), finding("tension"))), NOW)


def notified(database: Database, study: int) -> list[tuple[str, str]]:
    return [(one.channel, one.reason) for one in database.read(notifications.of_study, study)]


def test_a_critical_finding_is_told_by_every_channel_once(engine: Engine) -> None:
    database, study = worklist_with(engine)
    record_triage(database, study, NOTIFYING, NOW)
    record_triage(database, study, replace(NOTIFYING, reason="pneumothorax 95 %"), NOW + MINUTE)
    assert notified(database, study) == [("email", "pneumothorax"), ("webhook", "pneumothorax")]
    events = [
        event for event in database.read(study_details.study_detail, study).events if event.entity == "notification"
    ]
    assert [event.to_state for event in events] == ["pending", "pending"]


def test_another_finding_is_told_too(engine: Engine) -> None:
    database, study = worklist_with(engine, NotificationRules(("webhook",)))
    record_triage(database, study, NOTIFYING, NOW)
    second = replace(NOTIFYING, notifications=(finding(), finding("tension", probability=None)))
    record_triage(database, study, second, NOW)
    assert notified(database, study) == [("webhook", "pneumothorax"), ("webhook", "tension")]


def test_a_finding_on_two_images_is_one_notification_with_the_first_probability(engine: Engine) -> None:
    database, study = worklist_with(engine, NotificationRules(("webhook",)))
    record_triage(
        database, study, replace(NOTIFYING, notifications=(finding(probability=0.9), finding(probability=0.6))), NOW
    )
    (waiting,) = database.read(notifications.waiting, "webhook", NOW)
    claimed = database.write(notifications.claim, waiting, "w", NOW, MINUTE)
    assert claimed is not None
    assert claimed.probability == 0.9


def test_without_a_channel_nothing_is_written(engine: Engine) -> None:
    database, study = worklist_with(engine, NotificationRules())
    record_triage(database, study, NOTIFYING, NOW)
    assert notified(database, study) == []


def test_what_the_hospital_made_critical_itself_notifies_nobody(engine: Engine) -> None:
    database, study = worklist_with(engine)
    record_triage(database, study, replace(NOTIFYING, notifications=()), NOW)
    assert notified(database, study) == []


def test_a_reported_study_notifies_nobody(engine: Engine) -> None:
    database, study = worklist_with(engine)
    database.write(study_status.report, study, NOW, actor="ann", cause="read")
    record_triage(database, study, NOTIFYING, NOW)
    assert notified(database, study) == []


@pytest.mark.parametrize(
    ("date", "time", "notifies"),
    [
        ("20260301", "025500", True),
        ("20260228", "", True),
        ("20260227", "130000", True),
        ("20260227", "090000", False),
        ("20190401", "", False),
        ("", "", True),
        ("yesterday", "noon", True),
        ("20260301", "2500", True),
    ],
)
def test_a_study_that_was_taken_long_ago_notifies_nobody(engine: Engine, date: str, time: str, notifies: bool) -> None:
    database, study = worklist_with(engine, study_date=date, study_time=time)
    record_triage(database, study, NOTIFYING, NOW)
    assert bool(notified(database, study)) is notifies


def test_a_study_that_is_run_again_after_days_notifies_nobody(engine: Engine) -> None:
    database, study = worklist_with(engine)
    record_triage(database, study, NOTIFYING, NOW + 25 * HOUR)
    assert notified(database, study) == []


def test_the_history_says_once_why_nobody_was_notified(engine: Engine) -> None:
    database, study = worklist_with(engine, study_date="20190401")
    for _ in range(2):
        record_triage(database, study, NOTIFYING, NOW)
    causes = [
        one.cause for one in database.read(study_details.study_detail, study).events if one.to_state == "not_made"
    ]
    assert causes == ["pneumothorax notifies nobody: the study was taken more than 24 hours before it came"]


def test_an_image_that_is_taken_back_takes_its_notification_along(engine: Engine) -> None:
    database, study, waiting = notification(engine, "email", NotificationRules(("email",)))
    note = RejectionNote("1.2.3", "113001", "bad quality", (received().sop_instance_uid,))
    database.write(rejection_notes.reject, note, NOW)
    assert database.write(notifications.claim, waiting, "w", NOW, MINUTE) is None
    assert [one.state for one in database.read(notifications.of_study, study)] == [NotificationState.WITHDRAWN]
    find(database, number=2)
    record_triage(database, study, NOTIFYING, NOW)
    assert database.write(notifications.claim, waiting, "w", NOW, MINUTE) is not None, "the next image shows it too"
    assert database.write(notifications.sent, waiting, "w", NOW)
    record_triage(database, study, NOTIFYING, NOW)
    assert database.read(notifications.waiting, "email", NOW) == ()


def test_of_two_senders_one_gets_it(engine: Engine) -> None:
    database, _study, waiting = notification(engine, "webhook")
    claimed = database.write(notifications.claim, waiting, "one", NOW, MINUTE)
    assert claimed is not None
    assert (claimed.reason, claimed.attempts, claimed.patient_id) == ("pneumothorax", 1, "P1")
    assert claimed.key == notification_key("1.2.826.0.2.1", "webhook", "pneumothorax")
    assert database.write(notifications.claim, waiting, "two", NOW, MINUTE) is None
    assert not database.write(notifications.sent, waiting, "two", NOW)
    assert database.read(notifications.waiting, "webhook", NOW) == ()
    assert database.write(notifications.sent, waiting, "one", NOW)
    assert database.write(notifications.claim, waiting, "one", NOW + HOUR, MINUTE) is None
    assert database.read(notifications.counts, "webhook") == {"sent": 1}


def test_a_lease_that_is_over_frees_a_claim(engine: Engine) -> None:
    database, _study, waiting = notification(engine, "email")
    assert database.write(notifications.claim, waiting, "dead", NOW, MINUTE) is not None
    later = NOW + MINUTE
    assert database.read(notifications.waiting, "email", later) == (waiting,)
    again = database.write(notifications.claim, waiting, "alive", later, MINUTE)
    assert again is not None
    assert again.attempts == 2
    assert not database.write(notifications.sent, waiting, "dead", later)


def test_what_a_dead_sender_had_claimed_is_free_at_once(engine: Engine) -> None:
    database, _study, waiting = notification(engine, "email")
    database.write(notifications.claim, waiting, "notify-email@here#1", NOW, MINUTE)
    assert database.write(notifications.release, "notify-email@there#", NOW) == 0
    assert database.write(notifications.release, "notify-email@here#", NOW) == 1
    assert database.read(notifications.waiting, "email", NOW) == (waiting,)


def test_another_attempt_comes_when_it_is_due(engine: Engine) -> None:
    database, study, waiting = notification(engine, "email")
    database.write(notifications.claim, waiting, "w", NOW, MINUTE)
    assert database.write(notifications.retry, waiting, "w", "no answer", NOW, 5 * SECOND)
    assert database.read(notifications.waiting, "email", NOW + 4 * SECOND) == ()
    assert database.write(notifications.claim, waiting, "w", NOW + 4 * SECOND, MINUTE) is None
    assert database.read(notifications.waiting, "email", NOW + 5 * SECOND) == (waiting,)
    database.write(notifications.claim, waiting, "w", NOW + 5 * SECOND, MINUTE)
    assert database.write(notifications.fail, waiting, "w", "never", NOW)
    (email, _) = database.read(notifications.of_study, study)
    assert (email.state, email.error, email.attempts) == (NotificationState.FAILED, "never", 2)


def test_a_report_withdraws_what_waits_and_stops_what_would_be_tried_again(engine: Engine) -> None:
    database, study, leaving = notification(engine, "email")
    database.write(notifications.claim, leaving, "w", NOW, MINUTE)
    database.write(study_status.report, study, NOW, actor="ann", cause="read")
    states = {one.channel: one.state for one in database.read(notifications.of_study, study)}
    assert states == {"email": NotificationState.SENDING, "webhook": NotificationState.WITHDRAWN}
    assert database.write(notifications.retry, leaving, "w", "no answer", NOW, SECOND)
    assert {one.state for one in database.read(notifications.of_study, study)} == {NotificationState.WITHDRAWN}


def test_what_dies_on_its_way_is_withdrawn_where_the_study_is_reported_by_then(engine: Engine) -> None:
    database, study, leaving = notification(engine, "email", NotificationRules(("email",)))
    database.write(notifications.claim, leaving, "w", NOW, MINUTE)
    database.write(study_status.report, study, NOW, actor="ann", cause="read")
    assert database.write(notifications.claim, leaving, "v", NOW + HOUR, timedelta(minutes=1)) is None
    assert [one.state for one in database.read(notifications.of_study, study)] == [NotificationState.WITHDRAWN]


def test_the_history_follows_the_table_of_transitions(engine: Engine) -> None:
    database, study, waiting = notification(engine, "email", NotificationRules(("email",)))
    database.write(notifications.claim, waiting, "dead", NOW, MINUTE)
    database.write(notifications.claim, waiting, "w", NOW + HOUR, MINUTE)
    database.write(notifications.retry, waiting, "w", "no answer", NOW + HOUR, SECOND)
    database.write(notifications.claim, waiting, "w", NOW + 2 * HOUR, MINUTE)
    database.write(notifications.sent, waiting, "w", NOW + 2 * HOUR)
    steps = [e for e in database.read(study_details.study_detail, study).events if e.entity == "notification"]
    for before, step in pairwise(steps):
        assert step.from_state == before.to_state
        assert NotificationState(step.to_state) in NOTIFICATION_TRANSITIONS[NotificationState(step.from_state)]
    assert steps[-1].to_state == "sent"


def test_a_report_that_is_taken_back_restores_what_it_withdrew(engine: Engine) -> None:
    database, study, failed_one = notification(engine, "email")
    assert database.write(notifications.claim, failed_one, "w", NOW, MINUTE) is not None
    assert database.write(notifications.fail, failed_one, "w", "no such address", NOW)
    before = database.read(notifications.of_study, study)
    database.write(study_status.report, study, NOW, actor="ann", cause="marked as reported")
    assert {one.state for one in database.read(notifications.of_study, study)} == {NotificationState.WITHDRAWN}
    database.write(study_status.undo_report, study, NOW, actor="ann", cause="marked as unreported")
    assert database.read(notifications.of_study, study) == before
    (waiting,) = database.read(notifications.waiting, "webhook", NOW)
    assert database.write(notifications.claim, waiting, "w", NOW, MINUTE) is not None


def test_what_was_on_its_way_while_the_study_was_reported_is_restored_too(engine: Engine) -> None:
    database, study, waiting = notification(engine, "email", NotificationRules(("email",)))
    assert database.write(notifications.claim, waiting, "w", NOW, MINUTE) is not None
    database.write(study_status.report, study, NOW, actor="ann", cause="marked as reported")
    assert database.write(notifications.retry, waiting, "w", "no answer", NOW, MINUTE)
    assert database.read(notifications.waiting, "email", NOW) == ()
    database.write(study_status.undo_report, study, NOW, actor="ann", cause="marked as unreported")
    assert database.read(notifications.waiting, "email", NOW) == (waiting,)


def test_what_was_withdrawn_for_another_reason_stays_withdrawn(engine: Engine) -> None:
    database, study, waiting = notification(engine, "email", NotificationRules(("email",)))
    note = RejectionNote("1.2.3", "113001", "bad quality", (received().sop_instance_uid,))
    database.write(rejection_notes.reject, note, NOW)
    assert database.write(notifications.claim, waiting, "w", NOW, MINUTE) is None
    database.write(study_status.report, study, NOW, actor="ann", cause="marked as reported")
    database.write(study_status.undo_report, study, NOW, actor="ann", cause="marked as unreported")
    assert [one.state for one in database.read(notifications.of_study, study)] == [NotificationState.WITHDRAWN]


def test_a_model_that_was_switched_off_in_the_meantime_notifies_nobody(engine: Engine) -> None:
    database, study = worklist_with(engine)
    record_triage(database, study, NOTIFYING, NOW)
    database.write(study_status.report, study, NOW, actor="ann", cause="marked as reported")
    set_model_state(engine, "chest-classifier", ModelState.OFF, actor="ann", reason="it is wrong", now=NOW)
    database.write(study_status.undo_report, study, NOW, actor="ann", cause="marked as unreported")
    assert {one.state for one in database.read(notifications.of_study, study)} == {NotificationState.WITHDRAWN}


def test_what_was_sent_before_the_report_is_not_sent_again(engine: Engine) -> None:
    database, study, waiting = notification(engine, "email", NotificationRules(("email",)))
    assert database.write(notifications.claim, waiting, "w", NOW, MINUTE) is not None
    assert database.write(notifications.sent, waiting, "w", NOW)
    database.write(study_status.report, study, NOW, actor="ann", cause="marked as reported")
    database.write(study_status.undo_report, study, NOW, actor="ann", cause="marked as unreported")
    assert [one.state for one in database.read(notifications.of_study, study)] == [NotificationState.SENT]
