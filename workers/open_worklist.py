"""The one way to open a node's worklist and to let triage decide.

Listener, HL7 listener, workers, scheduler, page and command line all come here. So a study that becomes critical is
told to somebody whichever of them has noticed it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from sqlalchemy import Engine

from config.settings import Settings, Triage
from db.engine import connect
from db.node_rules import Rules
from db.patients import PatientRules
from db.records import StudyFacts, TriageDecision
from db.worklist import Worklist
from workers.notifications.channels import notification_rules
from workers.triage import decide


class TriagedList(Protocol):
    """What triage needs of :class:`db.worklist.Worklist`."""

    def study_facts(self, study_id: int) -> StudyFacts:
        """What triage needs to know."""
        ...

    def record_triage(self, study_id: int, decision: TriageDecision, now: datetime) -> None:
        """Write what triage decided, with the notifications that follow."""
        ...


def rules_of(settings: Settings) -> Rules:
    """What the database must know of ``settings``."""
    patients = PatientRules(settings.site.patient_id_issuers, settings.site.placeholder_patient_ids)
    return Rules(notification_rules(settings), patients)


def worklist_of(settings: Settings, engine: Engine | None = None) -> Worklist:
    """The worklist of this node, in the database of ``engine`` or else in the configured one."""
    return Worklist(engine or connect(settings.database_url), rules_of(settings))


def triage_study(study_id: int, worklist: TriagedList, rules: Triage, now: datetime) -> TriageDecision:
    """Let triage decide anew from what is known now, write it down with what follows, and give the decision."""
    decision = decide(worklist.study_facts(study_id), rules, now)
    worklist.record_triage(study_id, decision, now)
    return decision
