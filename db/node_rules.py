"""The settings that transactions depend on: whoever opens a database must give them."""

from __future__ import annotations

from dataclasses import dataclass

from db.patients import PatientRules
from db.study_rules import NotificationRules


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules for notifications and for the identity of patients, made by ``workers.open_database.rules_of``."""

    notifications: NotificationRules
    patients: PatientRules
