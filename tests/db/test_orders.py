"""What a hospital says of orders, reports and patients: before and after the images come, once and again."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine

from db import instances, orders
from db.engine import writing
from db.notifications import NotificationRules, Notifications
from db.orders import CANCELLED, HospitalMessage, MessageResult, OrderKeys, OrderNews, OtherPatientError
from db.patients import PatientIdentifier, PatientNews
from db.records import DeliveryState, JobState, Priority, TriageDecision
from db.study_status import Reporting
from db.worklist import Worklist
from tests.db.examples import HOUR, NOW, PIPELINE, finding, finished, outcome, received, record, study_of
from tests.db.examples import claim as claim_job
from tests.rules import NO_RULES, alarming

JANE = (PatientIdentifier("P1"),)


def message(number: int, *orders: OrderNews, patient: PatientNews | None = None) -> HospitalMessage:
    patients = (patient,) if patient else ()
    return HospitalMessage("RIS|HOSPITAL", f"M{number}", f"{number:064x}", "ORM^O01", orders, patients)


def order(accession: str = "A-1", **changes: object) -> OrderNews:
    news = OrderNews(OrderKeys(accession_number=accession), JANE)
    return replace(news, **changes)  # type: ignore[arg-type]


STAT = {"priority": Priority.URGENT, "says_priority": True}


def test_a_stat_order_sets_the_priority_of_a_study_that_is_here(worklist: Worklist) -> None:
    record(worklist)
    result = worklist.receive_message(message(1, order(**STAT)), NOW)
    study = study_of(worklist)
    assert result == MessageResult(study_ids=(study,))
    assert worklist.study_facts(study).hospital_priority is Priority.URGENT


def test_a_stat_order_waits_for_its_study(worklist: Worklist) -> None:
    assert worklist.receive_message(message(1, order(**STAT)), NOW).remembered == 1
    record(worklist, study=2)
    assert worklist.study_facts(study_of(worklist, 2)).hospital_priority is None
    record(worklist)
    detail = worklist.study_detail(study_of(worklist))
    assert detail.row.priority is Priority.URGENT
    assert detail.row.due_at == NOW + HOUR
    assert detail.jobs[0].stat
    assert worklist.study_facts(detail.row.study_id).hospital_priority is Priority.URGENT
    assert ("order", "ordered") in [(event.entity, event.to_state) for event in detail.events]


def test_an_order_is_found_by_the_study_uid_too(worklist: Worklist) -> None:
    keys = OrderKeys(study_instance_uid="1.2.826.0.2.1")
    worklist.receive_message(message(1, OrderNews(keys, JANE, **STAT)), NOW)  # type: ignore[arg-type]
    record(worklist, accession_number="")
    assert worklist.study_facts(study_of(worklist)).hospital_priority is Priority.URGENT


def test_a_report_is_linked_by_the_order_number_alone(worklist: Worklist, engine: Engine) -> None:
    record(worklist)
    known = OrderKeys(accession_number="A-1", filler_order_number="F7")
    worklist.receive_message(message(1, OrderNews(known, JANE)), NOW)
    report = OrderNews(OrderKeys(filler_order_number="F7"), JANE, reported=True)
    worklist.receive_message(message(2, report), NOW)
    assert worklist.study_facts(study_of(worklist)).reported
    assert worklist.worklist() == ()


def test_a_report_that_is_ahead_of_its_study_takes_it_off_the_list(worklist: Worklist) -> None:
    worklist.receive_message(message(1, order(reported=True)), NOW)
    record(worklist)
    record(worklist, number=2)
    assert worklist.study_facts(study_of(worklist)).reported, "all of its images were there when it was written"


def test_two_orders_of_one_accession_number_stay_apart(worklist: Worklist) -> None:
    record(worklist)
    first = OrderKeys(accession_number="A-1", filler_order_number="F1")
    second = OrderKeys(accession_number="A-1", filler_order_number="F2")
    worklist.receive_message(message(1, OrderNews(first, JANE, **STAT)), NOW)  # type: ignore[arg-type]
    worklist.receive_message(message(2, OrderNews(second, JANE, says_priority=True)), NOW)
    study = study_of(worklist)
    assert worklist.study_facts(study).hospital_priority is Priority.URGENT
    worklist.receive_message(message(3, OrderNews(first, JANE, status=CANCELLED)), NOW)
    assert worklist.study_facts(study).hospital_priority is None
    assert [row.study_id for row in worklist.worklist()] == [study], "images that are here must be read all the same"


def test_an_order_never_lowers_what_a_person_has_set(worklist: Worklist, engine: Engine) -> None:
    record(worklist)
    study = study_of(worklist)
    Reporting(engine).set_priority(study, Priority.CRITICAL, NOW, actor="ann", cause="by hand")
    worklist.receive_message(message(1, order(**STAT)), NOW)
    worklist.receive_message(message(2, order(says_priority=True)), NOW)
    assert worklist.study_facts(study).hospital_priority is Priority.CRITICAL


def test_the_same_message_again_changes_nothing(worklist: Worklist, engine: Engine) -> None:
    record(worklist)
    report = message(1, order(reported=True))
    worklist.receive_message(report, NOW)
    study = study_of(worklist)
    Reporting(engine).mark_unreported(study, NOW, actor="ann", cause="the report was of another study")
    before = worklist.study_detail(study)
    assert worklist.receive_message(report, NOW + HOUR) == MessageResult(repeat=True)
    assert worklist.study_detail(study) == before


def test_another_patient_under_the_same_accession_number_is_refused(worklist: Worklist) -> None:
    record(worklist)
    before = worklist.study_detail(study_of(worklist))
    stranger = message(1, order(patient=(PatientIdentifier("P9"),), reported=True))
    with pytest.raises(OtherPatientError):
        worklist.receive_message(stranger, NOW)
    assert worklist.study_detail(study_of(worklist)) == before
    with pytest.raises(OtherPatientError):
        worklist.receive_message(stranger, NOW)


def test_a_remembered_order_of_another_patient_does_not_touch_a_study(worklist: Worklist) -> None:
    worklist.receive_message(message(1, order(patient=(PatientIdentifier("P9"),), reported=True)), NOW)
    record(worklist)
    assert not worklist.study_facts(study_of(worklist)).reported


def corrected(**changes: object) -> PatientNews:
    return replace(PatientNews(JANE), **changes)  # type: ignore[arg-type]


def test_a_corrected_name_keeps_back_what_was_not_sent_and_marks_what_was(worklist: Worklist) -> None:
    _, (first, second) = finished(worklist)
    claim = worklist.claim_delivery(first, "d1", NOW, HOUR)
    assert claim is not None
    worklist.delivery_sent(first, "d1", NOW)
    running = record(worklist, number=2)
    worklist.receive_message(message(1, patient=corrected(name="Roe^Jane")), NOW)
    detail = worklist.study_detail(study_of(worklist))
    assert detail.row.patient_name == "Roe^Jane"
    assert detail.row.on_hold
    assert "corrected" in detail.row.hold_reason
    sent, on_hold = detail.deliveries
    assert sent.state is DeliveryState.SENT
    assert "must be corrected there" in sent.error
    assert on_hold.state is DeliveryState.ON_HOLD
    assert worklist.claim_delivery(second, "d1", NOW, HOUR) is None
    assert worklist.deliveries_to_enqueue(NOW + HOUR, timedelta()) == ()
    assert detail.jobs[1].state is JobState.QUEUED, "the analysis goes on"
    claim_job(worklist, running)
    assert worklist.finish_job(running, "w1", outcome(500), NOW) == ()
    worklist.release_study(detail.row.study_id, "ann", NOW)
    detail = worklist.study_detail(detail.row.study_id)
    assert not detail.row.on_hold
    assert {one.state for one in detail.deliveries} == {DeliveryState.SENT, DeliveryState.PENDING}


def test_the_same_name_in_capitals_corrects_nothing(worklist: Worklist) -> None:
    finished(worklist)
    before = worklist.study_detail(study_of(worklist))
    assert worklist.receive_message(message(1, patient=corrected(name="DOE^JANE^^")), NOW).study_ids == ()
    assert worklist.study_detail(study_of(worklist)) == before


def test_what_was_empty_before_is_filled_in_and_keeps_nothing_back(worklist: Worklist) -> None:
    finished(worklist)
    worklist.receive_message(message(1, patient=corrected(birth_date="19700101")), NOW)
    detail = worklist.study_detail(study_of(worklist))
    assert detail.row.patient_birth_date == "19700101"
    assert not detail.row.on_hold
    assert {one.state for one in detail.deliveries} == {DeliveryState.PENDING}


def test_history_tells_what_was_corrected_and_no_name(worklist: Worklist) -> None:
    finished(worklist)
    worklist.receive_message(message(1, patient=corrected(name="Roe^Jane")), NOW)
    events = worklist.study_detail(study_of(worklist)).events
    assert ("corrected", "name") in [(event.to_state, event.cause) for event in events]
    assert not any("Roe" in event.cause or "Doe" in event.cause for event in events)


MERGE = PatientNews((PatientIdentifier("P7"),), prior=JANE)


def test_a_merge_moves_studies_and_later_images_under_the_old_identifier_are_no_conflict(worklist: Worklist) -> None:
    finished(worklist)
    worklist.receive_message(message(1, patient=MERGE), NOW)
    job = record(worklist, number=2)
    detail = worklist.study_detail(study_of(worklist))
    assert detail.row.patient_id == "P7"
    assert {one.flag for one in detail.instances} == {""}
    assert next(one for one in detail.jobs if one.id == job).state is JobState.QUEUED


def test_a_study_that_comes_after_the_merge_belongs_to_the_surviving_patient(worklist: Worklist) -> None:
    worklist.receive_message(message(1, patient=MERGE), NOW)
    finished(worklist)
    detail = worklist.study_detail(study_of(worklist))
    assert detail.row.patient_id == "P7"
    assert {one.state for one in detail.deliveries} == {DeliveryState.ON_HOLD}


def test_an_order_under_the_old_identifier_still_finds_its_study(worklist: Worklist) -> None:
    finished(worklist)
    worklist.receive_message(message(1, patient=MERGE), NOW)
    assert worklist.receive_message(message(2, order(reported=True)), NOW).study_ids


def test_a_merge_that_is_turned_round_ends_where_it_says(worklist: Worklist) -> None:
    finished(worklist)
    worklist.receive_message(message(1, patient=MERGE), NOW)
    back = PatientNews(JANE, prior=(PatientIdentifier("P7"),))
    worklist.receive_message(message(2, patient=back), NOW)
    assert worklist.study_detail(study_of(worklist)).row.patient_id == "P1"
    record(worklist, number=3)
    assert {one.flag for one in worklist.study_detail(study_of(worklist)).instances} == {""}


def test_issuers_keep_equal_numbers_of_two_hospitals_apart(worklist: Worklist) -> None:
    record(worklist, issuer_of_patient_id="NORTH")
    south = PatientNews((PatientIdentifier("P1", "SOUTH"),), name="Roe^Jane")
    assert worklist.receive_message(message(1, patient=south), NOW).study_ids == ()
    north = PatientNews((PatientIdentifier("P1", "NORTH"),), name="Roe^Jane")
    assert worklist.receive_message(message(2, patient=north), NOW).study_ids


def test_what_nobody_has_asked_for_is_forgotten(worklist: Worklist) -> None:
    worklist.receive_message(message(1, order("A-9", **STAT)), NOW)
    worklist.receive_message(message(2, order(**STAT)), NOW + HOUR)
    record(worklist, study=3, accession_number="A-9", patient_id="P1")
    worklist.receive_message(message(3, order("A-8")), NOW)
    worklist.forget_messages(NOW + HOUR)
    assert not worklist.receive_message(message(3, order("A-8", **STAT)), NOW + HOUR).repeat
    assert worklist.receive_message(message(2, order(**STAT)), NOW + HOUR).repeat
    record(worklist)
    assert worklist.study_facts(study_of(worklist)).hospital_priority is Priority.URGENT
    assert worklist.study_facts(study_of(worklist, 3)).hospital_priority is Priority.URGENT


@pytest.mark.parametrize("first", ["study", "order"])
def test_an_order_and_its_study_that_come_at_once_find_each_other(engine: Engine, first: str) -> None:
    """One transaction is open while the other begins: whichever ends first, the order must be applied."""
    worklist = Worklist(engine, NO_RULES)

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
    assert worklist.study_facts(study_of(worklist)).hospital_priority is Priority.URGENT


def test_a_report_cancels_what_was_not_told_yet(engine: Engine) -> None:
    worklist = Worklist(engine, alarming(NotificationRules(("webhook",))))
    finished(worklist)
    study = study_of(worklist)
    facts = worklist.study_facts(study)
    notification = TriageDecision(
        Priority.CRITICAL, NOW, worklist.study_detail(study).row.analysis, "pneumothorax", (finding(),)
    )
    worklist.record_triage(study, notification, NOW)
    assert facts.hospital_priority is None
    (waiting,) = Notifications(engine).waiting("webhook", NOW)
    worklist.receive_message(message(1, order(reported=True)), NOW)
    assert Notifications(engine).waiting("webhook", NOW) == ()
    assert Notifications(engine).claim(waiting, "n1", NOW, HOUR) is None
    worklist.record_triage(study, notification, NOW)
    assert [one.state.value for one in Notifications(engine).of_study(study)] == ["withdrawn"]
