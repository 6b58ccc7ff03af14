"""Studies: what triage must know of one, what it decided, and completing a study that is stable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, func, or_, select, update

from db import tables
from db.backfill import is_backfilled, is_only_prior
from db.errors import RecordNotFoundError
from db.instance_flags import NOT_COUNTED
from db.instance_statements import values_of
from db.instances import REJECTED
from db.jobs import WAITING
from db.leases import turn
from db.node_rules import Rules
from db.notifications import create_notifications
from db.patients import PatientRules
from db.prepared_statements import Prepared
from db.queries.priors import prior_findings
from db.queries.worklist_rows import current_findings
from db.records import NotEligible, ResultRecord, Route, StudyFacts, TriageDecision
from db.results import keep_results
from db.states import JobState, StudyState
from db.study_rules import NotificationRules
from db.study_status import returned_at
from db.transitions import event, lock_study, move, write_events


def _count(condition: Any) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _waits() -> ColumnElement[bool]:
    return or_(*(_JOB.c.state == state for state in WAITING))


_JOB: Any = tables.Job.__table__
_STUDY: Any = tables.Study.__table__

_SEEN = Prepared(lambda _: select(_STUDY).where(_STUDY.c.id == bindparam("id")))
_COUNTED = Prepared(
    lambda _: select(
        _count(_waits()).label("waiting"),
        _count(_JOB.c.state == JobState.DONE).label("done"),
        _count(_JOB.c.state == JobState.FAILED).label("failed"),
        _count((_JOB.c.state == JobState.DONE) & (_JOB.c.not_analysed_code != "")).label("not_analysed"),
    ).where(_JOB.c.study_id == bindparam("study_id"))
)
_WAITING_JOB = Prepared(lambda _: select(_JOB.c.id).where(_JOB.c.study_id == bindparam("study_id"), _waits()).limit(1))
_DECIDE = Prepared(
    lambda _: (
        update(_STUDY)
        .where(_STUDY.c.id == bindparam("decided_id"))
        .values(values_of(_STUDY, "priority", "due_at", "analysis", "reason"))
    )
)
_INSTANCE: Any = tables.Instance.__table__
_ROUTES = Prepared(
    lambda _: (
        select(_INSTANCE.c.route)
        .where(
            _INSTANCE.c.study_id == bindparam("study_id"),
            *(_INSTANCE.c.flag != flag for flag in NOT_COUNTED),
            or_(_INSTANCE.c.route.is_not(None), select(_JOB.c.id).where(_JOB.c.instance_id == _INSTANCE.c.id).exists()),
        )
        .order_by(_INSTANCE.c.id)
    )
)
_ONLY_PRIOR = (tables.BackfilledStudy.study_instance_uid == tables.Study.study_instance_uid) & (
    tables.BackfilledStudy.for_prior
)
_ARRIVAL = Prepared(
    lambda _: select(
        tables.Study.first_received_at,
        tables.Study.reported_at.is_not(None).label("reported"),
        select(tables.BackfilledStudy.for_prior).where(_ONLY_PRIOR).exists().label("only_prior"),
    ).where(tables.Study.id == bindparam("id"))
)


def facts(connection: Connection, study_id: int, rules: PatientRules) -> StudyFacts:
    """What triage needs to know of a study."""
    row = _SEEN.first(connection, {"id": study_id})
    if row is None:
        raise RecordNotFoundError("study", study_id)
    counts = _COUNTED.first(connection, {"study_id": study_id})
    by_job = current_findings(connection, study_id)
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
    return tuple(dict.fromkeys(row.route for row in _ROUTES.rows(connection, {"study_id": study_id})))


def arrival(connection: Connection, study_id: int) -> Any:
    """A row with ``first_received_at``, ``reported`` and ``only_prior`` of a study.

    Raises:
        RecordNotFoundError: there is no such study.
    """
    row = _ARRIVAL.first(connection, {"id": study_id})
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
    values = {name: getattr(decision, name) for name in ("priority", "due_at", "analysis", "reason")}
    _DECIDE.run(connection, {"decided_id": study_id, **values})
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
    waiting = _WAITING_JOB.first(connection, {"study_id": study_id}) is not None
    changed = study.last_activity_at > now if activity is None else study.activity != activity
    if study.state is not StudyState.OPEN or study.on_hold or changed or waiting:
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
