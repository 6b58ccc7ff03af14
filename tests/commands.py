"""The commands of the database that need the node's rules, for tests: each with the rules of the database it gets."""

from __future__ import annotations

from datetime import datetime

from db import instances, orders, studies
from db.database import Database
from db.orders import HospitalMessage, MessageResult
from db.records import Ingest, NotEligible, ReceivedInstance, StudyFacts, TriageDecision


def record_instance(
    database: Database, received: ReceivedInstance, not_eligible: NotEligible | None, pipeline: str, now: datetime
) -> Ingest:
    """Record a received instance as the listener does."""
    rules = database.rules.patients
    return database.write(instances.record_instance, received, not_eligible, pipeline, rules, now)


def receive_message(database: Database, message: HospitalMessage, now: datetime) -> MessageResult:
    """Apply a message as the HL7 listener does."""
    return database.write(orders.receive, message, database.rules.patients, now)


def study_facts(database: Database, study_id: int) -> StudyFacts:
    """What triage needs to know of a study."""
    return database.read(studies.facts, study_id, database.rules.patients)


def record_triage(database: Database, study_id: int, decision: TriageDecision, now: datetime) -> None:
    """Write what triage decided."""
    database.write(studies.record_triage, study_id, decision, now, database.rules.notifications)
