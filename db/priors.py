"""The search for the last prior chest radiograph of a study: pending studies, results, and the time limit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from db.backfill import LONGEST_PULL
from db.instance_statements import insert_or_ignore
from db.jobs import WAITING
from db.patients import PatientIdentifier
from db.states import InstanceState, JobState, StudyState
from db.study_rules import READ_ELSEWHERE
from db.study_status import report
from db.tables import BackfilledStudy, Instance, Job, PriorSearch, Study


@dataclass(frozen=True, slots=True)
class WantedPrior:
    """A new study, whose patient's last prior is to be found. ``person``: name, birth date and sex."""

    study_id: int
    study_instance_uid: str
    identifier: PatientIdentifier
    person: tuple[str, str, str]
    study_date: str


def wanted(connection: Connection, now: datetime, wait: timedelta, limit: int = 20) -> tuple[WantedPrior, ...]:
    """New studies with something to analyse for which no prior was looked for, the oldest first.

    Not those that a backfill has pulled, those on hold, and those that came longer than ``wait`` ago.
    """
    pulled = select(BackfilledStudy.requested_at).where(BackfilledStudy.study_instance_uid == Study.study_instance_uid)
    query = (
        select(Study)
        .where(
            Study.state == StudyState.OPEN,
            Study.on_hold.is_(False),
            Study.first_received_at > now - wait,
            select(Job.id).where(Job.study_id == Study.id).exists(),
            ~select(PriorSearch.study_id).where(PriorSearch.study_id == Study.id).exists(),
            ~pulled.exists(),
        )
        .order_by(Study.first_received_at)
        .limit(limit)
    )
    return tuple(
        WantedPrior(
            row.id,
            row.study_instance_uid,
            PatientIdentifier(row.patient_id, row.issuer_of_patient_id),
            (row.patient_name, row.patient_birth_date, row.patient_sex),
            row.study_date,
        )
        for row in connection.execute(query.with_only_columns(*Study.__table__.c)).all()
    )


def begin(connection: Connection, study_id: int, now: datetime) -> bool:
    """Begin the search for a study; False where another scheduler has."""
    row = insert_or_ignore(connection, PriorSearch).values(study_id=study_id, started_at=now)
    return connection.execute(row.returning(PriorSearch.study_id)).first() is not None


def end(connection: Connection, study_id: int, prior_study_instance_uid: str, problem: str, now: datetime) -> None:
    """Write what a search has come to."""
    values = {"prior_study_instance_uid": prior_study_instance_uid, "problem": problem, "ended_at": now}
    connection.execute(update(PriorSearch).where(PriorSearch.study_id == study_id).values(**values))


def pulling(connection: Connection, study_id: int, prior_study_instance_uid: str) -> None:
    """Note which study a search pulls now: a process that is lost meanwhile leaves it on the worklist."""
    values = {"prior_study_instance_uid": prior_study_instance_uid}
    connection.execute(update(PriorSearch).where(PriorSearch.study_id == study_id).values(**values))


def lost(connection: Connection, now: datetime) -> tuple[int, ...]:
    """The studies whose search has not ended, and whose process is gone by now."""
    began = PriorSearch.started_at <= now - LONGEST_PULL
    return tuple(connection.scalars(select(PriorSearch.study_id).where(PriorSearch.ended_at.is_(None), began)))


def end_lost(connection: Connection, study_id: int, now: datetime) -> None:
    """End such a search, and take off the worklist what it had pulled; with what has come of it, it is compared."""
    query = select(PriorSearch.prior_study_instance_uid).where(PriorSearch.study_id == study_id)
    prior = connection.execute(query).scalar_one()
    take_off_worklist(connection, prior, now)
    found = prior if is_usable(connection, prior) else ""
    end(connection, study_id, found, "" if found else "the search for a prior was interrupted", now)


def may_still_come(connection: Connection, study_id: int, now: datetime, wait: timedelta) -> bool:
    """Whether a prior of this study is looked for, or being analysed; never longer than ``wait`` after it came."""
    study = connection.execute(select(Study.__table__).where(Study.id == study_id)).one()
    pulled = select(BackfilledStudy.requested_at).where(BackfilledStudy.study_instance_uid == study.study_instance_uid)
    analysed = select(Job.id).where(Job.study_id == study_id).limit(1)
    if not study.first_received_at > now - wait or connection.execute(pulled).first() is not None:
        return False
    search = connection.execute(select(PriorSearch.__table__).where(PriorSearch.study_id == study_id)).one_or_none()
    if search is None or search.ended_at is None:
        return connection.execute(analysed).first() is not None
    prior = select(Study.id).where(Study.study_instance_uid == search.prior_study_instance_uid)
    waiting = select(Job.id).where(Job.study_id.in_(prior), Job.state.in_(WAITING), Job.state != JobState.ON_HOLD)
    return connection.execute(waiting.limit(1)).first() is not None


def is_usable(connection: Connection, study_instance_uid: str) -> bool:
    """Whether something of a study is analysed, or will be."""
    query = (
        select(Instance.id)
        .join(Study, Study.id == Instance.study_id)
        .where(Study.study_instance_uid == study_instance_uid, Instance.state == InstanceState.ELIGIBLE)
    )
    return connection.execute(query.limit(1)).first() is not None


def take_off_worklist(connection: Connection, study_instance_uid: str, now: datetime) -> None:
    """Mark a study as reported that is here only as a prior of a newer one: it is not to be reported here."""
    query = (
        select(Study.id)
        .join(BackfilledStudy, BackfilledStudy.study_instance_uid == Study.study_instance_uid)
        .where(Study.study_instance_uid == study_instance_uid, BackfilledStudy.for_prior.is_(True))
    )
    study_id = connection.execute(query).scalar_one_or_none()
    if study_id is not None:
        report(connection, study_id, now, actor=READ_ELSEWHERE, cause="pulled to compare a newer study with it")
