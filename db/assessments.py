"""Verdicts that arrive as DICOM objects: matched with our findings, stored as feedback, kept where they fit none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select

from db.errors import RecordNotFoundError
from db.feedback import insert_verdict
from db.tables import Finding, Instance, Result
from db.user_tables import AssessmentRow, Verdict

ADDED = "added"
"""A reader has added a finding that the model did not report: to us, the rejection of a negative."""

_UNKNOWN_PERSON = "unknown"


@dataclass(frozen=True, slots=True)
class Statement:
    """A reader's statement on a result.

    ``verdict`` is a verdict or "added"; empty if it cannot be understood. ``referenced`` are the SOP Instance UIDs that
    it is about, ``tracking_uid`` is that of the finding.
    """

    verdict: str
    referenced: tuple[str, ...] = ()
    tracking_uid: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Assessment:
    """A received assessment: SOP Instance UID, observer (VR PN) and statements."""

    sop_instance_uid: str
    observer: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A statement that matches no finding of this node, with the reason."""

    study_id: int
    verdict: str
    observer: str
    problem: str
    comment: str
    at: datetime


def record(connection: Connection, assessment: Assessment, instance_id: int, now: datetime) -> int:
    """Store the verdicts of a received assessment (the instance ``instance_id``) on our findings, as feedback.

    The same document again changes nothing.

    Returns:
        How many of its statements fit no finding of ours; they are kept.
    """
    study_id = connection.scalar(select(Instance.study_id).where(Instance.id == instance_id))
    if study_id is None:
        raise RecordNotFoundError("instance", instance_id)
    row = AssessmentRow
    if connection.scalar(select(row.id).where(row.sop_instance_uid == assessment.sop_instance_uid).limit(1)):
        return 0
    ordinal = unmatched = 0
    for statement in assessment.statements:
        findings, problem = _matching(connection, statement, study_id)
        unmatched += not findings
        for finding in findings or (None,):
            _keep(connection, assessment, statement, ordinal, study_id, finding, problem, now)
            ordinal += 1
    return unmatched


def unmatched(engine: Engine, limit: int = 50, study_id: int | None = None) -> tuple[Unmatched, ...]:
    """Statements that fit no finding of ours, the latest first."""
    row = AssessmentRow.__table__
    query = select(row).where(row.c.feedback_id.is_(None)).order_by(row.c.id.desc()).limit(limit)
    if study_id is not None:
        query = query.where(row.c.study_id == study_id)
    with engine.connect() as connection:
        return tuple(
            Unmatched(one.study_id, one.verdict, one.observer, one.problem, one.comment, one.at)
            for one in connection.execute(query)
        )


def _matching(connection: Connection, statement: Statement, study_id: int) -> tuple[Sequence[Row[Any]], str]:
    """The findings that a statement is about, or why there is none."""
    if not statement.verdict:
        return (), "its verdict is none that is known here"
    results = _results(connection, statement.referenced)
    if any(result.study_id != study_id for result in results):
        return (), "it refers to a result of another study"
    if statement.tracking_uid:
        return _tracked(connection, statement, study_id, results)
    if not results:
        return (), "it refers to no result of this node"
    findings = [finding for result in results for finding in _carried_findings(connection, result)]
    unique = list({finding.id: finding for finding in findings}.values())
    if len(unique) == 1 or (unique and statement.verdict == Verdict.ACCEPT):
        return unique, ""
    return (), f"it names none of the {len(unique)} findings of the result"


def _tracked(
    connection: Connection, statement: Statement, study_id: int, results: Sequence[Row[Any]]
) -> tuple[Sequence[Row[Any]], str]:
    finding = Finding.__table__
    of_study = connection.execute(select(finding).where(finding.c.study_id == study_id)).all()
    found = [row for row in of_study if statement.tracking_uid in _uids_of(row)][:1]
    if not found:
        return (), "its tracking UID belongs to no finding of this study"
    jobs = {result.job_id for result in results if result.job_id is not None}
    if jobs and found[0].job_id not in jobs:
        return (), "its tracking UID belongs to another result than the one that it refers to"
    return found, ""


def _uids_of(row: Row[Any]) -> tuple[str, ...]:
    """What a finding, or one of its lesions, is called in SEG and SR: a verdict on a lesion is one on its finding."""
    return (row.tracking_uid, *(lesion.tracking_uid for lesion in row.lesions))


def _results(connection: Connection, uids: Sequence[str]) -> Sequence[Row[Any]]:
    result = Result.__table__
    known = [uid for uid in uids if uid]
    return connection.execute(select(result).where(result.c.sop_instance_uid.in_(known))).all() if known else ()


def _carried_findings(connection: Connection, result: Row[Any]) -> Sequence[Row[Any]]:
    """The findings that a result carries out of the node."""
    finding = Finding.__table__
    query = select(finding).where(
        finding.c.job_id == result.job_id, finding.c.revision == result.revision, finding.c.shadow.is_(False)
    )
    return connection.execute(query.order_by(finding.c.id)).all()


def _keep(
    connection: Connection,
    assessment: Assessment,
    statement: Statement,
    ordinal: int,
    study_id: int,
    finding: Row[Any] | None,
    problem: str,
    now: datetime,
) -> None:
    observer = _shown(assessment.observer)
    comment = _clean(statement.comment)[:2000]
    feedback_id = None
    if finding is not None:
        feedback_id = insert_verdict(
            connection,
            finding,
            _verdict(statement, finding),
            now,
            actor=f"dicom:{observer}",
            comment=comment,
            source="dicom",
        )
    connection.execute(
        insert(AssessmentRow).values(
            study_id=study_id,
            sop_instance_uid=assessment.sop_instance_uid[:64],
            ordinal=ordinal,
            referenced_uid=next(iter(statement.referenced), "")[:64],
            tracking_uid=statement.tracking_uid[:64],
            verdict=statement.verdict[:16],
            comment=comment,
            observer=observer,
            feedback_id=feedback_id,
            problem=problem,
            at=now,
        )
    )


def _verdict(statement: Statement, finding: Row[Any]) -> Verdict:
    if statement.verdict == ADDED:
        return Verdict.MODIFY if finding.present else Verdict.REJECT
    return Verdict(statement.verdict)


def _shown(person: str) -> str:
    """A person's name (VR PN) in one line; the alphabetic group only."""
    parts = _clean(person).split("=", 1)[0].split("^")
    family, given = parts[0].strip(), " ".join(part.strip() for part in parts[1:3] if part.strip())
    return ", ".join(part for part in (family, given) if part)[:70] or _UNKNOWN_PERSON


def _clean(value: str) -> str:
    return " ".join(value.replace("\0", " ").encode("utf-8", "replace").decode("utf-8").split())
