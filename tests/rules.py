"""Rules for databases in tests: nobody is told anything, and no issuer is the node's own, unless a test says so."""

from __future__ import annotations

from db.node_rules import Rules
from db.patients import PatientRules
from db.study_rules import NotificationRules

NO_RULES = Rules(NotificationRules(), PatientRules())


def rules_that_notify(notifications: NotificationRules, patients: PatientRules | None = None) -> Rules:
    """Rules by which critical findings are told as ``notifications`` says."""
    return Rules(notifications, patients or PatientRules())
