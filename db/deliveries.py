"""Deliveries: claiming them in storing order, and noting how each one went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, case, func, or_, select, update

from db import tables, verification
from db.audit import AuditEntry, write_entry
from db.errors import RecordNotFoundError, StudyOnHoldError, TransitionError
from db.holds import hold_reason_of, stays_here
from db.instance_statements import KNOW_DESTINATION, values_of
from db.leases import ENDED, due_again, is_claimable, lock_held_by, not_dispatched, turn
from db.model_states import hold_back, on_hold_by_model
from db.patients import mark_to_correct
from db.prepared_statements import Prepared
from db.records import NOTE, Delivery
from db.states import DeliveryState
from db.transitions import event, lock_study, move, write_events

OPEN = (DeliveryState.PENDING, DeliveryState.SENDING)
"""A delivery in one of these states goes on by itself."""

_AT_ONCE = 2


_DELIVERY: Any = tables.Delivery.__table__
_RESULT: Any = tables.Result.__table__
_STUDY: Any = tables.Study.__table__
_DESTINATION: Any = tables.Destination.__table__


def _of_work(job_id: Any, *, with_job: bool) -> ColumnElement[bool]:
    """Whether a result is of a job, or (without one) of the study itself: a summary."""
    condition: ColumnElement[bool] = _RESULT.c.job_id == job_id if with_job else _RESULT.c.job_id.is_(None)
    return condition


def _is_open() -> ColumnElement[bool]:
    return or_(*(_DELIVERY.c.state == state for state in OPEN))


def _open_rows(*conditions: Any) -> Prepared:
    """Deliveries with what is sent, in storing order, locked."""
    return Prepared(
        lambda _: (
            select(
                _DELIVERY,
                _RESULT.c.kind,
                _RESULT.c.ordinal,
                _RESULT.c.sop_class_uid,
                _RESULT.c.sop_instance_uid,
                _RESULT.c.series_instance_uid,
                _RESULT.c.path,
                _RESULT.c.digest,
                _RESULT.c.created_at.label("made_at"),
                _RESULT.c.patient_id,
                _RESULT.c.job_id,
                _STUDY.c.study_instance_uid,
                stays_here(_STUDY.c, _RESULT.c.kind).label("on_hold"),
            )
            .join(_RESULT, _RESULT.c.id == _DELIVERY.c.result_id)
            .join(_STUDY, _STUDY.c.id == _DELIVERY.c.study_id)
            .where(*conditions)
            .order_by(_RESULT.c.ordinal, _DELIVERY.c.id)
            .with_for_update(key_share=True, of=_DELIVERY)
        )
    )


_TO_BE_CLAIMED = _open_rows(_DELIVERY.c.id == bindparam("id"))


@cache
def _group(*, with_job: bool) -> Prepared:
    """What is open of one work for a destination."""
    return _open_rows(
        _DELIVERY.c.destination == bindparam("destination"),
        _DELIVERY.c.study_id == bindparam("study_id"),
        _is_open(),
        _of_work(bindparam("job_id"), with_job=with_job),
    )


@cache
def _before_it(*, with_job: bool) -> Prepared:
    """What is open of one work for a destination, and comes before a place in the storing order."""
    columns = _DELIVERY.c
    return Prepared(
        lambda _: (
            select(columns.state, columns.worker, columns.due_at, columns.lease_until)
            .join(_RESULT, _RESULT.c.id == columns.result_id)
            .where(
                columns.study_id == bindparam("study_id"),
                columns.destination == bindparam("destination"),
                _is_open(),
                _of_work(bindparam("job_id"), with_job=with_job),
                _RESULT.c.ordinal < bindparam("ordinal"),
            )
        )
    )


_CORRECTION = Prepared(lambda _: select(_STUDY.c.correction).where(_STUDY.c.id == bindparam("study_id")))
_SEEN = Prepared(lambda _: select(_DELIVERY).where(_DELIVERY.c.id == bindparam("id")))
_LOCKED = Prepared(lambda _: select(_DELIVERY).where(_DELIVERY.c.id == bindparam("id")).with_for_update(key_share=True))


@cache
def _noting(names: tuple[str, ...]) -> Prepared:
    """UPDATE of these columns of a destination."""
    noted = _DESTINATION.c.name == bindparam("noted")
    return Prepared(lambda _: update(_DESTINATION).where(noted).values(values_of(_DESTINATION, *names)))


def claim(connection: Connection, delivery_id: int, worker: str, now: datetime, lease: timedelta) -> Delivery | None:
    """Take one delivery for ``worker`` until ``now + lease``; None where it cannot be taken.

    It can be taken where it is pending and due, or where the lease of another worker is over. It cannot while an
    earlier object of the same work waits for its next attempt at this destination, or is with another worker: an SR
    must not overtake the SEG that it refers to.
    """
    row = _TO_BE_CLAIMED.first(connection, {"id": delivery_id})
    if row is None or row.on_hold or not _is_claimable(row, now):
        return None
    if _would_overtake(connection, row, worker, now) or _is_on_hold_by_model(connection, row, worker, now):
        return None
    return _take(connection, row, worker, now, lease)


def _is_note(connection: Connection, result_id: int) -> bool:
    """Whether a result is a rejection note, which may leave in any case: what is wrong must go."""
    return connection.scalar(select(tables.Result.kind).where(tables.Result.id == result_id)) == NOTE


Announce = Callable[[Sequence[Delivery]], AuditEntry | None]
"""What the audit trail is told of objects before they are sent, if anything."""


def claim_with_group(
    connection: Connection, delivery_id: int, worker: str, now: datetime, lease: timedelta, announce: Announce
) -> tuple[Delivery, ...]:
    """Take a delivery as :func:`claim` does, and with it what is open of the same work for the same destination.

    One transaction, the entry of the audit trail included; none of them where the delivery cannot be taken.
    """
    first = claim(connection, delivery_id, worker, now, lease)
    if first is None:
        return ()
    others = claim_group(connection, first.destination, first.job_id, first.study_id, worker, now, lease)
    taken = (first, *others)
    entry = announce(taken)
    if entry is not None:
        write_entry(connection, entry)
    return taken


def source_images(connection: Connection, job_id: int) -> tuple[tuple[str, str], ...]:
    """The image that a job is about: its path and SOP Instance UID."""
    instance, job = tables.Instance, tables.Job
    query = select(instance.path, instance.sop_instance_uid).join(job, job.instance_id == instance.id)
    return tuple((row.path, row.sop_instance_uid) for row in connection.execute(query.where(job.id == job_id)))


def study_reports(connection: Connection, study_id: int) -> tuple[tuple[str, str], ...]:
    """The reports of the images of a study: path and SOP Instance UID of each."""
    result = tables.Result
    query = select(result.path, result.sop_instance_uid).where(result.study_id == study_id, result.kind == "sr")
    return tuple((row.path, row.sop_instance_uid) for row in connection.execute(query))


def _is_on_hold_by_model(connection: Connection, row: Row[Any], worker: str, now: datetime) -> bool:
    """Hold a delivery whose model has been taken out of delivery since, at the last moment before it would leave."""
    reason = on_hold_by_model(connection, row.result_id)
    if reason is None:
        return False
    if row.state is DeliveryState.SENDING:
        cause = "lease is over"
        values = {**ENDED, "unanswered": True}
        move(connection, "delivery", row, DeliveryState.PENDING, cause=cause, actor=worker, now=now, **values)
    hold_back(connection, row, reason, worker, now)
    return True


def _would_overtake(connection: Connection, row: Row[Any], worker: str, now: datetime) -> bool:
    """Whether an earlier object of the same work waits for its next attempt, or is with another worker."""
    of_job = {} if row.job_id is None else {"job_id": row.job_id}
    place = {"study_id": row.study_id, "destination": row.destination, "ordinal": row.ordinal}
    earlier = _before_it(with_job=bool(of_job)).rows(connection, {**place, **of_job})
    return any(one.worker != worker and not _is_claimable(one, now) for one in earlier)


def claim_group(
    connection: Connection,
    destination: str,
    job_id: int | None,
    study_id: int,
    worker: str,
    now: datetime,
    lease: timedelta,
) -> tuple[Delivery, ...]:
    """Take what is open of one job's results (of the study's summaries: ``job_id`` None) for one destination.

    In storing order. It stops at the first that is open and cannot be taken yet: an SR must not overtake the SEG that
    it refers to.
    """
    of_job = {} if job_id is None else {"job_id": job_id}
    work = {"destination": destination, "study_id": study_id, **of_job}
    taken = []
    for row in _group(with_job=bool(of_job)).rows(connection, work):
        if row.state is DeliveryState.SENDING and row.worker == worker:
            continue  # this worker has it already
        if row.on_hold or not _is_claimable(row, now):
            break
        if _is_on_hold_by_model(connection, row, worker, now):
            continue
        taken.append(_take(connection, row, worker, now, lease))
    return tuple(taken)


def _is_claimable(row: Any, now: datetime) -> bool:
    return is_claimable(row, DeliveryState.PENDING, DeliveryState.SENDING, now)


def _take(connection: Connection, row: Row[Any], worker: str, now: datetime, lease: timedelta) -> Delivery:
    lost, values = row.lost, dict[str, Any]()
    if row.state is DeliveryState.SENDING:
        lost += 1
        values["unanswered"] = True
        move(connection, "delivery", row, DeliveryState.PENDING, cause="lease is over", actor=worker, now=now)
    values |= {"worker": worker, "lease_until": now + lease, "attempts": row.attempts + 1, "lost": lost}
    after, before = DeliveryState.SENDING, DeliveryState.PENDING
    move(connection, "delivery", row, after, cause="claimed", actor=worker, now=now, before=before, **values)
    return Delivery(
        id=row.id,
        result_id=row.result_id,
        destination=row.destination,
        state=DeliveryState.SENDING,
        attempts=row.attempts + 1,
        kind=row.kind,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        path=row.path,
        study_id=row.study_id,
        study_instance_uid=row.study_instance_uid,
        patient_id=row.patient_id,
        job_id=row.job_id,
        missing=row.verify_missing,
        lost=lost,
        refused=row.refused,
        series_instance_uid=row.series_instance_uid,
        digest=row.digest,
        made_at=row.made_at,
    )


def sent(
    connection: Connection, delivery_id: int, worker: str, now: datetime, verify_after: timedelta | None = None
) -> bool:
    """The destination has answered success; False where the claim is lost.

    It is asked ``verify_after`` a while whether it holds the object, if at all.
    """
    row = _mine(connection, delivery_id, worker)
    if row is None:
        return False
    verify_due_at = None if verify_after is None else now + verify_after
    values = {**ENDED, "error": "", "sent_at": now, "verify_due_at": verify_due_at}
    values |= {"verify_attempts": 0, "lost": 0, "refused": 0}
    move(
        connection,
        "delivery",
        row,
        DeliveryState.SENT,
        cause="destination accepted it",
        actor=worker,
        now=now,
        **values,
    )
    correction = _CORRECTION.first(connection, {"study_id": row.study_id}).correction
    if correction and not _is_note(connection, row.result_id):
        # It came while this was on its way.
        mark_to_correct(connection, row, DeliveryState.SENT, correction, worker, now)
    _note(connection, row.destination, last_sent_at=now, last_error="")
    return True


def retry(
    connection: Connection,
    delivery_id: int,
    worker: str,
    error: str,
    now: datetime,
    after: timedelta,
    unanswered: bool = False,
    refused: bool = False,
) -> bool:
    """Let a claimed delivery be tried again from ``now + after`` on; False where the claim is lost.

    ``unanswered``: the object may have arrived all the same. ``refused``: the peer is there, and this attempt is one of
    the few that it gets then; those at a peer that is away are counted apart. Where its study is on hold by now, so is
    the delivery.
    """
    row = _mine(connection, delivery_id, worker)
    if row is None:
        return False
    values = {**ENDED, "due_at": now + after, "error": error, "lost": 0, "unanswered": row.unanswered or unanswered}
    values["refused"] = row.refused + int(refused)
    move(connection, "delivery", row, DeliveryState.PENDING, cause=error, actor=worker, now=now, **values)
    study = tables.Study
    columns = select(study.on_hold, study.hold_reason, study.correction).where(study.id == row.study_id)
    found: Any = connection.execute(columns).one()
    reason = None if _is_note(connection, row.result_id) else hold_reason_of(found)
    if reason is not None:
        before = DeliveryState.PENDING
        on_hold: dict[str, Any] = {"error": reason, "on_hold_with_study": True}
        move(
            connection,
            "delivery",
            row,
            DeliveryState.ON_HOLD,
            cause=reason,
            actor=worker,
            now=now,
            before=before,
            **on_hold,
        )
    _note(connection, row.destination, last_failed_at=now, last_error=error)
    return True


def fail(
    connection: Connection, delivery_id: int, worker: str, error: str, now: datetime, unanswered: bool = False
) -> bool:
    """Fail a claimed delivery for the admin to see; False where the claim is lost.

    ``unanswered``: the object may have arrived all the same.
    """
    row = _mine(connection, delivery_id, worker)
    if row is None:
        return False
    values = {**ENDED, "error": error, "unanswered": row.unanswered or unanswered}
    move(connection, "delivery", row, DeliveryState.FAILED, cause=error, actor=worker, now=now, **values)
    _note(connection, row.destination, last_failed_at=now, last_error=error)
    return True


def hold(connection: Connection, delivery_id: int, worker: str, reason: str, now: datetime) -> bool:
    """Put a claimed delivery on hold for a person; False where the claim is lost.

    The reason is its own: releasing the study does not release it.
    """
    row = _mine(connection, delivery_id, worker)
    if row is None:
        return False
    values = {**ENDED, "error": reason, "on_hold_with_study": False}
    move(connection, "delivery", row, DeliveryState.ON_HOLD, cause=reason, actor=worker, now=now, **values)
    return True


def release(connection: Connection, worker_prefix: str, now: datetime) -> tuple[int, ...]:
    """Make the deliveries of all workers whose name starts with ``worker_prefix`` pending again: they have died."""
    rows = lock_held_by(connection, tables.Delivery, DeliveryState.SENDING, worker_prefix)
    for row in rows:
        values = {**ENDED, "dispatched_at": None, "lost": row.lost + 1, "unanswered": True}
        cause = "its worker died"
        move(connection, "delivery", row, DeliveryState.PENDING, cause=cause, actor="node", now=now, **values)
    return tuple(row.id for row in rows)


def requeue(connection: Connection, delivery_id: int, actor: str, cause: str, now: datetime) -> None:
    """Send a delivery now, from the start, because a person asks for it; the scheduler enqueues it.

    It may be failed, on hold, recorded, sent or verified; a pending one waits no longer for its next attempt. Nor does
    anything else that waits for this destination because it has not answered.

    Raises:
        TransitionError: it is being sent, or withdrawn, or a newer revision stands for it.
        StudyOnHoldError: its study must be released first.
    """
    found = _row(connection, delivery_id, lock=False)
    study = lock_study(connection, found.study_id)
    row = _row(connection, delivery_id)
    if row.state is DeliveryState.SENDING or row.stale_code:
        raise TransitionError("delivery", delivery_id, row.state.value, DeliveryState.PENDING.value)
    if study.on_hold:
        raise StudyOnHoldError(study.id, study.hold_reason)
    values = {**ENDED, "attempts": 0, "error": "", "dispatched_at": None, "on_hold_with_study": False}
    values |= {"verify_missing": 0, "lost": 0, "refused": 0}
    if row.state is DeliveryState.PENDING:
        connection.execute(update(tables.Delivery).where(tables.Delivery.id == delivery_id).values(**values))
        state = row.state.value
        write_events(connection, [event(row.study_id, "delivery", delivery_id, state, state, cause, actor, now)])
    else:
        move(connection, "delivery", row, DeliveryState.PENDING, cause=cause, actor=actor, now=now, **values)
    _note(connection, row.destination, open_until=None)


def to_enqueue(connection: Connection, now: datetime, quiet: timedelta, limit: int = 500) -> tuple[int, ...]:
    """Deliveries that wait for a worker, or for a verification, and were not enqueued within ``quiet``."""
    return _to_send(connection, now, quiet, limit) + verification.to_enqueue(connection, now, quiet, limit)


def _to_send(connection: Connection, now: datetime, quiet: timedelta, limit: int) -> tuple[int, ...]:
    """Deliveries that wait for a worker and have not been enqueued lately: in turn, and then the oldest.

    Two of a destination suffice, for who is in contact with it works off what else waits for it; none of one
    that may not be called yet. One that did not answer is first tried with what was tried least: a peer may hang at one
    object and take all others.
    """
    delivery, study, destination, result = tables.Delivery, tables.Study, tables.Destination, tables.Result
    at_once = and_(delivery.due_at.is_(None), not_dispatched(delivery, now, quiet))
    due = or_(at_once, due_again(delivery, delivery.due_at, now, quiet))
    pending = and_(delivery.state == DeliveryState.PENDING, due)
    left = and_(delivery.state == DeliveryState.SENDING, due_again(delivery, delivery.lease_until, now, quiet))
    tried = case((destination.failures > 0, delivery.attempts), else_=0)
    place = func.row_number().over(partition_by=delivery.destination, order_by=(tried, turn(study), delivery.id))
    found = (
        select(delivery.id, turn(study).label("turn"), place.label("place"))
        .join(study, study.id == delivery.study_id)
        .join(destination, destination.name == delivery.destination)
        .join(result, result.id == delivery.result_id)
        .where(~stays_here(study, result.kind), or_(pending, left))
        .where(or_(destination.open_until.is_(None), destination.open_until <= now))
        .subquery()
    )
    query = select(found.c.id).where(found.c.place <= _AT_ONCE)
    return tuple(connection.scalars(query.order_by(found.c.turn, found.c.id).limit(limit)))


def waiting_for(connection: Connection, name: str, now: datetime, limit: int) -> tuple[int, ...]:
    """Deliveries to a destination that a worker may take now: in turn (:func:`db.leases.turn`), and then the oldest."""
    rows = _WAITING_FOR.rows(connection, {"name": name, "now": now, "most": limit})
    return tuple(row.id for row in rows)


def _waiting_for() -> Select[Any]:
    delivery, study, result = tables.Delivery, tables.Study, tables.Result
    now = bindparam("now", type_=delivery.due_at.type)
    due = or_(delivery.due_at.is_(None), delivery.due_at <= now)
    pending = and_(delivery.state == DeliveryState.PENDING, due)
    left = and_(delivery.state == DeliveryState.SENDING, delivery.lease_until <= now)
    return (
        select(delivery.id)
        .join(study, study.id == delivery.study_id)
        .join(result, result.id == delivery.result_id)
        .where(delivery.destination == bindparam("name"), ~stays_here(study, result.kind), or_(pending, left))
        .order_by(turn(study), delivery.id)
        .limit(bindparam("most"))
    )


_WAITING_FOR = Prepared(lambda _: _waiting_for())


def mark_dispatched(connection: Connection, delivery_ids: Sequence[int], now: datetime) -> None:
    """Note that a message was sent for these deliveries."""
    delivery = tables.Delivery
    connection.execute(update(delivery).where(delivery.id.in_(list(delivery_ids))).values(dispatched_at=now))


def _row(connection: Connection, delivery_id: int, *, lock: bool = True) -> Row[Any]:
    row: Row[Any] | None = (_LOCKED if lock else _SEEN).first(connection, {"id": delivery_id})
    if row is None:
        raise RecordNotFoundError("delivery", delivery_id)
    return row


def _mine(connection: Connection, delivery_id: int, worker: str) -> Row[Any] | None:
    """The row of a claimed delivery; None where the claim is lost.

    What was withdrawn while it was being sent does not arrive any more from now on: its rejection note need not wait.
    """
    row = _row(connection, delivery_id)
    if row.worker != worker:
        return None
    if row.state is DeliveryState.WITHDRAWN:
        ended = update(tables.Delivery).where(tables.Delivery.id == delivery_id)
        connection.execute(ended.values(worker="", lease_until=None))
    return row if row.state is DeliveryState.SENDING else None


def _note(connection: Connection, name: str, **values: Any) -> None:
    """Note how it stands with a destination."""
    KNOW_DESTINATION.run(connection, {"name": name})
    _noting(tuple(values)).run(connection, {"noted": name, **values})
