"""Jobs and deliveries that ended since an event, with their image and transitions: the input of traces.

Events go by their number, not by time: machines have clocks of their own. A transaction may commit later than one that
got its number after it, so the latest numbers come again each time, and :class:`Ends` gives each once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select
from sqlalchemy.orm import aliased

from db.states import DeliveryState, InstanceState, JobState
from db.tables import Delivery, Event, Instance, Job, Result

JOB_ENDS = (JobState.DONE, JobState.FAILED)
DELIVERY_ENDS = (DeliveryState.SENT, DeliveryState.VERIFIED, DeliveryState.FAILED)
_AGAIN = 2000
"""How many numbers may be given before a transaction commits."""
_AT_ONCE = 5000
"""Ends in one call: a database takes so many numbers in a query, whatever has piled up."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One event: what went from where to where, and when."""

    id: int
    study_id: int
    entity: str
    entity_id: int
    before: str
    after: str
    at: datetime


@dataclass(frozen=True, slots=True)
class TracedImage:
    """An image, without anything of its patient. ``code`` says why it is not eligible; empty where it is."""

    id: int
    study_id: int
    received_at: datetime
    code: str
    byte_count: int
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class TracedJob:
    """A job of an image; ``is_first`` is false for one of a later pipeline. ``code`` says why the image was not
    analysed; empty where it was."""

    image: TracedImage
    is_first: bool
    revision: int
    code: str
    worker: str
    device: str
    timings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TracedDelivery:
    """A delivery of a result of an image."""

    image: TracedImage
    destination: str
    kind: str


@dataclass(frozen=True, slots=True)
class Ended:
    """What has ended, with all transitions of the same record up to then, the oldest first."""

    event: Transition
    record: TracedImage | TracedJob | TracedDelivery
    transitions: tuple[Transition, ...]


@dataclass(slots=True)
class Ends:
    """Gives each end once, those of before the first call excepted."""

    first: int | None = None
    last: int = 0
    known: set[int] = field(default_factory=set)

    def new(self, connection: Connection) -> list[Ended]:
        """What has ended since the last call; the rest comes with the next one where it is very much."""
        latest = connection.execute(select(func.coalesce(func.max(Event.id), 0))).scalar_one()
        if self.first is None:
            self.first = self.last = latest
        found = _ends(connection, max(self.first, self.last - _AGAIN))
        new = [one for one in found if one.id not in self.known][:_AT_ONCE]
        self.last = new[-1].id if len(new) == _AT_ONCE else latest
        self.known = {one.id for one in found if self.last - _AGAIN < one.id <= self.last}
        return _with_records(connection, new)


def _ends(connection: Connection, after: int) -> list[Transition]:
    """Ends with a number above ``after``."""
    moved = Event.from_state != Event.to_state
    ends = or_(
        and_(Event.entity == "job", Event.to_state.in_(JOB_ENDS)),
        and_(Event.entity == "delivery", Event.to_state.in_(DELIVERY_ENDS)),
        and_(Event.entity == "instance", Event.to_state == InstanceState.NOT_ELIGIBLE),
    )
    return _transitions(connection, Event.id > after, moved, ends)


def _transitions(connection: Connection, *conditions: Any) -> list[Transition]:
    columns = (Event.id, Event.study_id, Event.entity, Event.entity_id, Event.from_state, Event.to_state, Event.at)
    return [Transition(*row) for row in connection.execute(select(*columns).where(*conditions).order_by(Event.id))]


def _with_records(connection: Connection, ends: Sequence[Transition]) -> list[Ended]:
    """Ends whose record is still there, with it and its transitions."""
    if not ends:
        return []
    ids = {kind: [one.entity_id for one in ends if one.entity == kind] for kind in ("instance", "job", "delivery")}
    records: dict[tuple[str, int], TracedImage | TracedJob | TracedDelivery] = {}
    records |= {("instance", key): image for key, image in _images(connection, ids["instance"]).items()}
    records |= {("job", key): job for key, job in _jobs(connection, ids["job"]).items()}
    records |= {("delivery", key): delivery for key, delivery in _deliveries(connection, ids["delivery"]).items()}
    moved = Event.from_state != Event.to_state
    by_record: defaultdict[tuple[str, int], list[Transition]] = defaultdict(list)
    for one in _transitions(connection, Event.study_id.in_({end.study_id for end in ends}), moved):
        by_record[one.entity, one.entity_id].append(one)
    return [
        Ended(end, records[key], tuple(one for one in by_record[key] if one.id <= end.id))
        for end in ends
        if (key := (end.entity, end.entity_id)) in records
    ]


_IMAGE = (
    Instance.id,
    Instance.study_id,
    Instance.received_at,
    Instance.not_eligible_code,
    Instance.byte_count,
    Instance.transfer_syntax_uid,
)


def _images(connection: Connection, ids: Iterable[int]) -> dict[int, TracedImage]:
    rows = connection.execute(select(*_IMAGE).where(Instance.id.in_(ids)))
    return {row[0]: TracedImage(*row) for row in rows}


def _jobs(connection: Connection, ids: Iterable[int]) -> dict[int, TracedJob]:
    earlier = aliased(Job)
    is_first = ~select(earlier.id).where(earlier.instance_id == Job.instance_id, earlier.id < Job.id).exists()
    columns = (Job.id, is_first, Job.revision, Job.not_analysed_code, Job.worker, Job.ran_on, Job.timings)
    query = select(*columns, *_IMAGE).join(Instance, Instance.id == Job.instance_id).where(Job.id.in_(ids))
    rows: Iterable[Any] = connection.execute(query)
    return {row[0]: TracedJob(_image(row, len(columns)), *row[1 : len(columns)]) for row in rows}


def _deliveries(connection: Connection, ids: Iterable[int]) -> dict[int, TracedDelivery]:
    """Deliveries of results of an image; summaries of a study have none."""
    columns = (Delivery.id, Delivery.destination, Result.kind)
    query = (
        select(*columns, *_IMAGE)
        .join(Result, Result.id == Delivery.result_id)
        .join(Job, Job.id == Result.job_id)
        .join(Instance, Instance.id == Job.instance_id)
    )
    rows: Iterable[Any] = connection.execute(query.where(Delivery.id.in_(ids)))
    return {row[0]: TracedDelivery(_image(row, len(columns)), *row[1 : len(columns)]) for row in rows}


def _image(row: Row[Any], begin: int) -> TracedImage:
    return TracedImage(*row[begin:])
