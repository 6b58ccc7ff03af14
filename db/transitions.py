"""Transitions: checked against the tables of :mod:`db.records`, and each leaves an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, insert, select, update

from db import tables
from db.errors import RecordNotFoundError, TransitionError
from db.order_tables import NOTIFICATION_TRANSITIONS, NotificationRow
from db.states import DELIVERY_TRANSITIONS, INSTANCE_TRANSITIONS, JOB_TRANSITIONS, STUDY_TRANSITIONS, StudyState

State = TypeVar("State", bound=StrEnum)

TRANSITIONS: Mapping[str, Mapping[Any, frozenset[Any]]] = {
    "study": STUDY_TRANSITIONS,
    "instance": INSTANCE_TRANSITIONS,
    "job": JOB_TRANSITIONS,
    "delivery": DELIVERY_TRANSITIONS,
    "notification": NOTIFICATION_TRANSITIONS,
}
_TABLES: Mapping[str, type[tables.Base]] = {
    "study": tables.Study,
    "instance": tables.Instance,
    "job": tables.Job,
    "delivery": tables.Delivery,
    "notification": NotificationRow,
}


def check(entity: str, reference: object, before: StrEnum, after: StrEnum) -> None:
    """Raise TransitionError where the tables do not let ``before`` become ``after``."""
    if after not in TRANSITIONS[entity][before]:
        raise TransitionError(entity, reference, before.value, after.value)


def move(
    connection: Connection,
    entity: str,
    row: Any,
    after: StrEnum,
    *,
    cause: str,
    actor: str,
    now: datetime,
    before: StrEnum | None = None,
    **values: Any,
) -> None:
    """Move one locked ``row`` (with id, study_id and state) to ``after``, set ``values`` and write the event.

    ``before`` is where it stands, if this transaction has moved it since ``row`` was read.

    The update names the state that it starts from, so that a row which moved on in the meantime is not overwritten.

    Raises:
        TransitionError: the tables forbid it, or the row has moved on.
    """
    state = before or row.state
    check(entity, row.id, state, after)
    table: Any = _TABLES[entity]
    done = connection.execute(
        update(table).where(table.id == row.id, table.state == state).values(state=after, **values)
    )
    if done.rowcount != 1:
        raise TransitionError(entity, row.id, "no longer " + state.value, after.value)
    study_id = row.id if entity == "study" else row.study_id
    write_events(connection, [event(study_id, entity, row.id, state.value, after.value, cause, actor, now)])


def event(
    study_id: int, entity: str, entity_id: int, before: str, after: str, cause: str, actor: str, now: datetime
) -> dict[str, Any]:
    """Values of a row of ``events``."""
    return {
        "study_id": study_id,
        "entity": entity,
        "entity_id": entity_id,
        "from_state": before,
        "to_state": after,
        "cause": cause,
        "actor": actor,
        "at": now,
    }


def write_events(connection: Connection, events: Iterable[dict[str, Any]]) -> None:
    """Insert ``events`` in one statement."""
    rows = list(events)
    if rows:
        table: Any = tables.Event.__table__
        connection.execute(insert(table), rows)


def lock_study(connection: Connection, study_id: int) -> Row[Any]:
    """Read a study's row and keep other writers off it until the transaction ends.

    A transaction that locks a study and rows of it locks the study first: that prevents deadlocks. (On SQLite
    the whole transaction holds the write lock already.)

    Raises:
        RecordNotFoundError: there is no such study.
    """
    study = tables.Study.__table__
    row = connection.execute(select(study).where(study.c.id == study_id).with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise RecordNotFoundError("study", study_id)
    return row


def touch_study(connection: Connection, study: Row[Any], now: datetime, *, reopen: str = "", **values: Any) -> None:
    """Note that something has happened to a locked study's images; with ``reopen`` (the cause) open it again."""
    changes = {"last_activity_at": now, "activity": tables.Study.activity + 1, "files_removed_at": None, **values}
    if reopen and study.state is StudyState.COMPLETE:
        move(connection, "study", study, StudyState.OPEN, cause=reopen, actor="node", now=now, **changes)
    else:
        connection.execute(update(tables.Study).where(tables.Study.id == study.id).values(**changes))
