"""The limit on guessed passwords. It holds for any number of tries at the same moment, in any number of processes.

A try is written down before the password is looked at, in the transaction that counts the earlier ones; so what is
still being looked at counts as a failure until it is known to be none.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, select, text, update

from db.audit import AuditEntry, write_entry
from db.audit_events import LOG_IN_FAILED
from db.engine import writing
from db.errors import DatabaseError
from db.user_tables import AttemptRow

LOGIN_WINDOW = timedelta(minutes=15)
FAILURES_PER_USER = 8
FAILURES_PER_ADDRESS = 20
_A_MOMENT = timedelta(seconds=5)
_LOCK = 0x4C6F6749  # "LogI": the key of PostgreSQL's advisory lock


class TooManyAttemptsError(DatabaseError):
    """Too many failed tries for this name or from this address, or too many at a time; ``wait`` says how long."""

    def __init__(self, message: str, wait: timedelta) -> None:
        super().__init__(message)
        self.wait = wait


class Attempts:
    """Counts tries of passwords by name and by address."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, subject: str, address: str, now: datetime) -> int:
        """Write down a try for ``subject`` and give its number; an empty ``address`` is not counted.

        Raises:
            TooManyAttemptsError: The limit is reached; nothing is written and no password must be looked at.
        """
        subject, address = subject[:120], address[:64]
        with writing(self._engine).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            connection.execute(delete(AttemptRow).where(AttemptRow.at <= now - LOGIN_WINDOW))
            _limit(connection, AttemptRow.subject == subject, FAILURES_PER_USER)
            if address:
                _limit(connection, AttemptRow.address == address, FAILURES_PER_ADDRESS)
            made = insert(AttemptRow).values(subject=subject, address=address, at=now).returning(AttemptRow.id)
            return int(connection.execute(made).scalar_one())

    def succeed(self, attempt_id: int) -> None:
        """The password was right: the try counts no more."""
        with writing(self._engine).begin() as connection:
            connection.execute(delete(AttemptRow).where(AttemptRow.id == attempt_id))

    def fail(self, attempt_id: int, subject: str, address: str, now: datetime) -> None:
        """The password was wrong: the try counts while the window lasts, and the audit trail tells of it."""
        with writing(self._engine).begin() as connection:
            connection.execute(update(AttemptRow).where(AttemptRow.id == attempt_id).values(failed=True))
            write_entry(connection, AuditEntry(now, subject, LOG_IN_FAILED, subject, address=address, failed=True))


def _limit(connection: Connection, condition: ColumnElement[bool], limit: int) -> None:
    failures = func.count().filter(AttemptRow.failed)
    tried, failed = connection.execute(select(func.count(), failures).where(condition)).one()
    if failed >= limit:
        minutes = int(LOGIN_WINDOW.total_seconds() // 60)
        raise TooManyAttemptsError(f"too many failed log-ins; try again in {minutes} minutes", LOGIN_WINDOW)
    if tried >= limit:
        raise TooManyAttemptsError("too many log-ins at a time; try again in a moment", _A_MOMENT)
