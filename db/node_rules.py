"""What the database must know of a node's settings: whoever opens a database gives it, and nobody can leave it out."""

from __future__ import annotations

from dataclasses import dataclass

from db.patients import PatientRules
from db.study_rules import NotificationRules


@dataclass(frozen=True, slots=True)
class Rules:
    """Whom a critical finding is told, and how patients are told apart. ``workers.open_database.rules_of`` makes
    them.
    """

    notifications: NotificationRules
    patients: PatientRules
