"""Report state and hospital priority of a study, as people and HL7 messages set them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from db.errors import RecordNotFoundError
from db.holds import send_recorded
from db.notifications import cancel, restore
from db.prepared_statements import Prepared
from db.records import IS_REPORTED
from db.states import Priority
from db.study_rules import REPORT_OBJECT
from db.tables import Event, Instance, Study
from db.transitions import event, lock_study, write_events

REPORT_CAME = "a report came as an object"
"""How the cause of the event begins by which such a report takes its study off the worklist."""

LATE_IMAGE = "an image came after the report"
"""Cause of the event by which such an image brings its study back to the worklist."""


def report(connection: Connection, study_id: int, now: datetime, *, actor: str, cause: str) -> bool:
    """Take a study off the worklist and withdraw its notifications; False where it was reported already."""
    study = lock_study(connection, study_id)
    if study.reported_at is not None:
        return False
    values = {"reported_at": now, "reported_by": actor}
    connection.execute(update(Study).where(Study.id == study_id).values(**values))
    write_events(connection, [event(study_id, "study", study_id, "unreported", "reported", cause, actor, now)])
    cancel(connection, study_id, cause, actor, now)
    return True


def take_back(connection: Connection, study: Row[Any], now: datetime, *, actor: str, cause: str) -> None:
    """Undo the report of a locked study: notifications that it withdrew are open again, results are sent after all."""
    changes = Event.__table__
    reported = (
        select(changes)
        .where(changes.c.study_id == study.id, changes.c.entity == "study", changes.c.to_state == "reported")
        .order_by(changes.c.id.desc())
        .limit(1)
    )
    connection.execute(update(Study).where(Study.id == study.id).values(reported_at=None, reported_by=""))
    write_events(connection, [event(study.id, "study", study.id, "reported", "unreported", cause, actor, now)])
    restore(connection, study.id, connection.execute(reported).one(), actor, now)
    send_recorded(connection, study, IS_REPORTED, actor, now)


def report_by_object(connection: Connection, instance_id: int, actor: str, now: datetime) -> bool:
    """Mark the study of a received report (the row of its instance) as reported; False where nothing changes.

    ``actor`` is the calling AE title. A report that names another patient, or that came under a used UID, changes
    nothing. Nor does one that has had its effect: it may be sent again after an image that it does not speak of.
    """
    query = select(Instance.study_id, Instance.flag).where(Instance.id == instance_id)
    row = connection.execute(query).first()
    if row is None:
        raise RecordNotFoundError("instance", instance_id)
    if row.flag:
        return False
    lock_study(connection, row.study_id)
    cause = f"{REPORT_CAME}, instance {instance_id}"
    before = select(Event.id).where(Event.study_id == row.study_id, Event.cause == cause).limit(1)
    if connection.execute(before).first() is not None:
        return False
    return report(connection, row.study_id, now, actor=f"{REPORT_OBJECT}{actor}", cause=cause)


def return_to_list(connection: Connection, study: Any, now: datetime) -> None:
    """Put a study back on the worklist, to which an image came after its report; ``study`` is its locked row.

    Triage learns of it by :func:`returned_at`, and lets nothing of it notify anybody.
    """
    values = {"reported_at": None, "reported_by": ""}
    connection.execute(update(Study).where(Study.id == study.id).values(**values))
    write_events(connection, [event(study.id, "study", study.id, "reported", "unreported", LATE_IMAGE, "node", now)])


_UNREPORTED = Prepared(
    lambda _: (
        select(Event.cause, Event.at)
        .where(Event.study_id == bindparam("study_id"), Event.entity == "study", Event.from_state == "reported")
        .order_by(Event.id.desc())
        .limit(1)
    )
)


def returned_at(connection: Connection, study: Any) -> datetime | None:
    """When a late image has brought ``study`` back, if it has not been reported or called unreported by a person
    since.
    """
    if study.reported_at is not None:
        return None
    last = _UNREPORTED.first(connection, {"study_id": study.id})
    return last.at if last is not None and last.cause == LATE_IMAGE else None


def undo_report(connection: Connection, study_id: int, now: datetime, *, actor: str, cause: str) -> bool:
    """Put a reported study back on the worklist with all that its report withdrew; False where it was there."""
    study = lock_study(connection, study_id)
    if study.reported_at is None:
        return False
    take_back(connection, study, now, actor=actor, cause=cause)
    return True


def hospital_priority(connection: Connection, study_id: int) -> Priority | None:
    """What a person or the hospital's system has asked for."""
    return connection.execute(select(Study.hospital_priority).where(Study.id == study_id)).scalar_one_or_none()


def set_priority(
    connection: Connection, study_id: int, priority: Priority | None, now: datetime, *, actor: str, cause: str
) -> bool:
    """Set the hospital's own priority, below which triage never goes; None leaves it to triage again.

    Triage itself must be asked afterwards: this writes down what a person wants, not what follows from it. False where
    it was so already.
    """
    return write_priority(connection, lock_study(connection, study_id), priority, now, actor=actor, cause=cause)


def write_priority(
    connection: Connection, study: Row[Any], priority: Priority | None, now: datetime, *, actor: str, cause: str
) -> bool:
    """As :func:`set_priority`, of a study that is locked."""
    if study.hospital_priority == priority:
        return False
    connection.execute(update(Study).where(Study.id == study.id).values(hospital_priority=priority))
    before, after = (one.value if one else "by triage" for one in (study.hospital_priority, priority))
    write_events(connection, [event(study.id, "priority", study.id, before, after, cause, actor, now)])
    return True
