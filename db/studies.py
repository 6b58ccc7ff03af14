"""Studies: what triage must know of one, what it decided, and completing a study that is stable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, case, func, or_, select, update

from db import tables
from db.backfill import is_backfilled, is_only_prior
from db.errors import RecordNotFoundError
from db.instance_flags import NOT_COUNTED
from db.instances import REJECTED
from db.jobs import WAITING
from db.leases import turn
from db.node_rules import Rules
from db.notifications import create_notifications
from db.patients import PatientRules
from db.queries.priors import prior_findings
from db.queries.worklist import current_findings
from db.records import NotEligible, ResultRecord, Route, StudyFacts, TriageDecision
from db.results import keep_results
from db.states import JobState, StudyState
from db.study_rules import NotificationRules
from db.study_status import returned_at
from db.transitions import event, lock_study, move, write_events


def facts(connection: Connection, study_id: int, rules: PatientRules) -> StudyFacts:
    """What triage needs to know of a study."""
    study, job = tables.Study.__table__, tables.Job
    row = connection.execute(select(study).where(study.c.id == study_id)).one_or_none()
    if row is None:
        raise RecordNotFoundError("study", study_id)
    counts = connection.execute(
        select(
            _count(job.state.in_(WAITING)).label("waiting"),
            _count(job.state == JobState.DONE).label("done"),
            _count(job.state == JobState.FAILED).label("failed"),
            _count((job.state == JobState.DONE) & (job.not_analysed_code != "")).label("not_analysed"),
        ).where(job.study_id == study_id)
    ).one()
    by_job = current_findings(connection, [study_id], "job_id")
    findings = tuple(one for found in by_job.values() for one in found)
    wanted = {finding.label for finding in findings if finding.present and not finding.shadow}
    return StudyFacts(
        study_id=row.id,
        first_received_at=row.first_received_at,
        stat=row.stat,
        hospital_priority=row.hospital_priority,
        findings=findings,
        jobs_waiting=counts.waiting,
        jobs_done=counts.done,
        jobs_failed=counts.failed,
        images_not_eligible=row.not_eligible - counts.not_analysed,
        images_not_analysed=counts.not_analysed,
        activity=row.activity,
        revision=row.revision,
        reported=row.reported_at is not None,
        study_date=row.study_date,
        priors=prior_findings(connection, row, wanted, rules),
        returned_at=returned_at(connection, row),
        not_eligible_reasons=_refusals(connection, study_id) if counts.not_analysed or not counts.done else (),
        pulled=(pulled := is_backfilled(connection, row.study_instance_uid, row.first_received_at)),
        only_prior=pulled and is_only_prior(connection, row.study_instance_uid),
        decision=_decision(row),
    )


def _decision(study: Row[Any]) -> TriageDecision:
    """What triage has decided of a study so far."""
    return TriageDecision(study.priority, study.due_at, study.analysis, study.reason)


def to_complete(
    connection: Connection, study_id: int, rules: PatientRules
) -> tuple[StudyFacts, tuple[Route | None, ...]]:
    """What is to be known of a study before it is completed: :func:`facts` and :func:`routes`."""
    return facts(connection, study_id, rules), routes(connection, study_id)


def routes(connection: Connection, study_id: int) -> tuple[Route | None, ...]:
    """What the routing rules decided about the images that count of a study, as far as they were asked.

    None stands for images that were analysed while there were no rules.
    """
    instance, job = tables.Instance, tables.Job
    analysed = select(job.id).where(job.instance_id == instance.id).exists()
    query = select(instance.route).where(
        instance.study_id == study_id, instance.flag.not_in(NOT_COUNTED), or_(instance.route.is_not(None), analysed)
    )
    return tuple(dict.fromkeys(connection.scalars(query.order_by(instance.id))))


def arrival(connection: Connection, study_id: int) -> Any:
    """A row with ``first_received_at``, ``reported`` and ``only_prior`` of a study.

    Raises:
        RecordNotFoundError: there is no such study.
    """
    study, pulled = tables.Study, tables.BackfilledStudy
    only_prior = (pulled.study_instance_uid == study.study_instance_uid) & pulled.for_prior
    query = select(
        study.first_received_at,
        study.reported_at.is_not(None).label("reported"),
        select(pulled.for_prior).where(only_prior).exists().label("only_prior"),
    ).where(study.id == study_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RecordNotFoundError("study", study_id)
    return row


def _refusals(connection: Connection, study_id: int) -> tuple[NotEligible, ...]:
    """Why images of a study were not analysed: what was tried, then what the header rules refused."""
    job, instance = tables.Job, tables.Instance
    tried = (
        select(job.not_analysed_code, job.not_analysed_reason)
        .where(job.study_id == study_id, job.state == JobState.DONE, job.not_analysed_code != "")
        .order_by(job.id)
    )
    not_eligible = (
        select(instance.not_eligible_code, instance.not_eligible_reason)
        .where(
            instance.study_id == study_id,
            instance.not_eligible_code.not_in(("", REJECTED)),
            instance.flag.not_in(NOT_COUNTED),
        )
        .order_by(instance.id)
    )
    rows = (*connection.execute(tried).all(), *connection.execute(not_eligible).all())
    return tuple(dict.fromkeys(NotEligible(code, sentence) for code, sentence in rows))


def _count(condition: Any) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def triage(
    connection: Connection,
    study_id: int,
    decide: Callable[[StudyFacts], TriageDecision],
    rules: Rules,
    now: datetime,
) -> TriageDecision:
    """Let ``decide`` decide from what is known now, write it down with what follows, and give the decision.

    The study is locked before it is read: of two who decide at once, the later one knows all that the earlier knew.
    """
    lock_study(connection, study_id)
    decision = decide(facts(connection, study_id, rules.patients))
    record_triage(connection, study_id, decision, now, rules.notifications)
    return decision


def record_triage(
    connection: Connection, study_id: int, decision: TriageDecision, now: datetime, notifications: NotificationRules
) -> None:
    """Write what triage decided, with the notifications that follow; nothing where it decided the same before."""
    study = lock_study(connection, study_id)
    create_notifications(connection, study, decision.notifications, notifications, now)
    before = _decision(study)
    if before == replace(decision, notifications=()):
        return
    connection.execute(
        update(tables.Study)
        .where(tables.Study.id == study_id)
        .values(priority=decision.priority, due_at=decision.due_at, analysis=decision.analysis, reason=decision.reason)
    )
    old, new = (f"{one.priority.value}, {one.analysis.value}" for one in (before, decision))
    write_events(connection, [event(study_id, "study", study_id, old, new, decision.reason, "triage", now)])


def stable(connection: Connection, now: datetime, stable_for: timedelta, limit: int = 100) -> tuple[int, ...]:
    """Open studies, not on hold, with nothing waiting, in which nothing has happened for ``stable_for``.

    In turn (:func:`db.leases.turn`), and then those that have been stable for longest.
    """
    study, job = tables.Study, tables.Job
    waiting = select(job.id).where(job.study_id == study.id, job.state.in_(WAITING)).exists()
    query = (
        select(study.id)
        .where(
            study.state == StudyState.OPEN,
            study.last_activity_at <= now - stable_for,
            study.on_hold.is_(False),
            ~waiting,
        )
        .order_by(turn(study), study.last_activity_at)
        .limit(limit)
    )
    return tuple(connection.scalars(query))


def complete(
    connection: Connection,
    study_id: int,
    results: Sequence[ResultRecord],
    destinations: Mapping[str, Sequence[str]],
    now: datetime,
    activity: int | None = None,
    recorded: str = "",
    compared_with: str = "",
) -> tuple[int, ...] | None:
    """Complete a study with its summary and give the deliveries to enqueue; none where it is ``recorded`` (why).

    ``compared_with``: the Study Instance UID of the prior that the summary compares it with.

    None, and nothing written: something arrived or is waiting, the study is on hold, or it was complete before. Hand
    ``activity`` back as :func:`facts` or :func:`db.queries.study_details.study_detail` gave it when the summary was
    made, so that a change since then is noticed; without it only what is dated after ``now`` is.
    """
    study = lock_study(connection, study_id)
    job = tables.Job
    waiting = connection.execute(select(job.id).where(job.study_id == study_id, job.state.in_(WAITING)).limit(1))
    changed = study.last_activity_at > now if activity is None else study.activity != activity
    if study.state is not StudyState.OPEN or study.on_hold or changed or waiting.first() is not None:
        return None
    revision = study.revision + 1 if results else study.revision
    move(
        connection, "study", study, StudyState.COMPLETE,
        cause="no further image has arrived", actor="scheduler", now=now,
        completed_at=now, revision=revision, compared_with=compared_with, files_removed_at=None,
    )  # fmt: skip
    return keep_results(
        connection,
        study,
        results,
        destinations,
        job_id=None,
        revision=revision,
        patient_id=study.patient_id,
        actor="scheduler",
        now=now,
        recorded=recorded,
    )
