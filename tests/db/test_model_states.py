"""A person switches a model: the state, its history, and what has not left yet; on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from config.triage import Triage
from db import deliveries, jobs, model_states, notifications, studies
from db.audit import AuditTrail
from db.database import Database
from db.model_states import AS_CONFIGURED, ModelState, Switched, latest_switches, model_history, set_model_state
from db.order_tables import NotificationState
from db.queries import study_details
from db.records import FindingRecord
from db.shown_records import DeliveryDetail
from db.states import DeliveryState
from db.study_rules import NotificationRules
from tests.commands import record_triage, study_facts
from tests.db.examples import HOUR, MINUTE, NOW, TO_PACS, claim, finding, finished, outcome, record, result, study_of
from tests.rules import rules_that_notify
from workers.triage import decide

MODEL = "chest-classifier"
PENDING, ON_HOLD, SENDING = DeliveryState.PENDING, DeliveryState.ON_HOLD, DeliveryState.SENDING


def switch(engine: Engine, state: ModelState, name: str = MODEL) -> Switched:
    return set_model_state(engine, name, state, actor="ada", reason="notifications on every  rib", now=NOW)


def deliveries_of(database: Database, study: int = 1) -> tuple[DeliveryDetail, ...]:
    return database.read(study_details.study_detail, study_of(database, study)).deliveries


def done_with(database: Database, *findings: FindingRecord, study: int = 1) -> tuple[int, ...]:
    job_id = record(database, study=study)
    claim(database, job_id)
    made = database.write(jobs.finish, job_id, "w1", replace(outcome(1000 * study), findings=findings), NOW)
    assert made is not None
    return made


def test_the_latest_decision_counts_and_every_one_is_kept(engine: Engine, database: Database) -> None:
    assert database.read(model_states.current_states) == {}
    switch(engine, ModelState.OFF)
    switch(engine, ModelState.SHADOW, "another")
    switch(engine, ModelState.SHADOW)
    assert database.read(model_states.current_states) == {MODEL: ModelState.SHADOW, "another": ModelState.SHADOW}
    latest, first = model_history(engine, MODEL)
    assert (first.before, first.state, first.reason) == (AS_CONFIGURED, ModelState.OFF, "notifications on every rib")
    assert (latest.before, latest.state, latest.actor, latest.at) == ("off", ModelState.SHADOW, "ada", NOW)
    assert latest_switches(engine)[MODEL] == latest


def test_a_switch_is_audited_and_the_same_again_is_nothing(engine: Engine) -> None:
    assert switch(engine, ModelState.OFF).changed
    assert not switch(engine, ModelState.OFF).changed
    (entry,) = AuditTrail(engine).entries()
    assert (entry.actor, entry.action, entry.subject) == ("ada", "switch model", MODEL)
    assert "as configured to off: notifications" in entry.detail
    assert len(model_history(engine, MODEL)) == 1


@pytest.mark.parametrize("state", [ModelState.OFF, ModelState.SHADOW])
def test_what_has_not_left_is_on_hold_with_a_reason(engine: Engine, database: Database, state: ModelState) -> None:
    finished(database)
    assert switch(engine, state).on_hold == 2
    for one in deliveries_of(database):
        assert one.state is ON_HOLD
        assert f"the model {MODEL} was" in one.error
        assert "by ada" in one.error
    detail = database.read(study_details.study_detail, study_of(database))
    assert [(event.to_state, event.actor) for event in detail.events][-2:] == [("on_hold", "ada")] * 2


def test_what_another_model_said_goes_on(engine: Engine, database: Database) -> None:
    done_with(database, finding(model="another"), finding(shadow=True))
    assert switch(engine, ModelState.OFF) == Switched(changed=True, on_hold=0)
    assert {one.state for one in deliveries_of(database)} == {PENDING}


def test_activating_holds_nothing_and_releases_nothing(engine: Engine, database: Database) -> None:
    made = done_with(database, finding())
    assert switch(engine, ModelState.ACTIVE).on_hold == 0
    switch(engine, ModelState.OFF)
    switch(engine, ModelState.ACTIVE)
    assert {one.state for one in deliveries_of(database)} == {ON_HOLD}
    database.write(deliveries.requeue, made[0], "ada", "still wanted", NOW)
    assert database.write(deliveries.claim, made[0], "w2", NOW, MINUTE) is not None


def test_a_switch_between_the_task_queue_and_the_claim_is_noticed(engine: Engine, database: Database) -> None:
    made = done_with(database, finding())
    switch(engine, ModelState.OFF)
    for one in made:
        database.write(deliveries.requeue, one, "ada", "try", NOW)  # as a person might, while the model is off
    assert database.write(deliveries.claim, made[0], "w2", NOW, MINUTE) is None
    assert database.write(deliveries.claim_group, "pacs", 1, study_of(database), "w2", NOW, MINUTE) == ()
    assert {one.state for one in deliveries_of(database)} == {ON_HOLD}


def test_what_was_being_sent_is_on_hold_before_its_next_attempt(engine: Engine, database: Database) -> None:
    made = done_with(database, finding())
    assert database.write(deliveries.claim, made[0], "w2", NOW, MINUTE) is not None
    assert switch(engine, ModelState.OFF).on_hold == 1
    assert {one.state for one in deliveries_of(database)} == {SENDING, ON_HOLD}
    assert database.write(deliveries.claim, made[0], "w3", NOW + HOUR, MINUTE) is None
    assert {one.state for one in deliveries_of(database)} == {ON_HOLD}


def test_a_summary_is_on_hold_with_its_study_s_findings(engine: Engine, database: Database) -> None:
    finished(database)
    finished(database, study=2)
    study = study_of(database)
    made = database.write(studies.complete, study, (result("summary", 5000),), TO_PACS, NOW)
    assert made is not None
    assert len(made) == 1
    assert switch(engine, ModelState.OFF).on_hold == 5
    assert {one.state for one in deliveries_of(database)} == {ON_HOLD}


def test_a_new_revision_without_the_model_is_sent(engine: Engine, database: Database) -> None:
    job_id, _ = finished(database)
    switch(engine, ModelState.OFF)
    database.write(jobs.requeue, job_id, "ada", "again without it", NOW)
    claim(database, job_id)
    again = replace(outcome(7000), findings=(finding(shadow=True), finding(model="another")), modes={MODEL: "off"})
    made = database.write(jobs.finish, job_id, "w1", again, NOW)
    assert made is not None
    assert database.write(deliveries.claim, made[0], "w2", NOW, MINUTE) is not None
    assert database.read(study_details.study_detail, study_of(database)).jobs[0].modes == {MODEL: "off"}


def test_notifies_that_have_not_left_are_withdrawn_with_their_model(engine: Engine) -> None:
    database = Database(engine, rules_that_notify(NotificationRules(("mail",))))
    for study, models in ((1, (MODEL,)), (2, (MODEL, "another")), (3, ("another",))):
        done_with(database, *(finding(model=model) for model in models), study=study)
        facts = study_facts(database, study_of(database, study))
        decision = decide(facts, Triage(), NOW)
        record_triage(database, facts.study_id, decision, NOW)
    assert len(database.read(notifications.waiting, "mail", NOW)) == 3
    assert switch(engine, ModelState.OFF).cancelled == 1
    assert len(database.read(notifications.waiting, "mail", NOW)) == 2
    (notification,) = database.read(notifications.of_study, study_of(database, 1))
    assert notification.state is NotificationState.WITHDRAWN
    assert "switched off by ada" in database.read(study_details.study_detail, study_of(database, 1)).events[-1].cause
    assert switch(engine, ModelState.OFF, "another").cancelled == 2
