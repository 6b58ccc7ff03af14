"""Transitions: checked against the tables of :mod:`db.states`, and each leaves an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import ClauseElement, Connection, Row, bindparam, literal_column, select, update

from db import tables
from db.errors import RecordNotFoundError, TransitionError
from db.instance_statements import INSERT_EVENT, values_of
from db.order_tables import NOTIFICATION_TRANSITIONS, NotificationRow
from db.prepared_statements import Prepared
from db.states import DELIVERY_TRANSITIONS, INSTANCE_TRANSITIONS, JOB_TRANSITIONS, STUDY_TRANSITIONS, StudyState

_STUDY: Any = tables.Study.__table__

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


_LOCK_STUDY = Prepared(lambda _: select(_STUDY).where(_STUDY.c.id == bindparam("id")).with_for_update(key_share=True))
_TOUCH_STUDY = Prepared(
    lambda _: (
        update(_STUDY)
        .where(_STUDY.c.id == bindparam("touched_id"))
        .values(
            last_activity_at=bindparam("now", type_=_STUDY.c.last_activity_at.type),
            activity=_STUDY.c.activity + literal_column("1"),
            files_removed_at=None,
        )
    )
)


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
    if not _moved(connection, entity, {"moved_id": row.id, "moved_from": state}, {"state": after, **values}):
        raise TransitionError(entity, row.id, "no longer " + state.value, after.value)
    study_id = row.id if entity == "study" else row.study_id
    write_events(connection, [event(study_id, entity, row.id, state.value, after.value, cause, actor, now)])


def _moved(connection: Connection, entity: str, row: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    counts = {name: value for name, value in values.items() if isinstance(value, ClauseElement)}
    if counts:  # a new value that the database computes from the old one
        table: Any = _TABLES[entity].__table__
        where = table.c.id == row["moved_id"], table.c.state == row["moved_from"]
        return bool(connection.execute(update(table).where(*where).values(**values)).rowcount == 1)
    return _moving(entity, tuple(values)).first(connection, {**row, **values}) is not None


@cache
def _moving(entity: str, names: tuple[str, ...]) -> Prepared:
    """UPDATE of these columns of one row, which gives its id."""
    table: Any = _TABLES[entity].__table__
    where = table.c.id == bindparam("moved_id"), table.c.state == bindparam("moved_from", type_=table.c.state.type)
    return Prepared(lambda _: update(table).where(*where).values(values_of(table, *names)).returning(table.c.id))


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
    INSERT_EVENT.run(connection, *events)


def lock_study(connection: Connection, study_id: int) -> Row[Any]:
    """Read a study's row and keep other writers off it until the transaction ends.

    A transaction that locks a study and rows of it locks the study first: that prevents deadlocks. (On SQLite
    the whole transaction holds the write lock already.)

    Raises:
        RecordNotFoundError: there is no such study.
    """
    row: Row[Any] | None = _LOCK_STUDY.first(connection, {"id": study_id})
    if row is None:
        raise RecordNotFoundError("study", study_id)
    return row


def touch_study(connection: Connection, study: Row[Any], now: datetime, *, reopen: str = "", **values: Any) -> None:
    """Note that something has happened to a locked study's images; with ``reopen`` (the cause) open it again."""
    changes = {"last_activity_at": now, "activity": tables.Study.activity + 1, "files_removed_at": None, **values}
    if reopen and study.state is StudyState.COMPLETE:
        move(connection, "study", study, StudyState.OPEN, cause=reopen, actor="node", now=now, **changes)
    elif values:
        connection.execute(update(_STUDY).where(_STUDY.c.id == study.id).values(**changes))
    else:
        _TOUCH_STUDY.run(connection, {"touched_id": study.id, "now": now})
