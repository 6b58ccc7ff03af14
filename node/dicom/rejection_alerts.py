"""Rejected associations in the database: counted for the admin, and as security alerts of the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from db.audit import AuditEntry, write_entry
from db.audit_events import REJECTED
from db.database import Database
from db.rejected_associations import RejectedAssociation, add
from workers.audit.alerts import AlertLimit
from workers.clock import utc_now


def write_rejected(database: Database, limit: AlertLimit, counted: Sequence[RejectedAssociation]) -> None:
    """Write what was counted, and tell the audit trail of as many as ``limit`` lets through."""
    alerts = []
    for one in counted:
        kind = (one.calling_ae_title, one.called_ae_title, one.address, one.reason)
        if count := limit.admit(kind, one.count):
            alerts.append(_alert(one, count))
    database.write(_write, counted, alerts, utc_now())


def _alert(one: RejectedAssociation, times: int) -> AuditEntry:
    detail = f"{times} times: {one.reason}" if times > 1 else one.reason
    subject = f"to {one.called_ae_title}" if one.called_ae_title else ""
    caller = one.calling_ae_title or "no AE title"
    return AuditEntry(one.last_at, caller, REJECTED, subject, address=one.address, detail=detail, failed=True)


def _write(
    connection: Connection, counted: Sequence[RejectedAssociation], alerts: Sequence[AuditEntry], now: datetime
) -> None:
    add(connection, counted, now)
    for alert in alerts:
        write_entry(connection, alert)
