"""Audit messages (DICOM PS3.15 A.5): an entry of the audit trail as XML, by the schema of A.5.1 and tables of A.5.3.

Participants: the node is its AE title with the host's name, a peer its AE title, a person their user name. Patients are
named by their ID alone. ``EventOutcomeDescription`` ends with the entry's place and digest in the hash chain of the
database, so that what a repository has kept is an anchor of it (:mod:`db.audit_chain`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from xml.etree.ElementTree import Element, SubElement, tostring

from pydicom.uid import ImplicitVRLittleEndian

from db.audit import RecordedEntry
from db.audit_chain import Link
from db.audit_events import ASKED, RECEIVED, AuditEvent, EventType

Code = tuple[str, str, str]
"""Code value, coding scheme designator, code meaning."""

_EVENT_IDS: Mapping[AuditEvent, str] = {
    AuditEvent.APPLICATION_ACTIVITY: "110100",
    AuditEvent.AUDIT_LOG_USED: "110101",
    AuditEvent.BEGIN_TRANSFERRING: "110102",
    AuditEvent.ACCESSED: "110103",
    AuditEvent.TRANSFERRED: "110104",
    AuditEvent.STUDY_DELETED: "110105",
    AuditEvent.EXPORT: "110106",
    AuditEvent.QUERY: "110112",
    AuditEvent.SECURITY_ALERT: "110113",
    AuditEvent.USER_AUTHENTICATION: "110114",
}
_TYPES: Mapping[EventType, str] = {
    EventType.APPLICATION_START: "Application Start",
    EventType.APPLICATION_STOP: "Application Stop",
    EventType.LOGIN: "Login",
    EventType.LOGOUT: "Logout",
    EventType.NODE_AUTHENTICATION: "Node Authentication",
    EventType.SOFTWARE_CONFIGURATION: "Software Configuration",
    EventType.RESTRICTED_FUNCTION: "Use of Restricted Function",
    EventType.OBJECT_ATTRIBUTES_CHANGED: "Object Security Attributes Changed",
    EventType.ROLES_CHANGED: "Security Roles Changed",
    EventType.USER_ATTRIBUTES_CHANGED: "User Security Attributes Changed",
}
_APPLICATION: Code = ("110150", "DCM", "Application")
_DESTINATION: Code = ("110152", "DCM", "Destination Role ID")
_SOURCE: Code = ("110153", "DCM", "Source Role ID")
_DESTINATION_MEDIA: Code = ("110154", "DCM", "Destination Media")
_URI_MEDIA: Code = ("110037", "DCM", "URI")
_STUDY_UID: Code = ("110180", "DCM", "Study Instance UID")
_SOP_CLASS_UID: Code = ("110181", "DCM", "SOP Class UID")
_NODE_ID: Code = ("110182", "DCM", "Node ID")
_PATIENT_NUMBER: Code = ("2", "RFC-3881", "Patient Number")
_URI: Code = ("12", "RFC-3881", "URI")

_SUCCESS, _MINOR_FAILURE = "0", "4"
_MACHINE_NAME, _IP_ADDRESS = "1", "2"
_PERSON, _SYSTEM = "1", "2"
_PATIENT, _REPORT, _SECURITY_RESOURCE = "1", "3", "13"
_APPLICATION_SERVER = "4"  # PS3.15 A.5.1.2.1
_TRAIL = "urn:pleura:audit-trail"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may hold (XML 1.0, 2.2)."""


@dataclass(frozen=True, slots=True)
class AuditSource:
    """Who reports: ``source_id`` and ``site`` are AuditSourceID and AuditEnterpriseSiteID."""

    source_id: str
    site: str
    ae_title: str
    host: str


def audit_message(entry: RecordedEntry, source: AuditSource) -> bytes:
    """The audit message of ``entry``, in UTF-8."""
    root = Element("AuditMessage")
    _identify(root, entry)
    _PARTICIPANTS.get(entry.meaning.event, _by_a_person)(root, entry, source)
    reporting = {"AuditSourceID": source.source_id} | ({"AuditEnterpriseSiteID": source.site} if source.site else {})
    identification = SubElement(root, "AuditSourceIdentification", _clean(reporting))
    SubElement(identification, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for add in _OBJECTS.get(entry.meaning.event, ()):
        add(root, entry)
    encoded: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return encoded.replace(b"\n", b" ")


def _identify(root: Element, entry: RecordedEntry) -> None:
    meaning = entry.meaning
    event = SubElement(
        root,
        "EventIdentification",
        {
            "EventActionCode": meaning.access.value,
            "EventDateTime": entry.at.astimezone(UTC).isoformat(timespec="milliseconds"),
            "EventOutcomeIndicator": _MINOR_FAILURE if entry.failed else _SUCCESS,
        },
    )
    _code(event, "EventID", (_EVENT_IDS[meaning.event], "DCM", meaning.event.value))
    if meaning.type is not None:
        _code(event, "EventTypeCode", (meaning.type.value, "DCM", _TYPES[meaning.type]))
    text = " ".join(part for part in (entry.action, entry.subject, entry.detail) if part)
    description = SubElement(event, "EventOutcomeDescription")
    description.text = _NOT_XML.sub("?", f"{text}; {Link(entry.position, entry.digest)}")


def _code(parent: Element, name: str, code: Code) -> None:
    value, scheme, meaning = code
    SubElement(parent, name, {"csd-code": value, "codeSystemName": scheme, "originalText": meaning})


def _participant(
    root: Element, user: str, *, requestor: bool, role: Code | None = None, ae_title: str = "", address: str = ""
) -> Element:
    """An active participant; ``address`` is an IP address, or the name of a machine."""
    values = {"UserID": user, "UserIsRequestor": "true" if requestor else "false"}
    if ae_title:
        values["AlternativeUserID"] = f"AETITLES={ae_title}"
    if address:
        kind = _IP_ADDRESS if re.fullmatch(r"[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%a-z0-9]*", address) else _MACHINE_NAME
        values |= {"NetworkAccessPointID": address, "NetworkAccessPointTypeCode": kind}
    made = SubElement(root, "ActiveParticipant", _clean(values))
    if role is not None:
        _code(made, "RoleIDCode", role)
    return made


def _clean(values: Mapping[str, str]) -> dict[str, str]:
    return {name: _NOT_XML.sub("?", value) for name, value in values.items()}


def _node(root: Element, source: AuditSource, *, requestor: bool = False, role: Code | None = None) -> None:
    name = f"{source.ae_title}@{source.host}"
    _participant(root, name, requestor=requestor, role=role, ae_title=source.ae_title, address=source.host)


def _peer(root: Element, entry: RecordedEntry, *, requestor: bool, role: Code | None) -> None:
    title = str(entry.data.get("peer", "")) or entry.actor
    _participant(root, title, requestor=requestor, role=role, ae_title=title, address=entry.address)


def _by_a_person(root: Element, entry: RecordedEntry, source: AuditSource) -> None:
    """The person and the node, both known."""
    _participant(root, entry.actor, requestor=True, address=entry.address or source.host)
    _node(root, source)


def _application(root: Element, entry: RecordedEntry, source: AuditSource) -> None:
    """The part of the node that starts or stops (A.5.3.1)."""
    _participant(root, entry.actor, requestor=False, role=_APPLICATION, ae_title=source.ae_title, address=source.host)


def _transfer(root: Element, entry: RecordedEntry, source: AuditSource) -> None:
    """Where instances, or a query, come from and go to (A.5.3.3, A.5.3.7, A.5.3.10)."""
    if entry.action in (RECEIVED, ASKED):
        _peer(root, entry, requestor=True, role=_SOURCE)
        _node(root, source, role=_DESTINATION)
    else:
        _node(root, source, requestor=True, role=_SOURCE)
        _peer(root, entry, requestor=False, role=_DESTINATION)


def _export(root: Element, entry: RecordedEntry, source: AuditSource) -> None:
    """Who exports, and to where (A.5.3.4): to the browser or program of that person."""
    where = entry.address or source.host
    _participant(root, entry.actor, requestor=True, role=_SOURCE, address=where)
    _node(root, source, role=_SOURCE)
    media = _participant(root, _urn(entry.action), requestor=False, role=_DESTINATION_MEDIA, address=where)
    _code(SubElement(media, "MediaIdentifier"), "MediaType", _URI_MEDIA)


def _urn(action: str) -> str:
    return f"urn:pleura:{action.replace(' ', '-')}"


def _alert(root: Element, entry: RecordedEntry, source: AuditSource) -> None:
    """Who reports, and who has done it (A.5.3.11): the node reports what peers do."""
    if entry.meaning.type is EventType.NODE_AUTHENTICATION:
        _node(root, source)
        _peer(root, entry, requestor=False, role=None)
    else:
        _by_a_person(root, entry, source)


_PARTICIPANTS: Mapping[AuditEvent, Callable[[Element, RecordedEntry, AuditSource], None]] = {
    AuditEvent.APPLICATION_ACTIVITY: _application,
    AuditEvent.BEGIN_TRANSFERRING: _transfer,
    AuditEvent.TRANSFERRED: _transfer,
    AuditEvent.QUERY: _transfer,
    AuditEvent.EXPORT: _export,
    AuditEvent.SECURITY_ALERT: _alert,
}


def _object(root: Element, identifier: str, kind: Code, type_code: str, role: str, name: str | None = "") -> Element:
    """A participant object; without a ``name`` the caller adds a query, for the schema wants one of them."""
    values = {
        "ParticipantObjectID": identifier,
        "ParticipantObjectTypeCode": type_code,
        "ParticipantObjectTypeCodeRole": role,
    }
    made = SubElement(root, "ParticipantObjectIdentification", _clean(values))
    _code(made, "ParticipantObjectIDTypeCode", kind)
    if name is not None:
        SubElement(made, "ParticipantObjectName").text = name
    return made


def _study(root: Element, entry: RecordedEntry) -> None:
    if not entry.study_instance_uid:
        return
    made = _object(root, entry.study_instance_uid, _STUDY_UID, _SYSTEM, _REPORT)
    classes: Mapping[str, int] = entry.data.get("instances", {})
    if classes:
        described = SubElement(made, "ParticipantObjectDescription")
        for uid, count in sorted(classes.items()):
            SubElement(described, "SOPClass", _clean({"UID": uid, "NumberOfInstances": str(count)}))


def _patient(root: Element, entry: RecordedEntry) -> None:
    if entry.study_instance_uid:
        _object(root, entry.patient_id, _PATIENT_NUMBER, _PERSON, _PATIENT)


def _query(root: Element, entry: RecordedEntry) -> None:
    made = _object(root, str(entry.data.get("sop_class", "")), _SOP_CLASS_UID, _SYSTEM, _REPORT, None)
    SubElement(made, "ParticipantObjectQuery").text = str(entry.data.get("query", ""))
    syntax = base64.b64encode(str(ImplicitVRLittleEndian).encode()).decode()
    SubElement(made, "ParticipantObjectDetail", {"type": "TransferSyntax", "value": syntax})


def _trail(root: Element, entry: RecordedEntry) -> None:
    del entry
    _object(root, _TRAIL, _URI, _SYSTEM, _SECURITY_RESOURCE, "Security Audit Log")


def _subject(root: Element, entry: RecordedEntry) -> None:
    """What an alert is about: the caller that was rejected, or a part of the node."""
    rejected = entry.meaning.type is EventType.NODE_AUTHENTICATION and entry.address
    identifier = entry.address if rejected else _urn(entry.action)
    made = _object(root, identifier, _NODE_ID if rejected else _URI, _SYSTEM, _SECURITY_RESOURCE)
    text = " ".join(part for part in (entry.action, entry.subject, entry.detail) if part)
    value = base64.b64encode(text.encode()).decode()
    SubElement(made, "ParticipantObjectDetail", {"type": "Alert Description", "value": value})


_OBJECTS: Mapping[AuditEvent, Sequence[Callable[[Element, RecordedEntry], None]]] = {
    AuditEvent.AUDIT_LOG_USED: (_trail,),
    AuditEvent.BEGIN_TRANSFERRING: (_study, _patient),
    AuditEvent.ACCESSED: (_study, _patient),
    AuditEvent.TRANSFERRED: (_study, _patient),
    AuditEvent.STUDY_DELETED: (_study, _patient),
    AuditEvent.EXPORT: (_study, _patient),
    AuditEvent.QUERY: (_query,),
    AuditEvent.SECURITY_ALERT: (_subject,),
}
