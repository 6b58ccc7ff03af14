"""The audit trail: who did or saw what, when, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, insert, select

from db.engine import writing
from db.user_tables import AuditRow


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit trail."""

    at: datetime
    actor: str
    action: str
    subject: str = ""
    study_id: int | None = None
    address: str = ""
    detail: str = ""


def write_entry(connection: Connection, entry: AuditEntry) -> None:
    """Add ``entry`` within a transaction that somebody else has begun; overlong texts are cut."""
    connection.execute(
        insert(AuditRow).values(
            at=entry.at,
            actor=entry.actor[:80],
            action=entry.action[:48],
            subject=entry.subject[:120],
            study_id=entry.study_id,
            address=entry.address[:64],
            detail=entry.detail[:2000],
        )
    )


class AuditTrail:
    """Reads and appends the audit trail; there is no way to change it."""

    def __init__(self, engine: Engine) -> None:
        """Use the database of ``engine``."""
        self._engine = engine

    def add(self, entry: AuditEntry) -> None:
        """Append ``entry``."""
        with writing(self._engine).begin() as connection:
            write_entry(connection, entry)

    def entries(self, *, limit: int = 100, offset: int = 0, study_id: int | None = None) -> tuple[AuditEntry, ...]:
        """The latest entries first; those of one study where ``study_id`` says so."""
        query = select(AuditRow.__table__).order_by(AuditRow.id.desc()).limit(limit).offset(offset)
        if study_id is not None:
            query = query.where(AuditRow.study_id == study_id)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return tuple(
            AuditEntry(row.at, row.actor, row.action, row.subject, row.study_id, row.address, row.detail)
            for row in rows
        )
