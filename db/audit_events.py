"""What actions of the audit trail are in the words of DICOM PS3.15 A.5.3 and PS3.16: event, type and kind of access.

An action is a short phrase that a person reads; what is not in :data:`MEANINGS` is the work of a person: on a study it
has accessed instances, elsewhere it has used a restricted function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class AuditEvent(StrEnum):
    """Audit Event ID (PS3.16 CID 400), by its meaning."""

    APPLICATION_ACTIVITY = "Application Activity"
    AUDIT_LOG_USED = "Audit Log Used"
    BEGIN_TRANSFERRING = "Begin Transferring DICOM Instances"
    ACCESSED = "DICOM Instances Accessed"
    TRANSFERRED = "DICOM Instances Transferred"
    STUDY_DELETED = "DICOM Study Deleted"
    EXPORT = "Export"
    QUERY = "Query"
    SECURITY_ALERT = "Security Alert"
    USER_AUTHENTICATION = "User Authentication"


class EventType(StrEnum):
    """Audit Event Type Code (PS3.16 CID 401), by its code value in the scheme DCM."""

    APPLICATION_START = "110120"
    APPLICATION_STOP = "110121"
    LOGIN = "110122"
    LOGOUT = "110123"
    NODE_AUTHENTICATION = "110126"
    SOFTWARE_CONFIGURATION = "110131"
    RESTRICTED_FUNCTION = "110132"
    OBJECT_ATTRIBUTES_CHANGED = "110135"
    ROLES_CHANGED = "110136"
    USER_ATTRIBUTES_CHANGED = "110137"


class Access(StrEnum):
    """EventActionCode (PS3.15 table A.5.2-1)."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an action is: its event, the type within it where the standard has one, and what was done to the data."""

    event: AuditEvent
    access: Access
    type: EventType | None = None


START, STOP = "start", "stop"
CONFIGURATION_CHANGED = "change configuration"
LOG_IN, LOG_OUT, LOG_IN_FAILED = "log in", "log out", "log in failed"
REJECTED, CLOSED = "reject association", "refuse connection"
RECEIVED, BEGIN_SENDING, SENT, QUERIED = "receive", "begin sending", "send", "query"
ASKED = "answer query"
VIEW_STUDY = "view study"
READ_TRAIL, EXPORT_TRAIL, VERIFIED, TRAIL_BROKEN = "view audit", "export audit", "verify audit", "audit is broken"
REMOVED_ENTRIES = "remove old entries"
ERASED_STUDY, ERASED_PATIENT = "erase study", "erase patient"
EXPORTS = "export "
"""How the actions begin that take data out of the node."""

_SECURITY, _EXECUTE = AuditEvent.SECURITY_ALERT, Access.EXECUTE

MEANINGS: Mapping[str, Meaning] = {
    START: Meaning(AuditEvent.APPLICATION_ACTIVITY, _EXECUTE, EventType.APPLICATION_START),
    STOP: Meaning(AuditEvent.APPLICATION_ACTIVITY, _EXECUTE, EventType.APPLICATION_STOP),
    LOG_IN: Meaning(AuditEvent.USER_AUTHENTICATION, _EXECUTE, EventType.LOGIN),
    LOG_IN_FAILED: Meaning(AuditEvent.USER_AUTHENTICATION, _EXECUTE, EventType.LOGIN),
    LOG_OUT: Meaning(AuditEvent.USER_AUTHENTICATION, _EXECUTE, EventType.LOGOUT),
    RECEIVED: Meaning(AuditEvent.TRANSFERRED, Access.CREATE),
    BEGIN_SENDING: Meaning(AuditEvent.BEGIN_TRANSFERRING, _EXECUTE),
    SENT: Meaning(AuditEvent.TRANSFERRED, Access.CREATE),
    QUERIED: Meaning(AuditEvent.QUERY, _EXECUTE),
    ASKED: Meaning(AuditEvent.QUERY, _EXECUTE),
    VIEW_STUDY: Meaning(AuditEvent.ACCESSED, Access.READ),
    ERASED_STUDY: Meaning(AuditEvent.STUDY_DELETED, Access.DELETE),
    READ_TRAIL: Meaning(AuditEvent.AUDIT_LOG_USED, Access.READ),
    EXPORT_TRAIL: Meaning(AuditEvent.AUDIT_LOG_USED, Access.READ),
    VERIFIED: Meaning(AuditEvent.AUDIT_LOG_USED, Access.READ),
    TRAIL_BROKEN: Meaning(_SECURITY, _EXECUTE, EventType.OBJECT_ATTRIBUTES_CHANGED),
    REJECTED: Meaning(_SECURITY, _EXECUTE, EventType.NODE_AUTHENTICATION),
    CLOSED: Meaning(_SECURITY, _EXECUTE, EventType.NODE_AUTHENTICATION),
    CONFIGURATION_CHANGED: Meaning(_SECURITY, _EXECUTE, EventType.SOFTWARE_CONFIGURATION),
    "switch model": Meaning(_SECURITY, _EXECUTE, EventType.SOFTWARE_CONFIGURATION),
    "add user": Meaning(_SECURITY, _EXECUTE, EventType.ROLES_CHANGED),
    "change user": Meaning(_SECURITY, _EXECUTE, EventType.ROLES_CHANGED),
    "free for sign-on": Meaning(_SECURITY, _EXECUTE, EventType.USER_ATTRIBUTES_CHANGED),
    "set password": Meaning(_SECURITY, _EXECUTE, EventType.USER_ATTRIBUTES_CHANGED),
    "add token": Meaning(_SECURITY, _EXECUTE, EventType.USER_ATTRIBUTES_CHANGED),
    "revoke token": Meaning(_SECURITY, _EXECUTE, EventType.USER_ATTRIBUTES_CHANGED),
}


def meaning_of(action: str, *, on_study: bool) -> Meaning:
    """What ``action`` is; ``on_study``: it was done to a study."""
    if known := MEANINGS.get(action):
        return known
    if action.startswith(EXPORTS):
        return Meaning(AuditEvent.EXPORT, Access.READ)
    if on_study:
        return Meaning(AuditEvent.ACCESSED, Access.UPDATE)
    return Meaning(_SECURITY, _EXECUTE, EventType.RESTRICTED_FUNCTION)
