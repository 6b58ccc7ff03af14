"""Values to test with. All of them are made up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from db import jobs, tables
from db.database import Database
from db.queries import study_details
from db.records import FindingRecord, Job, NotEligible, Outcome, ReceivedInstance, ResultRecord, TriageDecision
from db.states import Analysis, Priority
from tests.commands import record_instance

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
PIPELINE = "f" * 64
CRITICAL = TriageDecision(Priority.CRITICAL, NOW + 15 * MINUTE, Analysis.ANALYSED, "pneumothorax 90 %")
LATERAL = NotEligible("lateral", "this is a lateral view")
TO_PACS: dict[str, tuple[str, ...]] = {"pacs": ("seg", "sr", "summary")}


def received(number: int = 1, study: int = 1, **changes: Any) -> ReceivedInstance:
    instance = ReceivedInstance(
        sop_instance_uid=f"1.2.826.0.1.{study}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=f"{study:032x}{number:032x}",
        path=f"instances/{study:02x}/{number}.dcm",
        byte_count=1000 + number,
        study_instance_uid=f"1.2.826.0.2.{study}",
        series_instance_uid=f"1.2.826.0.3.{study}",
        patient_id=f"P{study}",
        patient_name="Doe^Jane",
        accession_number=f"A-{study}",
        modality="DX",
    )
    return replace(instance, **changes)


def finding(label: str = "pneumothorax", **changes: Any) -> FindingRecord:
    return replace(FindingRecord(label, "chest-classifier", "1.0", 0.9, 0.5, present=True, shadow=False), **changes)


def result(kind: str, number: int) -> ResultRecord:
    uid = f"2.25.{number}"
    return ResultRecord(kind, "1.2.840.10008.5.1.4.1.1.66.4", uid, "2.25.1", f"{number:064x}", f"results/{uid}", 10)


def outcome(first: int = 100, **changes: Any) -> Outcome:
    results = (result("seg", first), result("sr", first + 1))
    return replace(Outcome(findings=(finding(),), results=results, destinations=TO_PACS), **changes)


def record(database: Database, number: int = 1, study: int = 1, **changes: Any) -> int:
    """Record an eligible instance and give its job."""
    return record_instance(database, received(number, study, **changes), None, PIPELINE, NOW).job_ids[0]


def claim(database: Database, job_id: int, worker: str = "w1", **changes: Any) -> Job:
    job = database.write(jobs.claim, job_id, worker, changes.get("now", NOW), MINUTE)
    assert job is not None
    return job


def finished(database: Database, number: int = 1, study: int = 1) -> tuple[int, tuple[int, ...]]:
    """Record, claim and finish; give the job and its deliveries."""
    job_id = record(database, number, study)
    made = outcome(1000 * study + 10 * number, patient=claim(database, job_id).patient)
    assert database.write(jobs.finish, job_id, "w1", made, NOW) is not None
    return job_id, deliveries_of(database, job_id)


def deliveries_of(database: Database, job_id: int) -> tuple[int, ...]:
    """The deliveries of the results of a job's latest revision, in storing order."""
    query = (
        select(tables.Delivery.id)
        .join(tables.Result, tables.Result.id == tables.Delivery.result_id)
        .join(tables.Job, tables.Job.id == tables.Result.job_id)
        .where(tables.Job.id == job_id, tables.Job.revision == tables.Result.revision)
        .order_by(tables.Delivery.id)
    )
    return database.read(lambda connection: tuple(connection.scalars(query)))


def study_of(database: Database, study: int = 1) -> int:
    found = database.read(study_details.find_study, f"1.2.826.0.2.{study}")
    assert found is not None
    return found
