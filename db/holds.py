"""Puts a study on hold with its jobs and unsent deliveries, and releases it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, literal_column, or_, select, update

from db import tables
from db.comparisons import take_back_comparisons
from db.records import NOTE
from db.replaced_instances import replace_older
from db.states import DeliveryState, JobState
from db.study_rules import AND
from db.transitions import event, lock_study, move, write_events

_LONGEST_REASONS = 2000  # a peer may send any number of rejection notes, each in words of its own


def hold_reason_of(study: Row[Any]) -> str | None:
    """Why nothing that was made for a study may leave: it is held, its patient was corrected, or both; None where it
    may."""
    if study.on_hold and study.correction:
        return f"{study.hold_reason}{AND}{study.correction}"
    return str(study.hold_reason) if study.on_hold else str(study.correction) or None


def is_on_hold(study: Any) -> ColumnElement[bool]:
    """The same as a condition; ``study`` is the table or an alias of it.

    In the words of the index ``ix_studies_on_hold_due_at_id``: a value beside the text could be another one.
    """
    return or_(study.on_hold.is_(True), study.correction != literal_column("''"))


def reason_of_hold(study: Any) -> ColumnElement[str]:
    """:func:`hold_reason_of` as an expression; empty where it is not on hold."""
    both = study.hold_reason + AND + study.correction
    held = study.on_hold.is_(True)
    return case((and_(held, study.correction != ""), both), (held, study.hold_reason), else_=study.correction)


def stays_here(study: Any, kind: Any) -> ColumnElement[bool]:
    """Whether a result of this kind may not leave now; a rejection note of ours always may: what is wrong must go."""
    return and_(is_on_hold(study), kind != NOTE)


def first_state(study: Row[Any]) -> tuple[DeliveryState, str]:
    """Where a delivery of ``study`` begins, and why if it is held."""
    reason = hold_reason_of(study)
    return (DeliveryState.PENDING, "") if reason is None else (DeliveryState.ON_HOLD, reason)


def is_held(connection: Connection, study_id: int) -> bool:
    """Whether this study, locked from now on, is on hold.

    Raises:
        RecordNotFoundError: there is no such study.
    """
    return hold_reason_of(lock_study(connection, study_id)) is not None


_JOBS_ON_HOLD = (JobState.QUEUED, JobState.RETRYING)


def hold(connection: Connection, study_id: int, reason: str, actor: str, now: datetime) -> None:
    """Hold a study, its waiting jobs and its waiting deliveries. One that is on hold already gets a further reason:
    whoever releases it must know them all.

    What is running goes on; what it leaves is held when it is written.

    Raises:
        RecordNotFoundError: there is no such study.
    """
    study = lock_study(connection, study_id)
    reasons = _reasons(connection, study_id) if study.on_hold else []
    if reason in reasons:
        return
    words = _in_words([*reasons, reason])
    connection.execute(update(tables.Study).where(tables.Study.id == study_id).values(on_hold=True, hold_reason=words))
    before = "on_hold" if study.on_hold else "released"
    write_events(connection, [event(study_id, "study", study_id, before, "on_hold", reason, actor, now)])
    if study.on_hold:
        return
    take_back_comparisons(connection, study.study_instance_uid, "is on hold", actor, now)
    for job in _locked(connection, tables.Job, study_id, _JOBS_ON_HOLD):
        move(connection, "job", job, JobState.ON_HOLD, cause=reason, actor=actor, now=now)
    for delivery in _locked(connection, tables.Delivery, study_id, (DeliveryState.PENDING,)):
        values: dict[str, Any] = {"error": reason, "on_hold_with_study": True}
        move(connection, "delivery", delivery, DeliveryState.ON_HOLD, cause=reason, actor=actor, now=now, **values)


def _reasons(connection: Connection, study_id: int) -> list[str]:
    """Why a study is on hold, in the order in which it was said: the history keeps them all."""
    moved = tables.Event
    of_study = (moved.study_id == study_id, moved.entity == "study")
    released = select(func.max(moved.id)).where(*of_study, moved.to_state == "released").scalar_subquery()
    held = select(moved.cause).where(*of_study, moved.to_state == "on_hold", moved.id > func.coalesce(released, 0))
    return list(connection.scalars(held.order_by(moved.id)))


def _in_words(reasons: Sequence[str]) -> str:
    """The reasons as one text: the first ones, and how many more there are where all would be too long."""
    for shown in range(len(reasons), 1, -1):
        if len(text := _first(reasons, shown)) <= _LONGEST_REASONS:
            return text
    return _first(reasons, 1)


def _first(reasons: Sequence[str], shown: int) -> str:
    more = len(reasons) - shown
    return AND.join([*reasons[:shown], *([f"and {more} more: see the history"] if more else [])])


def with_deliveries_on_hold(connection: Connection, limit: int) -> tuple[int, ...]:
    """Studies with deliveries that are on hold for a reason of their own: no worklist lists these as on hold."""
    delivery = tables.Delivery
    held = (delivery.state == DeliveryState.ON_HOLD, delivery.on_hold_with_study.is_(False))
    query = select(delivery.study_id).where(*held).distinct().order_by(delivery.study_id).limit(limit)
    return tuple(connection.scalars(query))


def release(connection: Connection, study_id: int, actor: str, now: datetime) -> tuple[int, ...]:
    """Release a study on hold: its held jobs are queued and the deliveries that were put on hold with it are pending
    again.

    A delivery that was held for a reason of its own stays held. Releasing a study that is not held does nothing. Where
    the hospital has corrected the patient, releasing means that what was made before may leave all the same. Where an
    image came again with other content, the newest one counts alone from now on: triage must look at the study again.

    Returns:
        The jobs to enqueue.

    Raises:
        RecordNotFoundError: there is no such study.
    """
    study = lock_study(connection, study_id)
    if hold_reason_of(study) is None:
        return ()
    connection.execute(
        update(tables.Study)
        .where(tables.Study.id == study_id)
        .values(on_hold=False, hold_reason="", correction="", last_activity_at=now, activity=tables.Study.activity + 1)
    )
    replace_older(connection, study_id, actor, now)
    cause = "study was released"
    write_events(connection, [event(study_id, "study", study_id, "on_hold", "released", cause, actor, now)])
    by: dict[str, Any] = {"cause": cause, "actor": actor, "now": now, "dispatched_at": None}
    jobs = _locked(connection, tables.Job, study_id, (JobState.ON_HOLD,))
    for job in jobs:
        move(connection, "job", job, JobState.QUEUED, queued_at=now, **by)
    for delivery in _locked(connection, tables.Delivery, study_id, (DeliveryState.ON_HOLD,)):
        if delivery.on_hold_with_study:
            move(connection, "delivery", delivery, DeliveryState.PENDING, error="", on_hold_with_study=False, **by)
    return tuple(job.id for job in jobs)


def send_recorded(connection: Connection, study: Row[Any], reason: str, actor: str, now: datetime) -> None:
    """Let the deliveries of a locked study go that were recorded for ``reason``; the scheduler enqueues them."""
    state, on_hold = first_state(study)
    values: dict[str, Any] = {
        "error": on_hold,
        "on_hold_with_study": state is DeliveryState.ON_HOLD,
        "dispatched_at": None,
    }
    for row in _locked(connection, tables.Delivery, study.id, (DeliveryState.RECORDED,)):
        if row.error == reason:
            move(connection, "delivery", row, state, cause="the report was taken back", actor=actor, now=now, **values)


def _locked(connection: Connection, table: Any, study_id: int, states: tuple[Any, ...]) -> list[Any]:
    columns = table.__table__
    query = select(columns).where(columns.c.study_id == study_id, columns.c.state.in_(states))
    if table is tables.Delivery:
        note = select(tables.Result.id).where(tables.Result.study_id == study_id, tables.Result.kind == NOTE)
        query = query.where(columns.c.result_id.not_in(note))
    return list(connection.execute(query.order_by(columns.c.id).with_for_update(key_share=True)))
