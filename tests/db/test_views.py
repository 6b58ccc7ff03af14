"""The views say what has happened, the same on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import deliveries, feedback, jobs, study_status
from db.audit import AuditEntry, AuditTrail
from db.database import Database
from db.user_tables import Verdict
from db.views import LOOKED, VIEWS
from tests.db.examples import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    TO_PACS,
    claim,
    deliveries_of,
    finding,
    outcome,
    record,
    study_of,
)

DAY = "2026-03-01"


def rows(engine: Engine, query: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def only(engine: Engine, query: str) -> dict[str, Any]:
    found = rows(engine, query)
    assert len(found) == 1
    return found[0]


def analysed(database: Database, study: int, after: timedelta, **changes: Any) -> None:
    """A study whose one image was analysed ``after`` its arrival, and whose results were sent a second later."""
    job_id = record(database, 1, study, station_name=changes.pop("station", "ROOM1"))
    claim(database, job_id)
    assert database.write(jobs.finish, job_id, "w1", outcome(1000 * study, **changes), NOW + after) is not None
    for delivery_id in deliveries_of(database, job_id):
        sent = NOW + after + SECOND
        assert database.write(deliveries.claim, delivery_id, "d1", sent, MINUTE)
        database.write(deliveries.sent, delivery_id, "d1", sent)


def test_each_column_is_described(engine: Engine) -> None:
    with engine.connect() as connection:
        for view in VIEWS:
            assert list(connection.execute(text(f"SELECT * FROM {view.name}")).keys()) == list(view.columns)


def test_studies_are_counted_a_day_modality_and_station(database: Database) -> None:
    record(database, 1, 1, station_name="ROOM1")
    record(database, 2, 1, station_name="ROOM1")
    analysed(database, 2, MINUTE, station="ROOM2")
    found = rows(database.engine, "SELECT * FROM studies_per_day ORDER BY station_name")
    assert [(str(row["day"]), row["modality"], row["station_name"]) for row in found] == [
        (DAY, "DX", "ROOM1"),
        (DAY, "DX", "ROOM2"),
    ]
    assert [(row["studies"], row["images"]) for row in found] == [(1, 2), (1, 1)]


def test_turnaround_has_the_median_and_the_95th_percentile(database: Database) -> None:
    for study, minutes in enumerate((1, 2, 3, 10), start=1):
        analysed(database, study, minutes * MINUTE)
    database.write(study_status.report, study_of(database, 1), NOW + HOUR, actor="anna", cause="read")
    found = {row["stage"]: row for row in rows(database.engine, "SELECT * FROM turnaround_per_day")}
    assert {stage: row["studies"] for stage, row in found.items()} == {"analysed": 4, "delivered": 4, "reported": 1}
    assert found["analysed"]["median_seconds"] == pytest.approx(150, abs=0.01)
    assert found["analysed"]["p95_seconds"] == pytest.approx(600, abs=0.01)
    assert found["delivered"]["median_seconds"] == pytest.approx(151, abs=0.01)
    assert found["reported"]["median_seconds"] == pytest.approx(3600, abs=0.01)


def test_a_job_that_runs_again_does_not_change_when_its_study_was_analysed(database: Database) -> None:
    analysed(database, 1, MINUTE)
    with database.engine.connect() as connection:
        job_id = connection.scalar(text("SELECT id FROM jobs"))
    database.write(jobs.requeue, job_id, "anna", "again", NOW + HOUR)
    claim(database, job_id, now=NOW + HOUR)
    database.write(jobs.finish, job_id, "w1", outcome(5000), NOW + HOUR)
    assert only(database.engine, "SELECT * FROM study_times")["seconds_to_analysed"] == pytest.approx(60, abs=0.01)


def test_deliveries_are_counted_by_their_state(database: Database) -> None:
    analysed(database, 1, MINUTE)
    job_id = record(database, 1, 2)
    claim(database, job_id)
    database.write(jobs.finish, job_id, "w1", outcome(9000), NOW)
    row = only(database.engine, "SELECT * FROM deliveries_per_day WHERE kind = 'seg'")
    assert (row["destination"], row["deliveries"], row["taken"], row["waiting"], row["failed"]) == (
        *TO_PACS,
        2,
        1,
        1,
        0,
    )
    assert row["median_seconds"] == pytest.approx(1, abs=0.01)


def test_the_latest_verdict_counts(database: Database) -> None:
    absent = finding("lung_opacity", probability=0.1, present=False)
    analysed(database, 1, MINUTE, findings=(finding(), absent))
    study = study_of(database)
    known = {each.record.label: each.id for each in database.read(feedback.findings, study)}
    for label, verdict in (
        ("pneumothorax", Verdict.REJECT),
        ("pneumothorax", Verdict.ACCEPT),
        ("lung_opacity", Verdict.MODIFY),
    ):
        database.write(feedback.give, known[label], verdict, NOW + HOUR, actor="anna")
    agreed = {row["label"]: row for row in rows(database.engine, "SELECT * FROM reader_agreement")}
    assert (agreed["pneumothorax"]["accepted"], agreed["pneumothorax"]["verdicts"]) == (1, 1)
    assert float(agreed["lung_opacity"]["agreed_share"]) == 0
    performance = {row["label"]: row for row in rows(database.engine, "SELECT * FROM model_performance")}
    assert (performance["pneumothorax"]["true_positives"], performance["pneumothorax"]["false_positives"]) == (1, 0)
    assert float(performance["pneumothorax"]["predictive_value"]) == 1
    assert (performance["lung_opacity"]["false_negatives"], performance["lung_opacity"]["present"]) == (1, 0)
    assert performance["lung_opacity"]["month"] == "2026-03"
    assert performance["lung_opacity"]["predictive_value"] is None


def test_changes_leave_out_who_only_looked(engine: Engine) -> None:
    trail = AuditTrail(engine)
    for action in (*LOOKED, "hold"):
        trail.add(AuditEntry(NOW, "anna", action))
    assert only(engine, "SELECT * FROM changes")["action"] == "hold"
