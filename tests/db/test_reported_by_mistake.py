"""A study that was called reported by mistake: its results wait, and go when the report is taken back."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from db.patients import PatientIdentifier, PatientNews
from db.records import IS_REPORTED, DeliveryState
from db.study_status import Reporting
from db.worklist import Worklist
from tests.db.examples import HOUR, NOW, TO_PACS, claim, outcome, record, result, study_of
from tests.db.test_orders import message, order


def states(worklist: Worklist) -> list[str]:
    return [one.state.value for one in worklist.study_detail(study_of(worklist)).deliveries]


def analysed_after_its_report(worklist: Worklist, engine: Engine, reason: str = IS_REPORTED) -> int:
    """A study that was reported before its analysis and its summary; its row."""
    job = record(worklist)
    study = study_of(worklist)
    Reporting(engine).mark_reported(study, NOW, actor="ann", cause="marked as reported")
    claim(worklist, job)
    assert worklist.finish_job(job, "w1", outcome(recorded=reason), NOW) == ()
    assert worklist.complete_study(study, (result("summary", 300),), TO_PACS, NOW + HOUR, recorded=reason) == ()
    return study


def undo(engine: Engine, study: int) -> None:
    assert Reporting(engine).mark_unreported(study, NOW + HOUR, actor="ann", cause="marked as unreported")


def test_results_of_a_reported_study_are_recorded_and_go_when_the_report_is_taken_back(
    worklist: Worklist, engine: Engine
) -> None:
    study = analysed_after_its_report(worklist, engine)
    assert states(worklist) == ["recorded"] * 3
    assert worklist.deliveries_to_enqueue(NOW + HOUR, HOUR) == ()
    undo(engine, study)
    assert states(worklist) == ["pending"] * 3
    first = worklist.study_detail(study).deliveries[0]
    assert first.error == ""
    assert worklist.claim_delivery(first.id, "d1", NOW + HOUR, HOUR) is not None
    assert worklist.deliveries_to_enqueue(NOW + HOUR, HOUR), "the scheduler finds them at once"


def test_a_report_that_was_ahead_of_the_images_can_be_taken_back_too(worklist: Worklist, engine: Engine) -> None:
    worklist.receive_message(message(1, order(reported=True)), NOW)
    job = record(worklist)
    claim(worklist, job)
    worklist.finish_job(job, "w1", outcome(recorded=IS_REPORTED), NOW)
    assert states(worklist) == ["recorded"] * 2
    undo(engine, study_of(worklist))
    assert states(worklist) == ["pending"] * 2


def test_what_came_too_late_stays_recorded(worklist: Worklist, engine: Engine) -> None:
    undo(engine, analysed_after_its_report(worklist, engine, "the study came more than 4 hours before"))
    assert states(worklist) == ["recorded"] * 3


def test_a_report_that_was_taken_back_during_the_analysis_records_nothing(worklist: Worklist, engine: Engine) -> None:
    job = record(worklist)
    claim(worklist, job)
    assert worklist.finish_job(job, "w1", outcome(recorded=IS_REPORTED), NOW)
    assert states(worklist) == ["pending"] * 2


@pytest.mark.parametrize("why", ["on_hold", "corrected"])
def test_a_study_that_waits_for_a_person_keeps_what_was_recorded(worklist: Worklist, engine: Engine, why: str) -> None:
    study = analysed_after_its_report(worklist, engine)
    if why == "on_hold":
        worklist.hold_study(study, "whose is it?", "ann", NOW)
    else:
        news = PatientNews((PatientIdentifier("P1"),), name="Roe^Jane")
        worklist.receive_message(message(2, patient=news), NOW)
    undo(engine, study)
    assert states(worklist) == ["on_hold"] * 3
    worklist.release_study(study, "ann", NOW)
    assert states(worklist) == ["pending"] * 3


def test_a_person_may_send_what_was_recorded_while_the_study_stays_reported(worklist: Worklist, engine: Engine) -> None:
    study = analysed_after_its_report(worklist, engine)
    delivery = worklist.study_detail(study).deliveries[0]
    worklist.requeue_delivery(delivery.id, "ann", "asked for", NOW)
    assert worklist.study_detail(study).deliveries[0].state is DeliveryState.PENDING
