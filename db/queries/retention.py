"""Which files are not needed any more: those of studies that were complete and delivered long ago."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, or_, select, update

from db import tables
from db.records import ExpiredStudy
from db.states import DeliveryState, StudyState

_UNFINISHED = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.FAILED, DeliveryState.ON_HOLD)
"""A result in one of these states may still have to be sent, by itself or by a person."""


def expired(connection: Connection, before: datetime, after_id: int = 0, limit: int = 100) -> tuple[ExpiredStudy, ...]:
    """Studies that were complete until ``before`` and have nothing to send any more, with the paths of their files.

    In pages: ``after_id`` is the last study of the page before.
    """
    study, delivery = tables.Study, tables.Delivery
    # What is still to be verified may have to be sent again, too.
    open_still = or_(delivery.state.in_(_UNFINISHED), delivery.verify_due_at.is_not(None))
    unfinished = select(delivery.id).where(delivery.study_id == study.id, open_still).exists()
    query = (
        select(study.id, study.activity)
        .where(
            study.id > after_id,
            study.files_removed_at.is_(None),
            study.state == StudyState.COMPLETE,
            study.completed_at <= before,
            study.on_hold.is_(False),
            ~unfinished,
        )
        .order_by(study.id)
        .limit(limit)
    )
    found = connection.execute(query).all()
    return tuple(ExpiredStudy(row.id, _paths(connection, row.id), row.activity) for row in found)


def removed(connection: Connection, study: ExpiredStudy, now: datetime) -> None:
    """Note that the files of a study are gone, unless something has come to it since it was found.

    It is expired no more, until something comes to it again.
    """
    row = tables.Study
    connection.execute(
        update(row).where(row.id == study.study_id, row.activity == study.activity).values(files_removed_at=now)
    )


def has_files_again(connection: Connection, study_id: int) -> None:
    """A file has come to a study whose files were removed: it expires once more."""
    connection.execute(update(tables.Study).where(tables.Study.id == study_id).values(files_removed_at=None))


def _paths(connection: Connection, study_id: int) -> tuple[str, ...]:
    """Paths of everything received and made for a study, relative to the store folder."""
    return tuple(
        path
        for table in (tables.Instance, tables.Result)
        for path in connection.scalars(select(table.path).where(table.study_id == study_id).order_by(table.id))
    )
