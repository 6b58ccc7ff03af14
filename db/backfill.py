"""Backfill: what this node holds of a study of an archive, which studies it asked for, and the runs of the schedule."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select, update

from db.instance_statements import insert_or_ignore
from db.states import JobState
from db.tables import BackfilledStudy, BackfillRun, Instance, Job, Series, Study

LONGEST_PULL = timedelta(hours=1)
"""What comes later than this after it was asked for was not pulled: the process that asked may have been killed."""

LEASE = timedelta(minutes=30)
"""A run whose process says nothing for so long has ended; another process may take it over."""


@dataclass(frozen=True, slots=True)
class BackfillOutcome:
    """What a run has come to so far: studies that the archive listed, and those of which images were missing here."""

    studies: int = 0
    incomplete: int = 0
    images: int = 0
    failed: int = 0
    problem: str = ""


def held_images(connection: Connection, study_instance_uid: str) -> dict[str, frozenset[str]]:
    """SOP Instance UIDs of a study that were received, by Series Instance UID, whatever became of them."""
    query = (
        select(Series.series_instance_uid, Instance.sop_instance_uid)
        .join(Instance, Instance.series_id == Series.id)
        .join(Study, Study.id == Series.study_id)
        .where(Study.study_instance_uid == study_instance_uid)
    )
    found: defaultdict[str, set[str]] = defaultdict(set)
    for series, image in connection.execute(query):
        found[series].add(image)
    return {series: frozenset(images) for series, images in found.items()}


def waiting_jobs(connection: Connection, at_most: int) -> int:
    """How many jobs wait for a worker, counted no further than ``at_most``."""
    waiting = select(Job.id).where(Job.state.in_((JobState.QUEUED, JobState.RETRYING))).limit(at_most).subquery()
    return int(connection.execute(select(func.count()).select_from(waiting)).scalar_one())


def note_request(connection: Connection, study_instance_uid: str, now: datetime, *, for_prior: bool = False) -> None:
    """Note that the images of a study are asked for; a study that came by itself before stays as it is.

    ``for_prior``: only to compare a newer study with it.
    """
    known = select(Study.id).where(Study.study_instance_uid == study_instance_uid)
    if connection.execute(known).first() is None:
        row = {"study_instance_uid": study_instance_uid, "requested_at": now, "for_prior": for_prior}
        connection.execute(insert_or_ignore(connection, BackfilledStudy).values(row))


def forget_request(connection: Connection, study_instance_uid: str) -> None:
    """Take the note back where nothing came: should the study come later, it comes by itself."""
    known = select(Study.id).where(Study.study_instance_uid == study_instance_uid).exists()
    noted = BackfilledStudy.study_instance_uid == study_instance_uid
    connection.execute(delete(BackfilledStudy).where(noted, ~known))


def is_backfilled(connection: Connection, study_instance_uid: str, first_received_at: datetime) -> bool:
    """Whether a study is here because a backfill asked for it, and not long before it came by itself."""
    query = select(BackfilledStudy.requested_at).where(BackfilledStudy.study_instance_uid == study_instance_uid)
    requested_at = connection.execute(query).scalar_one_or_none()
    return requested_at is not None and first_received_at - requested_at <= LONGEST_PULL


def begin_run(
    connection: Connection, scheduled_for: str | None, archive: str, days: tuple[str, str], now: datetime
) -> int | None:
    """Begin a run, or take over that of ``scheduled_for`` whose process has ended; None where neither may be."""
    started = {"archive": archive, "started_at": now, "lease_until": now + LEASE}
    started |= {"date_from": days[0], "date_to": days[1]}
    row: Any = BackfillRun.__table__
    if scheduled_for is not None:
        again = (row.c.scheduled_for == scheduled_for, row.c.ended_at.is_(None), row.c.lease_until < now)
        taken = connection.execute(update(row).where(*again).values(**started).returning(row.c.id)).first()
        if taken is not None:
            return int(taken.id)
    values = started | {"scheduled_for": scheduled_for, **_columns(BackfillOutcome())}
    made = connection.execute(insert_or_ignore(connection, row).values(**values).returning(row.c.id)).first()
    return None if made is None else int(made.id)


def is_due(connection: Connection, scheduled_for: str, now: datetime) -> bool:
    """Whether the run of a day was not begun, or its process has ended."""
    row: Any = BackfillRun.__table__
    busy = or_(row.c.ended_at.is_not(None), row.c.lease_until >= now)
    return connection.execute(select(row.c.id).where(row.c.scheduled_for == scheduled_for, busy)).first() is None


def keep_outcome(
    connection: Connection, run_id: int, outcome: BackfillOutcome, now: datetime, *, ended: bool = False
) -> None:
    """Write what a run has come to so far, and that its process is alive."""
    values = {"lease_until": now + LEASE, "ended_at": now if ended else None, **_columns(outcome)}
    connection.execute(update(BackfillRun).where(BackfillRun.id == run_id).values(**values))


def _columns(outcome: BackfillOutcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in ("studies", "incomplete", "images", "failed", "problem")}
