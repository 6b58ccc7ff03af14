"""Values for the tests of this room."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from db.records import Delivery, FindingRecord, Job, StudyFacts
from db.states import DeliveryState, JobState

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


class FakeClock:
    """A clock that moves only when a test moves it."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **parts: float) -> None:
        self.now += timedelta(**parts)


def finding(label: str = "pneumothorax", probability: float | None = 0.93, **changes: Any) -> FindingRecord:
    threshold = changes.pop("threshold", 0.5)
    values: dict[str, Any] = {
        "label": label,
        "model": "chest",
        "model_version": "1",
        "probability": probability,
        "threshold": threshold,
        "present": probability is not None and probability >= threshold,
        "shadow": False,
    }
    return FindingRecord(**{**values, **changes})


def facts(**changes: Any) -> StudyFacts:
    values: dict[str, Any] = {
        "study_id": 1,
        "first_received_at": NOON,
        "stat": False,
        "hospital_priority": None,
        "findings": (),
        "jobs_waiting": 0,
        "jobs_done": 1,
        "jobs_failed": 0,
        "images_not_eligible": 0,
        "images_not_analysed": 0,
    }
    return StudyFacts(**{**values, **changes})


def job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "id": 7,
        "instance_id": 3,
        "study_id": 1,
        "pipeline": "p" * 64,
        "state": JobState.QUEUED,
        "attempts": 0,
        "revision": 0,
        "stat": False,
        "created_at": NOON,
        "sop_instance_uid": "1.2.3",
        "instance_digest": "d" * 64,
        "instance_path": "instances/dd/d.dcm",
    }
    return Job(**{**values, **changes})


def delivery(number: int = 1, kind: str = "seg", **changes: Any) -> Delivery:
    values: dict[str, Any] = {
        "id": number,
        "result_id": number,
        "destination": "pacs",
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "kind": kind,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.66.4",
        "sop_instance_uid": f"1.2.{number}",
        "path": f"results/{kind}.dcm",
        "study_id": 1,
        "study_instance_uid": "1.2.3.4",
        "patient_id": "P1",
        "job_id": 7,
    }
    return Delivery(**{**values, **changes})
