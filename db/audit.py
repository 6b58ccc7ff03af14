"""The audit trail: who did or saw what, when, and from where. Entries are only ever appended, in a hash chain.

:func:`write_entries` is the one way in. Call it last in a transaction: from then on nobody else appends until it ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, bindparam, delete, func, insert, select

from db import audit_chain
from db.audit_chain import Link, Verified
from db.audit_events import REMOVED_ENTRIES, TRAIL_BROKEN, VERIFIED, AuditEvent, Meaning, meaning_of
from db.audit_tables import AuditCheckpointRow, AuditRow
from db.engine import writing
from db.prepared_statements import Prepared
from db.tables import Study

_NODE = "node"
_REMOVED_AT_ONCE = 10_000

_INSERT = Prepared(
    lambda _dialect: insert(AuditRow).values({column.name: bindparam(column.name) for column in AuditRow.__table__.c})
)
_STUDY = Prepared(
    lambda _dialect: select(Study.study_instance_uid, Study.patient_id).where(Study.id == bindparam("study_id"))
)

EXPORT_DEIDENTIFIED = "export de-identified"
"""The action of an export for research, by a person or by a destination."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit trail.

    ``actor`` is a user, a token, a peer's AE title or a part of the node; ``address`` is where from.
    ``study_instance_uid`` and ``patient_id`` are taken from the study ``study_id`` where they are empty. ``data`` is
    for programs: what the audit message says beyond the rest (:mod:`workers.audit.messages`).
    """

    at: datetime
    actor: str
    action: str
    subject: str = ""
    study_id: int | None = None
    address: str = ""
    detail: str = ""
    failed: bool = False
    study_instance_uid: str = ""
    patient_id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def meaning(self) -> Meaning:
        """What it is in the words of the standard."""
        return meaning_of(self.action, on_study=bool(self.study_id is not None or self.study_instance_uid))


@dataclass(frozen=True, slots=True)
class RecordedEntry(AuditEntry):
    """An entry as it is in the trail, with its place in the chain and its digest (see :mod:`db.audit_chain`)."""

    position: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are asked for; what is None or empty is not asked about."""

    since: datetime | None = None
    until: datetime | None = None
    actor: str = ""
    action: str = ""
    event: AuditEvent | None = None
    study_id: int | None = None
    failed: bool | None = None

    def narrow(self, query: Select[Any]) -> Select[Any]:
        """``query`` with these conditions."""
        row = AuditRow
        wanted = (
            (self.since, row.at >= self.since if self.since else None),
            (self.until, row.at < self.until if self.until else None),
            (self.actor or None, row.actor == self.actor),
            (self.action or None, row.action == self.action),
            (self.event, row.event == self.event),
            (self.study_id, row.study_id == self.study_id),
            (self.failed, row.failed.is_(self.failed)),
        )
        return query.where(*(condition for given, condition in wanted if given is not None and condition is not None))


EVERYTHING = AuditFilter()


def write_entry(connection: Connection, entry: AuditEntry) -> Link:
    """Append ``entry`` within a transaction that somebody else has begun; overlong texts are cut."""
    return write_entries(connection, (entry,))


def write_entries(connection: Connection, entries: Sequence[AuditEntry]) -> Link:
    """Append ``entries`` in their order; see :func:`write_entry`. Gives the last entry of the trail."""
    contents = [_content_of(connection, entry) for entry in entries]
    audit_chain.lock(connection)
    last = audit_chain.head(connection)
    rows = []
    for content in contents:
        position = last.position + 1
        last = Link(position, audit_chain.digest_of(content, position, last.digest))
        rows.append({**vars(content), "id": last.position, "digest": last.digest})
    _INSERT.run(connection, *rows)
    return last


def _content_of(connection: Connection, entry: AuditEntry) -> SimpleNamespace:
    """The columns of a row that its digest is of."""
    study_instance_uid, patient_id = _study_of(connection, entry)
    return SimpleNamespace(
        at=entry.at,
        actor=entry.actor[:80],
        action=entry.action[:48],
        event=entry.meaning.event.value,
        failed=entry.failed,
        subject=entry.subject[:120],
        study_id=entry.study_id,
        study_instance_uid=study_instance_uid[:64],
        patient_id=patient_id[:64],
        address=entry.address[:64],
        detail=entry.detail[:2000],
        data=json.dumps(entry.data, sort_keys=True, separators=(",", ":")) if entry.data else "",
    )


def _study_of(connection: Connection, entry: AuditEntry) -> tuple[str, str]:
    if entry.study_id is None or entry.study_instance_uid:
        return entry.study_instance_uid, entry.patient_id
    found = _STUDY.first(connection, {"study_id": entry.study_id})
    return ("", "") if found is None else (found[0], found[1])


def entries_after(connection: Connection, position: int, limit: int) -> tuple[RecordedEntry, ...]:
    """The next ``limit`` entries behind ``position``, the oldest first."""
    query = select(AuditRow.__table__).where(AuditRow.id > position).order_by(AuditRow.id).limit(limit)
    return tuple(map(_recorded, connection.execute(query)))


def last_verification(connection: Connection) -> RecordedEntry | None:
    """What the last verification of the whole trail has found; None where there was none."""
    query = select(AuditRow.__table__).where(AuditRow.action.in_((VERIFIED, TRAIL_BROKEN)))
    row = connection.execute(query.order_by(AuditRow.id.desc()).limit(1)).first()
    return None if row is None else _recorded(row)


def remove_old(connection: Connection, before: datetime, sent_to: int | None, now: datetime) -> int:
    """Remove the oldest entries, all from before ``before``, with a checkpoint and an entry of it; how many.

    ``sent_to``: entries behind that place stay, for a repository still waits for them. Some thousands go at a time.
    """
    audit_chain.lock(connection)
    removed_to = audit_chain.checkpoint(connection).position
    row = AuditRow
    young = connection.scalar(select(func.min(row.id)).where(row.at >= before))
    end = connection.scalar(select(func.max(row.id))) or removed_to
    last = min(young - 1 if young is not None else end, removed_to + _REMOVED_AT_ONCE)
    last = last if sent_to is None else min(last, sent_to)
    if last <= removed_to:
        return 0
    digest = connection.execute(select(row.digest).where(row.id == last)).scalar_one()
    connection.execute(insert(AuditCheckpointRow).values(position=last, digest=digest, at=now))
    count = last - removed_to
    data = {"position": last, "digest": digest}
    detail = f"{count} entries, up to entry {last}, from before {before:%Y-%m-%d}"
    write_entry(connection, AuditEntry(now, _NODE, REMOVED_ENTRIES, "audit trail", detail=detail, data=data))
    connection.execute(delete(row).where(row.id <= last))
    return count


class AuditTrail:
    """Reads and appends the audit trail; there is no way to change it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, entry: AuditEntry) -> None:
        """Append ``entry``."""
        with writing(self._engine).begin() as connection:
            write_entry(connection, entry)

    def entries(
        self, wanted: AuditFilter = EVERYTHING, *, limit: int = 100, offset: int = 0
    ) -> tuple[RecordedEntry, ...]:
        """The latest entries that are ``wanted`` first."""
        query = wanted.narrow(select(AuditRow.__table__)).order_by(AuditRow.id.desc()).limit(limit).offset(offset)
        with self._engine.connect() as connection:
            return tuple(map(_recorded, connection.execute(query)))

    def every(self, wanted: AuditFilter = EVERYTHING) -> Iterator[RecordedEntry]:
        """All entries that are ``wanted``, the oldest first, a few of them in memory at a time."""
        query = wanted.narrow(select(AuditRow.__table__)).order_by(AuditRow.id)
        with self._engine.connect() as connection:
            yield from map(_recorded, connection.execution_options(yield_per=500).execute(query))

    def last_verification(self) -> RecordedEntry | None:
        """What the last verification of the whole trail has found; None where there was none."""
        with self._engine.connect() as connection:
            return last_verification(connection)

    def verify(self, anchors: Iterable[Link] = (), *, latest: int | None = None) -> Verified:
        """Check the chain; see :func:`db.audit_chain.verify`."""
        with self._engine.connect() as connection:
            return audit_chain.verify(connection, anchors, latest=latest)


def _recorded(row: Row[Any]) -> RecordedEntry:
    names = (name for name in AuditEntry.__dataclass_fields__ if name != "data")
    data = json.loads(row.data) if row.data else {}
    return RecordedEntry(**{name: getattr(row, name) for name in names}, data=data, position=row.id, digest=row.digest)
