"""Content of a notification, as text and as values: pure functions, without the patient's name unless configured."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from config.notice import NOTICE
from config.settings import Settings
from db.notifications import Notification
from db.states import Priority
from workers.clock import for_people

TEST = "test"
"""Reason of a test message, which is about no finding."""


def finding_text(notification: Notification) -> str:
    """The finding as text: ``pneumothorax 93%``."""
    if notification.reason == TEST:
        return "test message, no finding"
    name = notification.reason.replace("_", " ")
    return name if notification.probability is None else f"{name} {notification.probability:.0%}"


def title(notification: Notification) -> str:
    """The subject line."""
    if notification.reason == TEST:
        return "Pleura: test message"
    accession = f", accession {notification.accession_number}" if notification.accession_number else ""
    return f"Pleura: suspected {finding_text(notification)}{accession} (research use only)"


def link_to(notification: Notification, settings: Settings) -> str:
    """Address of the study's page; empty if no address is configured or there is no study."""
    base = settings.notifications.link.rstrip("/")
    return f"{base}/studies/{notification.study_id}" if base and notification.study_id else ""


def text(notification: Notification, settings: Settings, *, patient_name: bool) -> str:
    """The message for a person. Patient ID and name are included only with ``patient_name``."""
    content = {
        "Finding": f"suspected {finding_text(notification)}",
        "Accession": notification.accession_number,
        "Patient": f"{notification.patient_name} ({notification.patient_id})" if patient_name else "",
        "Study": " ".join((digits(notification.study_date), notification.study_description)).strip(),
        "Priority": notification.priority.value,
        "Due": for_people(notification.due_at, settings.site.zone),
        "Page": link_to(notification, settings),
        "Node": settings.site.name or settings.site.station_name,
    }
    lines = [f"{name + ':':<11}{value}" for name, value in content.items() if value]
    return "\n".join([*lines, "", "Result of an algorithm, not reviewed by a radiologist.", NOTICE, ""])


def digits(value: str) -> str:
    """A date or time of a header (VR DA, TM) without fractions of a second; empty where it is something else."""
    whole = value.strip().partition(".")[0]
    return whole if whole.isascii() and whole.isdigit() else ""


def values(notification: Notification, settings: Settings, *, patient_name: bool) -> dict[str, Any]:
    """The message for a program."""
    study = {
        "study_instance_uid": notification.study_instance_uid,
        "accession_number": notification.accession_number,
        "patient_id": notification.patient_id,
        "issuer_of_patient_id": notification.issuer_of_patient_id,
        "study_date": digits(notification.study_date),
        "study_description": notification.study_description,
    }
    if patient_name:
        study["patient_name"] = notification.patient_name
    return {
        "type": "pleura.test" if notification.reason == TEST else "pleura.critical_finding",
        "id": notification.key,
        "raised_at": notification.created_at.astimezone(UTC).isoformat(timespec="seconds"),
        "notice": NOTICE,
        "node": settings.site.name or settings.site.station_name,
        "finding": {"label": notification.reason, "probability": notification.probability, "status": "suspected"},
        "study": study,
        "priority": notification.priority.value,
        "due_at": notification.due_at.astimezone(UTC).isoformat(timespec="seconds"),
        "link": link_to(notification, settings),
    }


def trial_notification(channel: str, key: str, now: datetime) -> Notification:
    """A notification about no study, for testing a channel."""
    return Notification(
        id=0,
        study_id=0,
        channel=channel,
        reason=TEST,
        key=key,
        probability=None,
        attempts=1,
        created_at=now,
        study_instance_uid="",
        accession_number="TEST",
        placer_order_number="",
        filler_order_number="TEST",
        patient_id="TEST",
        issuer_of_patient_id="",
        patient_name="Test^Pleura",
        patient_birth_date="",
        patient_sex="",
        study_date=f"{now:%Y%m%d}",
        study_time=f"{now:%H%M%S}",
        study_description="",
        priority=Priority.ROUTINE,
        due_at=now,
    )
