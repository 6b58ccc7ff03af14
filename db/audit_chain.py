"""The hash chain of the audit trail: each entry's digest is of its content and of the digest before it.

Whoever changes, removes or inserts an entry must make anew all digests behind it. That the last entries were cut off,
or all digests made anew, shows by a digest that was kept elsewhere: every message to an audit record repository has
one, and so has a line of the scheduler's log once an hour.

Old entries may go: a checkpoint keeps the digest that the next one follows, and an entry of the chain tells of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from itertools import chain
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Row, func, select, text

from db.audit_events import REMOVED_ENTRIES
from db.audit_tables import AuditCheckpointRow, AuditRow
from db.prepared_statements import Prepared

_FORMAT = 1
"""Of what is digested; another one for another content."""
_LOCK = 0x41756469  # "Audi": the key of PostgreSQL's advisory lock
_ROWS_AT_ONCE = 1000
_ANCHOR = re.compile(r"audit entry (\d{1,18}) sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Link:
    """An entry's place in the chain and its digest. Place 0 is before the first entry."""

    position: int
    digest: str

    def __str__(self) -> str:
        """As it is written where it is kept; :func:`anchors_in` finds it again."""
        return f"audit entry {self.position} sha256:{self.digest}"


_HEAD = Prepared(
    lambda _dialect: select(AuditRow.id, AuditRow.digest).where(
        AuditRow.id == select(func.max(AuditRow.id)).scalar_subquery()
    )
)

START = Link(0, "0" * 64)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification has found: the last entry that holds, how many were looked at, and what is wrong, if
    anything is, with the entry at which it shows.
    """

    head: Link
    entries: int
    broken_at: int | None = None
    problem: str = ""


def digest_of(content: Row[Any] | SimpleNamespace, position: int, previous: str) -> str:
    """SHA-256 of the entry in its canonical form: a JSON array without spaces, in UTF-8, times in UTC to the
    microsecond.
    """
    values = (
        _FORMAT,
        position,
        previous,
        content.at.astimezone(UTC).isoformat(timespec="microseconds"),
        content.actor,
        content.action,
        content.event,
        bool(content.failed),
        content.subject,
        content.study_id,
        content.study_instance_uid,
        content.patient_id,
        content.address,
        content.detail,
        content.data,
    )
    canonical = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def lock(connection: Connection) -> None:
    """Let no other transaction append until this one ends. On SQLite a transaction that writes has that lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def head(connection: Connection) -> Link:
    """The last entry, or the checkpoint where all have gone."""
    last = _HEAD.first(connection, {})
    return Link(*last) if last is not None else checkpoint(connection)


def checkpoint(connection: Connection) -> Link:
    """Up to which entry the trail was removed."""
    row = AuditCheckpointRow
    last = connection.execute(select(row.position, row.digest).order_by(row.position.desc()).limit(1)).first()
    return START if last is None else Link(*last)


def verify(connection: Connection, anchors: Iterable[Link] = (), *, latest: int | None = None) -> Verified:
    """Check every entry, or the ``latest``, against the one before it, and those that ``anchors`` name against them.

    One reading of the database, so that what is appended or removed meanwhile does no harm.
    """
    rows = _rows(connection, latest)
    first = next(rows, None)
    kept = {anchor.position: anchor for anchor in anchors}
    if first is None:
        return _against(Verified(checkpoint(connection), 0), kept)
    begin = _before(connection, first.id)
    if begin is None and latest is not None:
        begin = _link(connection, first.id - 1)
    if begin is None:
        return Verified(START, 0, 1, f"entries 1 to {first.id - 1} are missing, and no checkpoint tells of it")
    return _against(_walk(begin, first, rows, kept, whole=latest is None), kept)


def _rows(connection: Connection, latest: int | None) -> Iterator[Row[Any]]:
    query = select(AuditRow.__table__).order_by(AuditRow.id)
    if latest is not None:
        query = query.where(AuditRow.id > select(func.coalesce(func.max(AuditRow.id), 0) - latest).scalar_subquery())
    return iter(connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query))


def _before(connection: Connection, position: int) -> Link | None:
    """The checkpoint that the entry at ``position`` follows; None where there is none."""
    if position == 1:
        return START
    row = AuditCheckpointRow
    found = connection.execute(select(row.position, row.digest).where(row.position == position - 1)).first()
    return None if found is None else Link(*found)


def _link(connection: Connection, position: int) -> Link | None:
    found = connection.execute(select(AuditRow.id, AuditRow.digest).where(AuditRow.id == position)).first()
    return None if found is None else Link(*found)


def _walk(begin: Link, first: Row[Any], rows: Iterator[Row[Any]], kept: dict[int, Link], *, whole: bool) -> Verified:
    at, entries = begin, 0
    explained = begin.position == 0 or not whole
    for row in chain((first,), rows):
        if row.id != at.position + 1:
            return Verified(at, entries, at.position + 1, f"{_span(at.position + 1, row.id - 1)} missing")
        if row.digest != digest_of(row, row.id, at.digest):
            return Verified(at, entries, row.id, f"entry {row.id} was changed, or follows another entry than it did")
        if (anchor := kept.pop(row.id, None)) is not None and anchor.digest != row.digest:
            return Verified(at, entries, row.id, f"entry {row.id} is not the one that was kept elsewhere")
        explained = explained or (
            row.action == REMOVED_ENTRIES and json.loads(row.data or "{}").get("digest") == begin.digest
        )
        at, entries = Link(row.id, row.digest), entries + 1
    if not explained:
        problem = f"the checkpoint at {begin.position} was not made by this node: no entry tells of it"
        return Verified(at, entries, begin.position + 1, problem)
    return Verified(at, entries)


def _span(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"


def _against(found: Verified, kept: Mapping[int, Link]) -> Verified:
    """``found``, unless the trail ends before an entry that was kept elsewhere."""
    if found.broken_at is not None:
        return found
    later = [position for position in kept if position > found.head.position]
    if later:
        end = f"the trail ends at entry {found.head.position}, and entry {max(later)} was kept elsewhere"
        return Verified(found.head, found.entries, found.head.position + 1, f"it was cut off: {end}")
    return found


def anchors_in(lines: Iterable[str]) -> Iterator[Link]:
    """The digests that were kept in a text, such as the log of a repository or of the scheduler."""
    for line in lines:
        for position, digest in _ANCHOR.findall(line):
            yield Link(int(position), digest)
