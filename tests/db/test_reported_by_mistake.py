"""A study that was called reported by mistake: its results wait, and go when the report is taken back."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from db import deliveries, holds, jobs, studies, study_status
from db.database import Database
from db.patients import PatientIdentifier, PatientUpdate
from db.queries import study_details
from db.records import IS_REPORTED
from db.states import DeliveryState
from tests.commands import receive_message
from tests.db.examples import HOUR, NOW, TO_PACS, claim, outcome, record, result, study_of
from tests.db.test_orders import message, order


def states(database: Database) -> list[str]:
    return [one.state.value for one in database.read(study_details.study_detail, study_of(database)).deliveries]


def analysed_after_its_report(database: Database, engine: Engine, reason: str = IS_REPORTED) -> int:
    """A study that was reported before its analysis and its summary; its row."""
    job = record(database)
    study = study_of(database)
    database.write(study_status.report, study, NOW, actor="ann", cause="marked as reported")
    claim(database, job)
    assert database.write(jobs.finish, job, "w1", outcome(recorded=reason), NOW) == ()
    assert (
        database.write(studies.complete, study, (result("summary", 300),), TO_PACS, NOW + HOUR, recorded=reason) == ()
    )
    return study


def undo(database: Database, study: int) -> None:
    assert database.write(study_status.undo_report, study, NOW + HOUR, actor="ann", cause="marked as unreported")


def test_results_of_a_reported_study_are_recorded_and_go_when_the_report_is_taken_back(
    database: Database, engine: Engine
) -> None:
    study = analysed_after_its_report(database, engine)
    assert states(database) == ["recorded"] * 3
    assert database.read(deliveries.to_enqueue, NOW + HOUR, HOUR) == ()
    undo(database, study)
    assert states(database) == ["pending"] * 3
    first = database.read(study_details.study_detail, study).deliveries[0]
    assert first.error == ""
    assert database.write(deliveries.claim, first.id, "d1", NOW + HOUR, HOUR) is not None
    assert database.read(deliveries.to_enqueue, NOW + HOUR, HOUR), "the scheduler finds them at once"


def test_a_report_that_was_ahead_of_the_images_can_be_taken_back_too(database: Database, engine: Engine) -> None:
    receive_message(database, message(1, order(reported=True)), NOW)
    job = record(database)
    claim(database, job)
    database.write(jobs.finish, job, "w1", outcome(recorded=IS_REPORTED), NOW)
    assert states(database) == ["recorded"] * 2
    undo(database, study_of(database))
    assert states(database) == ["pending"] * 2


def test_what_came_too_late_stays_recorded(database: Database, engine: Engine) -> None:
    undo(database, analysed_after_its_report(database, engine, "the study came more than 4 hours before"))
    assert states(database) == ["recorded"] * 3


def test_a_report_that_was_taken_back_during_the_analysis_records_nothing(database: Database, engine: Engine) -> None:
    job = record(database)
    claim(database, job)
    assert database.write(jobs.finish, job, "w1", outcome(recorded=IS_REPORTED), NOW)
    assert states(database) == ["pending"] * 2


@pytest.mark.parametrize("why", ["on_hold", "corrected"])
def test_a_study_that_waits_for_a_person_keeps_what_was_recorded(database: Database, engine: Engine, why: str) -> None:
    study = analysed_after_its_report(database, engine)
    if why == "on_hold":
        database.write(holds.hold, study, "whose is it?", "ann", NOW)
    else:
        news = PatientUpdate((PatientIdentifier("P1"),), name="Roe^Jane")
        receive_message(database, message(2, patient=news), NOW)
    undo(database, study)
    assert states(database) == ["on_hold"] * 3
    database.write(holds.release, study, "ann", NOW)
    assert states(database) == ["pending"] * 3


def test_a_person_may_send_what_was_recorded_while_the_study_stays_reported(database: Database, engine: Engine) -> None:
    study = analysed_after_its_report(database, engine)
    delivery = database.read(study_details.study_detail, study).deliveries[0]
    database.write(deliveries.requeue, delivery.id, "ann", "asked for", NOW)
    assert database.read(study_details.study_detail, study).deliveries[0].state is DeliveryState.PENDING
