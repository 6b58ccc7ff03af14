"""Jobs: claiming, finishing, trying again, and finding those that nobody works at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, func, or_, select, update

from db import tables
from db.errors import RecordNotFoundError, StudyOnHoldError, TransitionError
from db.instance_flags import COMPARE, CONFLICT, REPEAT
from db.leases import ENDED, due_again, is_claimable, lock_held_by, not_dispatched
from db.patients import patient_columns, was_corrected
from db.prepared_statements import Prepared
from db.records import Job, NotEligible, Outcome, PatientIdentity, Route
from db.results import keep_findings, keep_results
from db.states import JOBS, InstanceState, JobState
from db.transitions import lock_study, move, touch_study

OPEN = (JobState.QUEUED, JobState.RUNNING, JobState.RETRYING)
"""A job in one of these states goes on by itself."""

WAITING = (*OPEN, JobState.ON_HOLD)
"""A job in one of these states has not come to its end."""


_JOB: Any = tables.Job.__table__
_INSTANCE: Any = tables.Instance.__table__
_STUDY: Any = tables.Study.__table__

_CLAIMED = Prepared(
    lambda _: (
        select(
            _JOB,
            _INSTANCE.c.sop_instance_uid,
            _INSTANCE.c.digest.label("instance_digest"),
            _INSTANCE.c.path.label("instance_path"),
            _INSTANCE.c.flag,
            _INSTANCE.c.route,
            _INSTANCE.c.calling_ae_title,
            _STUDY.c.on_hold,
            *patient_columns(_STUDY.c),
        )
        .join(_INSTANCE, _INSTANCE.c.id == _JOB.c.instance_id)
        .join(_STUDY, _STUDY.c.id == _JOB.c.study_id)
        .where(_JOB.c.id == bindparam("id"))
        .with_for_update(key_share=True, of=_JOB)
    )
)
_STUDY_OF = Prepared(lambda _: select(_JOB.c.study_id).where(_JOB.c.id == bindparam("id")))
_LOCKED = Prepared(lambda _: select(_JOB).where(_JOB.c.id == bindparam("id")).with_for_update(key_share=True))
_INSTANCE_OF = Prepared(lambda _: select(_INSTANCE).where(_INSTANCE.c.id == bindparam("id")))


def claim(connection: Connection, job_id: int, worker: str, now: datetime, lease: timedelta) -> Job | None:
    """Take a job for ``worker`` until ``now + lease``; None where it cannot be taken.

    It can be taken where it is queued, due for another attempt, or running under a lease that is over, unless its
    study is on hold. Of workers that claim at once exactly one wins.
    """
    row = _CLAIMED.first(connection, {"id": job_id})
    if row is None or row.on_hold or not _is_claimable(row, now):
        return None
    values: dict[str, Any] = {
        "worker": worker,
        "lease_until": now + lease,
        "attempts": row.attempts + 1,
        "started_at": now,
    }
    if row.state is JobState.RUNNING:
        # The lease of its worker is over. On its way to another worker it is queued for a moment.
        move(connection, "job", row, JobState.QUEUED, cause="lease is over", actor=worker, now=now)
    before = JobState.QUEUED if row.state is JobState.RUNNING else row.state
    move(connection, "job", row, JobState.RUNNING, cause="claimed", actor=worker, now=now, before=before, **values)
    compare_with = _earlier(connection, row) if row.flag == COMPARE else None
    return _job(row, row.attempts + 1, compare_with, _patient(connection, row.flag, row.study_id, row))


def claim_between(
    connection: Connection, job_id: int, worker: str, now: datetime, lease: timedelta, *, routine: Job
) -> Job | None:
    """Take a job between two stages of the ``routine`` one that ``worker`` has, whose attempt does not count meanwhile.

    What kills the process then, or uses up its time, is not the routine image. :func:`count_attempts` ends it.
    """
    job = claim(connection, job_id, worker, now, lease)
    if job is not None:
        count_attempts(connection, routine.id, worker, routine.attempts - 1)
    return job


def count_attempts(connection: Connection, job_id: int, worker: str, attempts: int) -> None:
    """Set how many attempts at a job have counted, unless ``worker`` has lost its claim."""
    job = tables.Job
    mine = (job.id == job_id, job.state == JobState.RUNNING, job.worker == worker, job.attempts != attempts)
    connection.execute(update(job).where(*mine).values(attempts=attempts))


def _earlier(connection: Connection, row: Row[Any]) -> tuple[str, ...]:
    """Files of the instances that came before one under its SOP Instance UID, and are none of each other's repeats."""
    instance = tables.Instance
    query = select(instance.path).where(
        instance.sop_instance_uid == row.sop_instance_uid,
        instance.study_id == row.study_id,
        instance.flag.not_in((COMPARE, REPEAT)),
    )
    return tuple(connection.scalars(query.order_by(instance.id.desc())))


def _patient(connection: Connection, flag: str, study_id: int, known: Row[Any]) -> PatientIdentity | None:
    """What the hospital has said since of the patient; a later image says it itself, so its header holds."""
    if flag == CONFLICT or not was_corrected(connection, study_id):
        return None
    return PatientIdentity(*(getattr(known, name) for name in PatientIdentity.__dataclass_fields__))


def _is_claimable(row: Row[Any], now: datetime) -> bool:
    return row.state is JobState.QUEUED or is_claimable(row, JobState.RETRYING, JobState.RUNNING, now)


def finish(connection: Connection, job_id: int, worker: str, outcome: Outcome, now: datetime) -> tuple[int, ...] | None:
    """Write everything that a job has made, with its deliveries, and give those to enqueue: the first for each
    destination, with which the others go.

    A second call for the same claim writes nothing and gives the same deliveries. None: the claim is lost, and
    nothing was written. So it is where the hospital has corrected the patient since the job was claimed: the results
    name the former one, and the job is queued again. While the study is on hold its deliveries are on hold too, and
    none is to be enqueued.

    Raises:
        DuplicateResultError: other work has left a result with one of the UIDs.
    """
    study, job = lock(connection, job_id)
    if job.state is JobState.DONE and job.worker == worker:
        return _deliveries(connection, job)
    if job.state is not JobState.RUNNING or job.worker != worker:
        return None
    instance = instance_of(connection, job.instance_id)
    patient = _patient(connection, instance.flag, study.id, study)
    if outcome.patient != patient:
        _queue_again(connection, study, job, worker, "the hospital has corrected the patient meanwhile", now)
        return None
    _mark_done(connection, job, worker, outcome, now)
    counted = _mark_not_analysed(connection, instance, worker, outcome.not_analysed, now)
    if outcome.decided_anew:
        connection.execute(update(tables.Instance).where(tables.Instance.id == instance.id).values(route=outcome.route))
    keep_findings(connection, job, outcome.findings, now)
    deliveries = keep_results(
        connection,
        study,
        outcome.results,
        outcome.destinations,
        job_id=job.id,
        revision=job.revision,
        patient_id=str((patient or instance).patient_id),
        actor=worker,
        now=now,
        recorded=outcome.recorded,
    )
    touch_study(connection, study, now, reopen="an analysis finished", **counted)
    return deliveries


def _mark_done(connection: Connection, job: Row[Any], worker: str, outcome: Outcome, now: datetime) -> None:
    not_analysed = outcome.not_analysed
    values: dict[str, Any] = {
        "lease_until": None,
        "due_at": None,
        "error": "",
        "finished_at": now,
        "timings": dict(outcome.timings),
        "modes": dict(outcome.modes),
        "measures": dict(outcome.measures),
        "ran_on": outcome.ran_on,
        "not_analysed_code": not_analysed.code if not_analysed else "",
        "not_analysed_reason": not_analysed.sentence if not_analysed else "",
    }
    cause = not_analysed.code if not_analysed else "analysed"
    move(connection, "job", job, JobState.DONE, cause=cause, actor=worker, now=now, **values)


def _mark_not_analysed(
    connection: Connection, instance: Row[Any], worker: str, reason: NotEligible | None, now: datetime
) -> dict[str, Any]:
    """Make an instance that could not be analysed not eligible; what changes in the counts of its study."""
    if reason is None or instance.state is not InstanceState.ELIGIBLE:
        return {}
    values: dict[str, Any] = {"not_eligible_code": reason.code, "not_eligible_reason": reason.sentence}
    state = InstanceState.NOT_ELIGIBLE
    move(connection, "instance", instance, state, cause=reason.code, actor=worker, now=now, **values)
    return {"not_eligible": tables.Study.not_eligible + 1}


def retry(
    connection: Connection,
    job_id: int,
    worker: str,
    error: str,
    now: datetime,
    after: timedelta,
    *,
    counted: bool = True,
) -> bool:
    """Let a claimed job be tried again from ``now + after`` on; False where the claim is lost.

    An attempt that is not ``counted`` was none: what it needed was not there.
    """
    study, job = lock(connection, job_id)
    if job.state is not JobState.RUNNING or job.worker != worker:
        return False
    attempts = job.attempts - (0 if counted else 1)
    values = {**ENDED, "due_at": now + after, "error": error, "attempts": attempts}
    move(connection, "job", job, JobState.RETRYING, cause=error, actor=worker, now=now, **values)
    if study.on_hold:
        reason, before = study.hold_reason, JobState.RETRYING
        move(connection, "job", job, JobState.ON_HOLD, cause=reason, actor=worker, now=now, before=before)
    return True


def hand_over(connection: Connection, job_id: int, worker: str, queue: str, now: datetime) -> bool:
    """Let the workers of another queue have a claimed job, which was not tried; False where the claim is lost."""
    study, job = lock(connection, job_id)
    if job.state is not JobState.RUNNING or job.worker != worker:
        return False
    _queue_again(connection, study, job, worker, f"waits in {queue}", now, queue=queue)
    return True


def _queue_again(
    connection: Connection, study: Row[Any], job: Row[Any], worker: str, cause: str, now: datetime, **more: Any
) -> None:
    """Queue a claimed job anew, as if it had not been tried; the scheduler enqueues it."""
    values = {**ENDED, "dispatched_at": None, "attempts": job.attempts - 1, **more}
    move(connection, "job", job, JobState.QUEUED, cause=cause, actor=worker, now=now, **values)
    if study.on_hold:
        reason, before = study.hold_reason, JobState.QUEUED
        move(connection, "job", job, JobState.ON_HOLD, cause=reason, actor=worker, now=now, before=before)


def in_other_queues(connection: Connection, queues: Sequence[str], limit: int) -> tuple[tuple[int, Route | None], ...]:
    """Jobs that have not ended and wait in none of ``queues``, the oldest first, each with what routing has decided."""
    job, instance = tables.Job, tables.Instance
    query = select(job.id, instance.route).join(instance, instance.id == job.instance_id)
    waiting = query.where(job.state.in_(WAITING), job.queue.not_in(queues)).order_by(job.id).limit(limit)
    return tuple((row.id, row.route) for row in connection.execute(waiting))


def put_into_queue(connection: Connection, job_ids: Sequence[int], queue: str) -> None:
    """Let jobs that wait elsewhere wait in ``queue``; the scheduler enqueues them there."""
    query = update(tables.Job).where(tables.Job.id.in_(list(job_ids)), tables.Job.state.in_(WAITING))
    connection.execute(query.values(queue=queue, dispatched_at=None))


def fail(connection: Connection, job_id: int, worker: str, error: str, now: datetime) -> bool:
    """Fail a claimed job for the admin to see; False where the claim is lost."""
    study, job = lock(connection, job_id)
    if job.state is not JobState.RUNNING or job.worker != worker:
        return False
    values = {**ENDED, "error": error, "finished_at": now}
    move(connection, "job", job, JobState.FAILED, cause=error, actor=worker, now=now, **values)
    touch_study(connection, study, now, reopen="an analysis failed")
    return True


def release(connection: Connection, worker_prefix: str, now: datetime) -> tuple[int, ...]:
    """Queue the running jobs of all workers whose name starts with ``worker_prefix`` again: they have died."""
    rows = lock_held_by(connection, tables.Job, JobState.RUNNING, worker_prefix)
    for row in rows:
        values = {**ENDED, "dispatched_at": None, "queued_at": now}
        move(connection, "job", row, JobState.QUEUED, cause="its worker died", actor="node", now=now, **values)
    return tuple(row.id for row in rows)


def requeue(connection: Connection, job_id: int, actor: str, cause: str, now: datetime) -> None:
    """Run a failed, held, retrying or finished job again because a person asks for it.

    A finished one becomes the next revision. The scheduler enqueues it; the study is open again.

    Raises:
        TransitionError: it is queued or running.
        StudyOnHoldError: its study must be released first.
    """
    study, job = lock(connection, job_id)
    if job.state in (JobState.RUNNING, JobState.QUEUED):
        raise TransitionError("job", job_id, job.state.value, JobState.QUEUED.value)
    if study.on_hold:
        raise StudyOnHoldError(study.id, study.hold_reason)
    values: dict[str, Any] = {
        **ENDED,
        "attempts": 0,
        "error": "",
        "dispatched_at": None,
        "queued_at": now,
        "started_at": None,
        "finished_at": None,
    }
    counted: dict[str, Any] = {}
    if job.state is JobState.DONE:
        values |= {"revision": job.revision + 1, "created_at": now, "not_analysed_code": "", "not_analysed_reason": ""}
        instance = instance_of(connection, job.instance_id)
        if instance.state is InstanceState.NOT_ELIGIBLE:
            clear: dict[str, Any] = {"not_eligible_code": "", "not_eligible_reason": ""}
            move(connection, "instance", instance, InstanceState.ELIGIBLE, cause=cause, actor=actor, now=now, **clear)
            counted["not_eligible"] = tables.Study.not_eligible - 1
    move(connection, "job", job, JobState.QUEUED, cause=cause, actor=actor, now=now, **values)
    touch_study(connection, study, now, reopen=cause, **counted)


def first_stat(connection: Connection, queue: str) -> int | None:
    """The oldest of the STAT jobs that wait in ``queue`` and that no worker has ever taken."""
    job, study = tables.Job, tables.Study
    waiting = (job.state == JobState.QUEUED, job.attempts == 0, job.stat, job.queue == queue)
    query = select(job.id).join(study, study.id == job.study_id).where(*waiting, study.on_hold.is_(False))
    return connection.scalar(query.order_by(job.id).limit(1))


def as_many_wait(connection: Connection, number: int, queue: str | None = None) -> bool:
    """Whether at least ``number`` jobs wait for a worker, in any queue or in this one; no more of them are counted."""
    waiting = select(tables.Job.id).where(tables.Job.state.in_((JobState.QUEUED, JobState.RETRYING)))
    if queue is not None:
        waiting = waiting.where(tables.Job.queue == queue)
    counted = select(func.count()).select_from(waiting.limit(number).subquery())
    return int(connection.scalar(counted) or 0) >= number


def never_tried(connection: Connection, limit: int, queue: str = JOBS) -> tuple[int, ...]:
    """Queued jobs of a queue, none of them STAT, that no worker has ever taken, the oldest first."""
    job, study = tables.Job, tables.Study
    fresh = (
        *(job.state == JobState.QUEUED, job.queue == queue, job.attempts == 0),
        *(job.stat.is_(False), study.on_hold.is_(False)),
    )
    query = select(job.id).join(study, study.id == job.study_id).where(*fresh).order_by(job.id).limit(limit)
    return tuple(connection.scalars(query))


def to_enqueue(
    connection: Connection, now: datetime, quiet: timedelta, limit: int = 500, queue: str = JOBS
) -> tuple[tuple[int, bool], ...]:
    """Jobs of a queue (id, and whether STAT) that wait for a worker and were not enqueued within ``quiet``.

    STAT first, then the oldest.
    """
    job, study = tables.Job, tables.Study
    query = (
        select(job.id, job.stat)
        .join(study, study.id == job.study_id)
        .where(job.queue == queue, study.on_hold.is_(False), or_(*undispatched(job, now, quiet)))
        .order_by(job.stat.desc(), job.id)
        .limit(limit)
    )
    return tuple((row.id, row.stat) for row in connection.execute(query))


def undispatched(job: type[tables.Job], now: datetime, quiet: timedelta) -> Sequence[ColumnElement[bool]]:
    """Conditions, one a state, for jobs whose task queue must be enqueued (again)."""
    return (
        and_(job.state == JobState.QUEUED, not_dispatched(job, now, quiet)),
        and_(job.state == JobState.RETRYING, due_again(job, job.due_at, now, quiet)),
        and_(job.state == JobState.RUNNING, due_again(job, job.lease_until, now, quiet)),
    )


def by_queue(connection: Connection, job_ids: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Jobs by the queue in which they wait."""
    found: dict[str, tuple[int, ...]] = {}
    query = select(tables.Job.id, tables.Job.queue).where(tables.Job.id.in_(list(job_ids))).order_by(tables.Job.id)
    for row in connection.execute(query):
        found[row.queue] = (*found.get(row.queue, ()), row.id)
    return found


def mark_dispatched(connection: Connection, job_ids: Sequence[int], now: datetime) -> None:
    """Note that a message was sent for these jobs."""
    connection.execute(update(tables.Job).where(tables.Job.id.in_(list(job_ids))).values(dispatched_at=now))


def late(connection: Connection, now: datetime, older_than: timedelta) -> tuple[int, ...]:
    """Jobs that were queued longer ago than ``older_than`` and are still open, the oldest first."""
    job = tables.Job
    query = select(job.id).where(job.state.in_(OPEN), job.queued_at <= now - older_than).order_by(job.queued_at, job.id)
    return tuple(connection.scalars(query))


def lock(connection: Connection, job_id: int) -> tuple[Row[Any], Row[Any]]:
    """Lock a job and, before it, its study."""
    found = _STUDY_OF.first(connection, {"id": job_id})
    if found is None:
        raise RecordNotFoundError("job", job_id)
    return lock_study(connection, found.study_id), _LOCKED.first(connection, {"id": job_id})


def instance_of(connection: Connection, instance_id: int) -> Row[Any]:
    """The row of a job's instance."""
    row: Row[Any] = _INSTANCE_OF.first(connection, {"id": instance_id})
    return row


def _deliveries(connection: Connection, job: Row[Any]) -> tuple[int, ...]:
    """The first delivery of a job to each destination."""
    delivery, result = tables.Delivery, tables.Result
    query = (
        select(func.min(delivery.id).label("first"))
        .join(result, result.id == delivery.result_id)
        .where(result.job_id == job.id, result.revision == job.revision)
        .group_by(delivery.destination)
        .order_by("first")
    )
    return tuple(connection.scalars(query))


def _job(row: Row[Any], attempts: int, compare_with: tuple[str, ...] | None, patient: PatientIdentity | None) -> Job:
    return Job(
        id=row.id,
        instance_id=row.instance_id,
        study_id=row.study_id,
        pipeline=row.pipeline,
        state=JobState.RUNNING,
        attempts=attempts,
        revision=row.revision,
        stat=row.stat,
        created_at=row.created_at,
        sop_instance_uid=row.sop_instance_uid,
        instance_digest=row.instance_digest,
        instance_path=row.instance_path,
        compare_with=compare_with,
        patient=patient,
        replaces=row.flag == CONFLICT,
        route=row.route,
        calling_ae_title=row.calling_ae_title,
    )
