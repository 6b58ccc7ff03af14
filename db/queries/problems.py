"""Jobs and deliveries that fail, grouped by what a person has to do about them: by cause and destination.

One outage is one problem, however many deliveries wait for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, and_, func, literal, or_, select

from db.states import DeliveryState, JobState
from db.tables import Delivery, Destination, Job

Entity = Literal["job", "delivery"]

_GROUPS = 500
_EXAMPLES = 5
_NUMBER = re.compile(r"(?<![\w.])\d+(\.\d+)*(?!\w)")


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything that fails for one cause. ``failed`` is given up, ``retrying`` is tried again by itself.

    ``cause`` is the error without the numbers in it and names the group, ``error`` is one as it came. ``since`` is when
    the oldest was made, ``next_at`` the next attempt, ``study_ids`` are examples.
    """

    entity: Entity
    destination: str
    cause: str
    error: str
    failed: int
    retrying: int
    since: datetime
    next_at: datetime | None
    study_ids: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many jobs or deliveries fail."""
        return self.failed + self.retrying


@dataclass(frozen=True, slots=True)
class Selection:
    """Which problems are meant; an empty field means any."""

    entity: str = ""
    destination: str = ""
    cause: str = ""
    study_id: int = 0

    def includes(self, entity: str, destination: str, error: str) -> bool:
        """Whether something that fails so belongs to it."""
        wanted = ((self.entity, entity), (self.destination, destination), (self.cause, cause_of(error)))
        return all(not asked or asked == given for asked, given in wanted)


def cause_of(error: str) -> str:
    """What errors of one cause have in common: the text without UIDs, counts and times; codes such as 0xA700 stay."""
    return _NUMBER.sub("#", error)


def problems(connection: Connection) -> tuple[Problem, ...]:
    """All problems: what is given up before what is tried again, many before few."""
    found: dict[tuple[str, str, str], Problem] = {}
    for entity in ("job", "delivery"):
        for row in connection.execute(_grouped(entity)):
            key = (entity, row.destination, cause_of(row.error))
            given_up = row.number if row.state in (JobState.FAILED, DeliveryState.FAILED) else 0
            one = Problem(entity, *key[1:], row.error, given_up, row.number - given_up, row.since, row.next_at)
            found[key] = _together(found[key], one) if key in found else one
        for row in connection.execute(_latest(entity)):
            key = (entity, row.destination, cause_of(row.error))
            known = found.get(key)
            if known is not None and len(known.study_ids) < _EXAMPLES and row.study_id not in known.study_ids:
                found[key] = replace(known, study_ids=(*known.study_ids, row.study_id))
    rests = _resting(connection)
    ordered = sorted(found.values(), key=lambda one: (not one.failed, -one.count))
    return tuple(replace(one, next_at=_called_at(one, rests.get(one.destination))) for one in ordered)


def _resting(connection: Connection) -> dict[str, datetime]:
    """Until when nobody calls a destination that did not answer."""
    query = select(Destination.name, Destination.open_until).where(Destination.open_until.is_not(None))
    return {row.name: row.open_until for row in connection.execute(query)}


def _called_at(problem: Problem, rests_until: datetime | None) -> datetime | None:
    """The next attempt of what fails: what is due waits until its destination may be called again."""
    if problem.next_at is None or rests_until is None:
        return problem.next_at
    return max(problem.next_at, rests_until)


def failing(
    connection: Connection, entity: Entity, selection: Selection, after: int, limit: int
) -> tuple[dict[int, int], int] | None:
    """What fails and is selected among the next ``limit`` rows above ``after`` that fail: row and study.

    With it comes the last row that was looked at; None where there is none above ``after``.
    """
    table = _table(entity)
    columns = (table.id, table.study_id, _destination(entity), table.error)
    query = select(*columns).where(_fails(entity), table.id > after).order_by(table.id).limit(limit)
    if selection.study_id:
        query = query.where(table.study_id == selection.study_id)
    rows = connection.execute(query).all()
    if not rows:
        return None
    chosen = (row for row in rows if selection.includes(entity, row.destination, row.error))
    return {row.id: row.study_id for row in chosen}, rows[-1].id


def _together(one: Problem, other: Problem) -> Problem:
    next_at = min((at for at in (one.next_at, other.next_at) if at is not None), default=None)
    return replace(
        one,
        failed=one.failed + other.failed,
        retrying=one.retrying + other.retrying,
        since=min(one.since, other.since),
        next_at=next_at,
    )


def _table(entity: Entity) -> Any:
    return Job if entity == "job" else Delivery


def _destination(entity: Entity) -> ColumnElement[str]:
    return literal("").label("destination") if entity == "job" else Delivery.__table__.c.destination


def _fails(entity: Entity) -> ColumnElement[bool]:
    if entity == "job":
        return Job.state.in_((JobState.FAILED, JobState.RETRYING))
    waits = and_(Delivery.state == DeliveryState.PENDING, Delivery.error != "")
    return or_(Delivery.state == DeliveryState.FAILED, waits)


def _grouped(entity: Entity) -> Any:
    table, destination = _table(entity), _destination(entity)
    figures = (func.count().label("number"), func.min(table.created_at).label("since"))
    query = select(destination, table.state, table.error, *figures, func.min(table.due_at).label("next_at"))
    by = (table.state, table.error) if entity == "job" else (destination, table.state, table.error)
    return query.where(_fails(entity)).group_by(*by).order_by(func.count().desc()).limit(_GROUPS)


def _latest(entity: Entity) -> Any:
    table = _table(entity)
    query = select(table.study_id, _destination(entity), table.error).where(_fails(entity))
    return query.order_by(table.id.desc()).limit(_GROUPS)
