"""Backfill: what this node holds of a study of an archive, which studies it asked for, and the runs of the schedule."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, or_, select, update

from db.holds import send_recorded
from db.instance_statements import insert_or_ignore
from db.prepared_statements import Prepared
from db.records import IS_PRIOR
from db.states import JobState
from db.study_rules import READ_ELSEWHERE
from db.study_status import take_back
from db.tables import BackfilledStudy, BackfillRun, Instance, Job, Series, Study

LONGEST_PULL = timedelta(hours=1)
"""What comes later than this after it was asked for was not pulled: the process that asked may have been killed."""

BY_ITSELF = "it came by itself, too"
"""Cause of the event by which such a study comes to the worklist after all."""

LEASE = timedelta(minutes=30)
"""A run whose process says nothing for so long has ended; another process may take it over."""


@dataclass(frozen=True, slots=True)
class BackfillOutcome:
    """What a run has come to so far: studies that the archive listed, and those of which images were missing here.

    ``erased`` are left out, for they were erased here.
    """

    studies: int = 0
    incomplete: int = 0
    images: int = 0
    failed: int = 0
    erased: int = 0
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


def note_request(
    connection: Connection, study_instance_uid: str, now: datetime, *, for_prior: bool = False
) -> datetime:
    """Note that the images of a study are asked for; a study that came by itself before stays as it is.

    ``for_prior``: only to compare a newer study with it.

    Returns:
        When this pull ends at the latest, for :func:`end_request`.
    """
    pulled, ends = BackfilledStudy, now + LONGEST_PULL
    noted, running = pulled.study_instance_uid == study_instance_uid, pulled.pull_ends_at > now
    again = {"pull_ends_at": ends, "asked_twice": True, "pulls": case((running, pulled.pulls + 1), else_=1)}
    if _is_here(connection, study_instance_uid):
        connection.execute(update(pulled).where(noted).values(**again))
        return ends
    beside = {**again, "requested_at": now} | ({} if for_prior else {"for_prior": False})
    if connection.execute(update(pulled).where(noted, running).values(**beside)).rowcount:
        return ends
    connection.execute(delete(pulled).where(noted))
    row = {"study_instance_uid": study_instance_uid, "requested_at": now, "pull_ends_at": ends, "for_prior": for_prior}
    connection.execute(insert_or_ignore(connection, pulled).values(row))
    return ends


def end_request(connection: Connection, study_instance_uid: str, ends: datetime, now: datetime) -> None:
    """Note that a pull has ended for which :func:`note_request` gave ``ends``; the note ends with the last that runs.

    Where nothing came, the note is taken back: the study may come by itself. One that took longer than it may is not
    counted any more where another pull began since.
    """
    pulled = BackfilledStudy
    noted = [pulled.study_instance_uid == study_instance_uid, *([pulled.pull_ends_at == ends] if ends <= now else [])]
    if connection.execute(update(pulled).where(*noted, pulled.pulls > 1).values(pulls=pulled.pulls - 1)).rowcount:
        return
    if _is_here(connection, study_instance_uid):
        connection.execute(update(pulled).where(*noted, pulled.pull_ends_at > now).values(pull_ends_at=now))
    else:
        connection.execute(delete(pulled).where(*noted))


def _is_here(connection: Connection, study_instance_uid: str) -> bool:
    known = select(Study.id).where(Study.study_instance_uid == study_instance_uid)
    return connection.execute(known).first() is not None


def came_by_itself(connection: Connection, study: Any, actor: str, now: datetime, *, again: bool) -> bool:
    """Whether ``study`` (its locked row), which was pulled, has now been sent by a peer as well: if so, its findings
    notify and its results are delivered from now on.

    Its sender may have been slower than we: a film of last night whose archive had a queue. ``again``: this image is
    here already, while a pull that is alone brings each image once.
    """
    query = select(BackfilledStudy.__table__).where(BackfilledStudy.study_instance_uid == study.study_instance_uid)
    pulled = connection.execute(query).one_or_none()
    if pulled is None:
        return False
    if now <= pulled.pull_ends_at and (pulled.asked_twice or not again):
        return False
    pulled_study = BackfilledStudy.study_instance_uid == study.study_instance_uid
    connection.execute(delete(BackfilledStudy).where(pulled_study))
    if study.reported_by == READ_ELSEWHERE:
        take_back(connection, study, now, actor=actor, cause=BY_ITSELF)
    if study.reported_at is None or study.reported_by == READ_ELSEWHERE:
        send_recorded(connection, study, IS_PRIOR, actor, now)
    return True


_ASKED_FOR = Prepared(
    lambda _: select(BackfilledStudy.for_prior, BackfilledStudy.requested_at).where(
        BackfilledStudy.study_instance_uid == bindparam("study_instance_uid")
    )
)


def is_only_prior(connection: Connection, study_instance_uid: str) -> bool:
    """Whether a study was pulled to be compared with."""
    asked = _ASKED_FOR.first(connection, {"study_instance_uid": study_instance_uid})
    return asked is not None and bool(asked.for_prior)


def is_backfilled(connection: Connection, study_instance_uid: str, first_received_at: datetime) -> bool:
    """Whether a study is here because a backfill asked for it, and not long before it came by itself."""
    asked = _ASKED_FOR.first(connection, {"study_instance_uid": study_instance_uid})
    return asked is not None and bool(first_received_at - asked.requested_at <= LONGEST_PULL)


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


def searched_until(connection: Connection, archive: str) -> str | None:
    """The last day (YYYYMMDD) that a run of the schedule has searched to its end; None before the first."""
    row: Any = BackfillRun.__table__
    ended = (row.c.archive == archive, row.c.scheduled_for.is_not(None), row.c.ended_at.is_not(None))
    day: str | None = connection.scalar(select(func.max(row.c.date_to)).where(*ended))
    return day


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
    return {name: getattr(outcome, name) for name in ("studies", "incomplete", "images", "failed", "erased", "problem")}
