"""The position in the audit trail up to which each audit record repository has received it.

So nothing is lost while a repository is down, and what waits is bounded by what the trail keeps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, insert, or_, select, update

from db.audit_chain import checkpoint, head
from db.audit_tables import AuditFeedRow, AuditRow

_LONGEST_ERROR = 400


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker may send: the entries behind ``position``; ``attempts`` have failed since the last that did not."""

    position: int
    attempts: int


@dataclass(frozen=True, slots=True)
class FeedState:
    """How it stands with a repository: how many entries wait, since when, and why the last attempt failed."""

    repository: str
    waiting: int
    oldest_at: datetime | None
    sent_at: datetime | None
    error: str


def claim(connection: Connection, repository: str, worker: str, now: datetime, lease: timedelta) -> Claim | None:
    """Let ``worker`` send to ``repository`` until ``now + lease``; None where another does, or where it is too early.

    A repository that is new gets the whole trail.
    """
    row = AuditFeedRow
    known = select(row.__table__).where(row.repository == repository).with_for_update()
    if connection.execute(known).first() is None:
        connection.execute(insert(row).values(repository=repository, position=0, attempts=0))
    free = or_(row.lease_until.is_(None), row.lease_until <= now, row.worker == worker)
    due = or_(row.due_at.is_(None), row.due_at <= now)
    taken = update(row).where(row.repository == repository, free, due).values(worker=worker, lease_until=now + lease)
    got = connection.execute(taken.returning(row.position, row.attempts)).first()
    if got is None:
        return None
    # What was removed by its age before it was sent cannot be sent any more.
    return Claim(max(got.position, checkpoint(connection).position), got.attempts)


def sent(connection: Connection, repository: str, worker: str, position: int, now: datetime) -> None:
    """Everything up to ``position`` was taken; nothing changes where another worker has the claim now."""
    values = {"position": position, "sent_at": now, "attempts": 0, "error": "", "due_at": None, "lease_until": None}
    _end(connection, repository, worker, values)


def failed(connection: Connection, repository: str, worker: str, error: str, now: datetime, after: timedelta) -> None:
    """Nothing was taken; try again from ``now + after`` on."""
    row = AuditFeedRow
    values = {"attempts": row.attempts + 1, "error": error[:_LONGEST_ERROR], "due_at": now + after}
    _end(connection, repository, worker, {**values, "lease_until": None})


def release(connection: Connection, repository: str, worker: str) -> None:
    """There is nothing to send."""
    _end(connection, repository, worker, {"lease_until": None})


def _end(connection: Connection, repository: str, worker: str, values: dict[str, object]) -> None:
    row = AuditFeedRow
    connection.execute(update(row).where(row.repository == repository, row.worker == worker).values(values))


def states(connection: Connection, repositories: Iterable[str]) -> tuple[FeedState, ...]:
    """How it stands with each of ``repositories``."""
    end, row = head(connection).position, AuditFeedRow
    found = {one.repository: one for one in connection.execute(select(row.__table__)).all()}
    made = []
    for name in repositories:
        feed = found.get(name)
        position = feed.position if feed is not None else 0
        query = select(AuditRow.at).where(AuditRow.id > position).order_by(AuditRow.id).limit(1)
        oldest = connection.scalar(query) if position < end else None
        waiting = end - max(position, checkpoint(connection).position)
        sent_at, error = (feed.sent_at, feed.error) if feed is not None else (None, "")
        made.append(FeedState(name, max(waiting, 0), oldest, sent_at, error))
    return tuple(made)


def slowest(connection: Connection, repositories: Iterable[str]) -> int | None:
    """Up to which entry all of ``repositories`` were sent the trail; None where there are none."""
    names, row = list(repositories), AuditFeedRow
    if not names:
        return None
    query = select(func.count(), func.min(row.position)).where(row.repository.in_(names))
    known, position = connection.execute(query).one()
    return int(position) if known == len(names) else 0
