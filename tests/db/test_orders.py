"""What a hospital says of orders, reports and patients: before and after the images come, once and again."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from db import deliveries, holds, instances, jobs, notifications, orders, study_status
from db.database import Database
from db.engine import writing
from db.orders import CANCELLED, HospitalMessage, MessageResult, OrderKeys, OrderUpdate, OtherPatientError
from db.patients import PatientIdentifier, PatientUpdate
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import TriageDecision
from db.states import DeliveryState, JobState, Priority
from db.study_rules import NotificationRules
from tests.commands import receive_message, record_triage, study_facts
from tests.db.examples import HOUR, NOW, PIPELINE, finding, finished, outcome, received, record, study_of
from tests.db.examples import claim as claim_job
from tests.rules import NO_RULES, rules_that_notify

JANE = (PatientIdentifier("P1"),)


def message(number: int, *orders: OrderUpdate, patient: PatientUpdate | None = None) -> HospitalMessage:
    patients = (patient,) if patient else ()
    return HospitalMessage("RIS|HOSPITAL", f"M{number}", f"{number:064x}", "ORM^O01", orders, patients)


def order(accession: str = "A-1", **changes: Any) -> OrderUpdate:
    news = OrderUpdate(OrderKeys(accession_number=accession), JANE)
    return replace(news, **changes)


STAT: dict[str, Any] = {"priority": Priority.URGENT, "says_priority": True}


def test_a_stat_order_sets_the_priority_of_a_study_that_is_here(database: Database) -> None:
    record(database)
    result = receive_message(database, message(1, order(**STAT)), NOW)
    study = study_of(database)
    assert result == MessageResult(study_ids=(study,))
    assert study_facts(database, study).hospital_priority is Priority.URGENT


def test_a_stat_order_waits_for_its_study(database: Database) -> None:
    assert receive_message(database, message(1, order(**STAT)), NOW).remembered == 1
    record(database, study=2)
    assert study_facts(database, study_of(database, 2)).hospital_priority is None
    record(database)
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.row.priority is Priority.URGENT
    assert detail.row.due_at == NOW + HOUR
    assert detail.jobs[0].stat
    assert study_facts(database, detail.row.study_id).hospital_priority is Priority.URGENT
    assert ("order", "ordered") in [(event.entity, event.to_state) for event in detail.events]


def test_an_order_is_found_by_the_study_uid_too(database: Database) -> None:
    keys = OrderKeys(study_instance_uid="1.2.826.0.2.1")
    receive_message(database, message(1, OrderUpdate(keys, JANE, **STAT)), NOW)
    record(database, accession_number="")
    assert study_facts(database, study_of(database)).hospital_priority is Priority.URGENT


def test_a_report_is_linked_by_the_order_number_alone(database: Database, engine: Engine) -> None:
    record(database)
    known = OrderKeys(accession_number="A-1", filler_order_number="F7")
    receive_message(database, message(1, OrderUpdate(known, JANE)), NOW)
    report = OrderUpdate(OrderKeys(filler_order_number="F7"), JANE, reported=True)
    receive_message(database, message(2, report), NOW)
    assert study_facts(database, study_of(database)).reported
    assert Worklist(database.engine).page() == ()


def test_a_report_that_is_ahead_of_its_study_takes_it_off_the_list(database: Database) -> None:
    receive_message(database, message(1, order(reported=True)), NOW)
    record(database)
    record(database, number=2)
    assert study_facts(database, study_of(database)).reported, "all of its images were there when it was written"


def test_two_orders_of_one_accession_number_stay_apart(database: Database) -> None:
    record(database)
    first = OrderKeys(accession_number="A-1", filler_order_number="F1")
    second = OrderKeys(accession_number="A-1", filler_order_number="F2")
    receive_message(database, message(1, OrderUpdate(first, JANE, **STAT)), NOW)
    receive_message(database, message(2, OrderUpdate(second, JANE, says_priority=True)), NOW)
    study = study_of(database)
    assert study_facts(database, study).hospital_priority is Priority.URGENT
    receive_message(database, message(3, OrderUpdate(first, JANE, status=CANCELLED)), NOW)
    assert study_facts(database, study).hospital_priority is None
    assert [row.study_id for row in Worklist(database.engine).page()] == [study], (
        "images that are here must be read all the same"
    )


def test_an_order_never_lowers_what_a_person_has_set(database: Database, engine: Engine) -> None:
    record(database)
    study = study_of(database)
    database.write(study_status.set_priority, study, Priority.CRITICAL, NOW, actor="ann", cause="by hand")
    receive_message(database, message(1, order(**STAT)), NOW)
    receive_message(database, message(2, order(says_priority=True)), NOW)
    assert study_facts(database, study).hospital_priority is Priority.CRITICAL


def test_the_same_message_again_changes_nothing(database: Database, engine: Engine) -> None:
    record(database)
    report = message(1, order(reported=True))
    receive_message(database, report, NOW)
    study = study_of(database)
    database.write(study_status.undo_report, study, NOW, actor="ann", cause="the report was of another study")
    before = database.read(study_details.study_detail, study)
    assert receive_message(database, report, NOW + HOUR) == MessageResult(repeat=True)
    assert database.read(study_details.study_detail, study) == before


def test_another_patient_under_the_same_accession_number_is_refused(database: Database) -> None:
    record(database)
    before = database.read(study_details.study_detail, study_of(database))
    stranger = message(1, order(patient=(PatientIdentifier("P9"),), reported=True))
    with pytest.raises(OtherPatientError):
        receive_message(database, stranger, NOW)
    assert database.read(study_details.study_detail, study_of(database)) == before
    with pytest.raises(OtherPatientError):
        receive_message(database, stranger, NOW)


def test_a_remembered_order_of_another_patient_does_not_touch_a_study(database: Database) -> None:
    receive_message(database, message(1, order(patient=(PatientIdentifier("P9"),), reported=True)), NOW)
    record(database)
    assert not study_facts(database, study_of(database)).reported


def corrected(**changes: Any) -> PatientUpdate:
    return replace(PatientUpdate(JANE), **changes)


def test_a_corrected_name_keeps_back_what_was_not_sent_and_marks_what_was(database: Database) -> None:
    _, (first, second) = finished(database)
    claim = database.write(deliveries.claim, first, "d1", NOW, HOUR)
    assert claim is not None
    database.write(deliveries.sent, first, "d1", NOW)
    running = record(database, number=2)
    receive_message(database, message(1, patient=corrected(name="Roe^Jane")), NOW)
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.row.patient_name == "Roe^Jane"
    assert detail.row.on_hold
    assert "corrected" in detail.row.hold_reason
    sent, on_hold = detail.deliveries
    assert sent.state is DeliveryState.SENT
    assert "must be corrected there" in sent.error
    assert on_hold.state is DeliveryState.ON_HOLD
    assert database.write(deliveries.claim, second, "d1", NOW, HOUR) is None
    assert database.read(deliveries.to_enqueue, NOW + HOUR, timedelta()) == ()
    assert detail.jobs[1].state is JobState.QUEUED, "the analysis goes on"
    patient = claim_job(database, running).patient
    assert database.write(jobs.finish, running, "w1", outcome(500, patient=patient), NOW) == ()
    database.write(holds.release, detail.row.study_id, "ann", NOW)
    detail = database.read(study_details.study_detail, detail.row.study_id)
    assert not detail.row.on_hold
    assert {one.state for one in detail.deliveries} == {DeliveryState.SENT, DeliveryState.PENDING}


def test_the_same_name_in_capitals_corrects_nothing(database: Database) -> None:
    finished(database)
    before = database.read(study_details.study_detail, study_of(database))
    assert receive_message(database, message(1, patient=corrected(name="DOE^JANE^^")), NOW).study_ids == ()
    assert database.read(study_details.study_detail, study_of(database)) == before


def test_what_was_empty_before_is_filled_in_and_keeps_nothing_back(database: Database) -> None:
    finished(database)
    receive_message(database, message(1, patient=corrected(birth_date="19700101")), NOW)
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.row.patient_birth_date == "19700101"
    assert not detail.row.on_hold
    assert {one.state for one in detail.deliveries} == {DeliveryState.PENDING}


def test_history_tells_what_was_corrected_and_no_name(database: Database) -> None:
    finished(database)
    receive_message(database, message(1, patient=corrected(name="Roe^Jane")), NOW)
    events = database.read(study_details.study_detail, study_of(database)).events
    assert ("corrected", "name") in [(event.to_state, event.cause) for event in events]
    assert not any("Roe" in event.cause or "Doe" in event.cause for event in events)


MERGE = PatientUpdate((PatientIdentifier("P7"),), prior=JANE)


def test_a_merge_moves_studies_and_later_images_under_the_old_identifier_are_no_conflict(database: Database) -> None:
    finished(database)
    receive_message(database, message(1, patient=MERGE), NOW)
    job = record(database, number=2)
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.row.patient_id == "P7"
    assert {one.flag for one in detail.instances} == {""}
    assert next(one for one in detail.jobs if one.id == job).state is JobState.QUEUED


def test_a_study_that_comes_after_the_merge_belongs_to_the_surviving_patient(database: Database) -> None:
    receive_message(database, message(1, patient=MERGE), NOW)
    finished(database)
    detail = database.read(study_details.study_detail, study_of(database))
    assert detail.row.patient_id == "P7"
    assert {one.state for one in detail.deliveries} == {DeliveryState.ON_HOLD}


def test_an_order_under_the_old_identifier_still_finds_its_study(database: Database) -> None:
    finished(database)
    receive_message(database, message(1, patient=MERGE), NOW)
    assert receive_message(database, message(2, order(reported=True)), NOW).study_ids


def test_a_merge_that_is_turned_round_ends_where_it_says(database: Database) -> None:
    finished(database)
    receive_message(database, message(1, patient=MERGE), NOW)
    back = PatientUpdate(JANE, prior=(PatientIdentifier("P7"),))
    receive_message(database, message(2, patient=back), NOW)
    assert database.read(study_details.study_detail, study_of(database)).row.patient_id == "P1"
    record(database, number=3)
    assert {one.flag for one in database.read(study_details.study_detail, study_of(database)).instances} == {""}


def test_issuers_keep_equal_numbers_of_two_hospitals_apart(database: Database) -> None:
    record(database, issuer_of_patient_id="NORTH")
    south = PatientUpdate((PatientIdentifier("P1", "SOUTH"),), name="Roe^Jane")
    assert receive_message(database, message(1, patient=south), NOW).study_ids == ()
    north = PatientUpdate((PatientIdentifier("P1", "NORTH"),), name="Roe^Jane")
    assert receive_message(database, message(2, patient=north), NOW).study_ids


def test_what_nobody_has_asked_for_is_forgotten(database: Database) -> None:
    receive_message(database, message(1, order("A-9", **STAT)), NOW)
    receive_message(database, message(2, order(**STAT)), NOW + HOUR)
    record(database, study=3, accession_number="A-9", patient_id="P1")
    receive_message(database, message(3, order("A-8")), NOW)
    database.write(orders.forget, NOW + HOUR)
    assert not receive_message(database, message(3, order("A-8", **STAT)), NOW + HOUR).repeat
    assert receive_message(database, message(2, order(**STAT)), NOW + HOUR).repeat
    record(database)
    assert study_facts(database, study_of(database)).hospital_priority is Priority.URGENT
    assert study_facts(database, study_of(database, 3)).hospital_priority is Priority.URGENT


@pytest.mark.parametrize("first", ["study", "order"])
def test_an_order_and_its_study_that_come_at_once_find_each_other(engine: Engine, first: str) -> None:
    """One transaction is open while the other begins: whichever ends first, the order must be applied."""
    database = Database(engine, NO_RULES)

    def take_study(connection: Connection) -> None:
        instances.record_instance(connection, received(), None, PIPELINE, NO_RULES.patients, NOW)

    def take_order(connection: Connection) -> None:
        orders.receive(connection, message(1, order(**STAT)), NO_RULES.patients, NOW)

    works = [take_study, take_order] if first == "study" else [take_order, take_study]
    open_now = threading.Event()

    def second() -> None:
        open_now.wait(60)
        with writing(engine).begin() as connection:
            works[1](connection)

    thread = threading.Thread(target=second)
    thread.start()
    with writing(engine).begin() as connection:
        works[0](connection)
        open_now.set()
        thread.join(0.5)
    thread.join(60)
    assert study_facts(database, study_of(database)).hospital_priority is Priority.URGENT


def test_a_report_cancels_what_was_not_told_yet(engine: Engine) -> None:
    database = Database(engine, rules_that_notify(NotificationRules(("webhook",))))
    finished(database)
    study = study_of(database)
    facts = study_facts(database, study)
    notification = TriageDecision(
        Priority.CRITICAL,
        NOW,
        database.read(study_details.study_detail, study).row.analysis,
        "pneumothorax",
        (finding(),),
    )
    record_triage(database, study, notification, NOW)
    assert facts.hospital_priority is None
    (waiting,) = database.read(notifications.waiting, "webhook", NOW)
    receive_message(database, message(1, order(reported=True)), NOW)
    assert database.read(notifications.waiting, "webhook", NOW) == ()
    assert database.write(notifications.claim, waiting, "n1", NOW, HOUR) is None
    record_triage(database, study, notification, NOW)
    assert [one.state.value for one in database.read(notifications.of_study, study)] == ["withdrawn"]
