"""Verdicts of readers on findings. They are appended, and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from db.audit import AuditEntry, write_entry
from db.errors import RecordNotFoundError
from db.records import FindingRecord
from db.tables import Finding
from db.user_tables import FeedbackRow, Verdict


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """One verdict. ``source`` is how it came: web, api, cli or dicom."""

    finding_id: int
    study_id: int
    label: str
    model: str
    model_version: str
    probability: float | None
    present: bool
    verdict: Verdict
    comment: str
    actor: str
    source: str
    at: datetime


@dataclass(frozen=True, slots=True)
class IdentifiedFinding:
    """A finding with its row number, by which a verdict names it."""

    id: int
    job_id: int
    record: FindingRecord


def give(
    connection: Connection,
    finding_id: int,
    verdict: Verdict,
    now: datetime,
    *,
    actor: str,
    comment: str = "",
    source: str = "web",
    address: str = "",
) -> FeedbackRecord:
    """Store a verdict with what the finding said at the time.

    Raises:
        RecordNotFoundError: There is no such finding.
    """
    row = connection.execute(select(Finding.__table__).where(Finding.id == finding_id)).first()
    if row is None:
        raise RecordNotFoundError("finding", finding_id)
    options = {"actor": actor, "comment": comment, "source": source, "address": address}
    feedback_id = insert_verdict(connection, row, verdict, now, **options)
    kept = connection.execute(select(FeedbackRow.__table__).where(FeedbackRow.id == feedback_id)).one()
    return _record(kept)


def findings(connection: Connection, study_id: int) -> tuple[IdentifiedFinding, ...]:
    """The findings of a study that hold, each with its row number."""
    query = select(Finding.__table__).where(Finding.study_id == study_id, Finding.superseded.is_(False))
    names = FindingRecord.__dataclass_fields__
    rows = connection.execute(query.order_by(Finding.id)).all()
    return tuple(
        IdentifiedFinding(row.id, row.job_id, FindingRecord(**{name: getattr(row, name) for name in names}))
        for row in rows
    )


def of_study(connection: Connection, study_id: int) -> tuple[FeedbackRecord, ...]:
    """Every verdict on this study's findings, the oldest first."""
    query = select(FeedbackRow.__table__).where(FeedbackRow.study_id == study_id).order_by(FeedbackRow.id)
    rows = connection.execute(query).all()
    return tuple(_record(row) for row in rows)


def insert_verdict(
    connection: Connection,
    finding: Any,
    verdict: Verdict,
    now: datetime,
    *,
    actor: str,
    comment: str = "",
    source: str = "web",
    address: str = "",
) -> int:
    """Append a verdict on the row ``finding``, and its entry in the audit trail; the number of its row."""
    values = {
        "finding_id": finding.id,
        "study_id": finding.study_id,
        "label": finding.label,
        "model": finding.model,
        "model_version": finding.model_version,
        "probability": finding.probability,
        "present": finding.present,
        "verdict": verdict.value,
        "comment": comment.strip()[:2000],
        "actor": actor[:80],
        "source": source,
        "at": now,
    }
    row = connection.execute(insert(FeedbackRow).values(**values).returning(FeedbackRow.id)).scalar_one()
    entry = AuditEntry(now, actor, "feedback", f"finding {finding.id}", finding.study_id, address, verdict.value)
    write_entry(connection, entry)
    return int(row)


def _record(row: Any) -> FeedbackRecord:
    names = FeedbackRecord.__dataclass_fields__
    return FeedbackRecord(**{name: getattr(row, name) for name in names} | {"verdict": Verdict(row.verdict)})
