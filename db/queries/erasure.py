"""What erasing a study removes, and what others hold of it: the preview, and the list that a person keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from db import tables
from db.audit_events import EXPORTS, SENT, VIEW_STUDY
from db.audit_tables import AuditRow
from db.erasures import HeldObject, Waiting, held_elsewhere, is_requested, under_way
from db.errors import RecordNotFoundError
from db.order_tables import NotificationRow, NotificationState, OrderRow
from db.states import DeliveryState
from db.tables import Delivery, Instance, Result, Study

_WAITS = (DeliveryState.PENDING, DeliveryState.FAILED, DeliveryState.ON_HOLD, DeliveryState.RECORDED)
_UNSENT = (NotificationState.PENDING, NotificationState.FAILED)


@dataclass(frozen=True, slots=True)
class Taken:
    """Something of a study that a person, a program or a receiver has got: who, what and when."""

    at: datetime
    who: str
    what: str


@dataclass(frozen=True, slots=True)
class ErasurePlan:
    """What is known of one study: what goes with it, ``held`` and ``taken`` by others, and what must end first."""

    study_id: int
    study_instance_uid: str
    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    accession_number: str
    study_date: str
    images: int
    results: int
    byte_count: int
    jobs: int
    findings: int
    orders: int
    events: int
    unsent: int
    untold: int
    requested: bool
    waits: Waiting | None
    held: tuple[HeldObject, ...] = field(default=())
    taken: tuple[Taken, ...] = field(default=())


def erasure_plan(connection: Connection, study_id: int, now: datetime) -> ErasurePlan:
    """Look at a study.

    Raises:
        RecordNotFoundError: there is none.
    """
    table = Study.__table__
    study = connection.execute(select(table).where(table.c.id == study_id)).one_or_none()
    if study is None:
        raise RecordNotFoundError("study", study_id)

    def count(row: type[tables.Base], *conditions: ColumnElement[bool]) -> int:
        of_study = select(func.count()).where(row.__table__.c.study_id == study_id, *conditions)
        return int(connection.scalar(of_study) or 0)

    sizes = (select(func.sum(row.byte_count)).where(row.study_id == study_id) for row in (Instance, Result))
    return ErasurePlan(
        study_id=study.id,
        study_instance_uid=study.study_instance_uid,
        patient_id=study.patient_id,
        issuer_of_patient_id=study.issuer_of_patient_id,
        patient_name=study.patient_name,
        accession_number=study.accession_number,
        study_date=study.study_date,
        images=count(Instance),
        results=count(Result),
        byte_count=sum(int(connection.scalar(size) or 0) for size in sizes),
        jobs=count(tables.Job),
        findings=count(tables.Finding),
        orders=count(OrderRow),
        events=count(tables.Event),
        unsent=count(Delivery, Delivery.state.in_(_WAITS)),
        untold=count(NotificationRow, NotificationRow.state.in_(_UNSENT)),
        requested=is_requested(connection, study_id),
        waits=under_way(connection, study_id, study.study_instance_uid, now),
        held=held_elsewhere(connection, study_id),
        taken=tuple(sorted((*_told(connection, study_id), *_exported(connection, study_id)), key=lambda one: one.at)),
    )


def _told(connection: Connection, study_id: int) -> list[Taken]:
    row = NotificationRow
    query = select(row.sent_at, row.channel, row.reason).where(row.study_id == study_id, row.sent_at.is_not(None))
    return [Taken(each.sent_at, each.channel, f"notification: {each.reason}") for each in connection.execute(query)]


def _exported(connection: Connection, study_id: int) -> list[Taken]:
    """Exports, downloads and retrievals, by the audit trail: as far back as it is kept."""
    row = AuditRow
    left = (
        row.action.startswith(EXPORTS),
        and_(row.action == SENT, or_(row.detail.startswith("C-MOVE"), row.detail.startswith("C-GET"))),
        and_(row.action == VIEW_STUDY, row.detail.endswith(" by WADO-RS")),
    )
    query = select(row.at, row.actor, row.action, row.detail).where(row.study_id == study_id, ~row.failed, or_(*left))
    found = connection.execute(query.order_by(row.id))
    return [Taken(one.at, one.actor, f"{one.action}: {one.detail}") for one in found]
