"""Verification of the audit trail, which is in the trail itself: by a person, and once a day by the scheduler."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from db.audit import AuditEntry, AuditTrail
from db.audit_chain import Link, Verified
from db.audit_events import TRAIL_BROKEN, VERIFIED


def verify_and_record(trail: AuditTrail, actor: str, now: datetime, anchors: Iterable[Link] = ()) -> Verified:
    """Check the whole trail, and append what was found: a security alert where it does not hold."""
    found = trail.verify(anchors)
    action = TRAIL_BROKEN if found.problem else VERIFIED
    detail = found.problem or f"{found.entries} entries hold, up to {found.head.position}"
    trail.add(AuditEntry(now, actor, action, "audit trail", detail=detail, failed=bool(found.problem)))
    return found
