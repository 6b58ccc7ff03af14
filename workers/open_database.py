"""Opens a node's database, and runs triage on a study.

Listener, HL7 listener, workers, scheduler, page and command line all call it, so a study that becomes critical raises
its notifications whichever of them has changed it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Engine

from config.settings import Settings
from config.triage import Triage
from db import studies
from db.database import Database, Step
from db.engine import connect
from db.node_rules import Rules
from db.patients import PatientRules
from db.records import StudyFacts, TriageDecision
from workers.notifications.channels import notification_rules
from workers.triage import decide


def rules_of(settings: Settings) -> Rules:
    """What the database must know of ``settings``."""
    patients = PatientRules(settings.site.patient_id_issuers, settings.site.placeholder_patient_ids)
    return Rules(notification_rules(settings), patients)


def database_of(settings: Settings, engine: Engine | None = None, kind: type[Database] = Database) -> Database:
    """The database of this node: that of ``engine``, or else the configured one."""
    return kind(engine or connect(settings.database_url), rules_of(settings))


def triage_study(study_id: int, database: Database, rules: Triage, now: datetime) -> TriageDecision:
    """Let triage decide anew from what is known now, write it down with what follows, and give the decision."""
    command, arguments = triage_step(study_id, database, rules, now)
    decision: TriageDecision = database.write(command, *arguments)
    return decision


def triage_step(study_id: int, database: Database, rules: Triage, now: datetime) -> Step:
    """The same, for a transaction with what triage is to know of (:meth:`db.database.Database.write_all`)."""
    return studies.triage, (study_id, lambda facts: decide(facts, rules, now), database.rules, now)


def triage_again(facts: StudyFacts, database: Database, rules: Triage, now: datetime) -> TriageDecision:
    """What triage decides from ``facts`` that were read just now; nothing is written where it decided the same before
    and raises no notification."""
    decision = decide(facts, rules, now)
    tells = decision.notifications and database.rules.notifications.channels
    if replace(decision, notifications=()) == facts.decision and not tells:
        return decision
    return triage_study(facts.study_id, database, rules, now)
