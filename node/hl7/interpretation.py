"""Interpretation of HL7 messages: pure functions from a parsed message to a change of the database.

Orders and reports are groups of ORC, OBR, TQ1, OBX, IPC and ZDS (HL7 v2 chapters 4 and 7; IHE RAD TF-2, 4.1 to 4.5 and
4.28 for ZDS and IPC). Patients are PID, with MRG for merged identifiers (chapter 3).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from config.hl7 import HL7
from db.orders import CANCELLED, ORDERED, HospitalMessage, OrderKeys, OrderUpdate
from db.patients import PatientIdentifier, PatientUpdate
from db.states import Priority
from workers.hl7.encoding import UNREADABLE
from workers.hl7.message import (
    DATA_TYPE,
    REQUIRED_FIELD,
    SEGMENT_SEQUENCE,
    UNSUPPORTED_EVENT,
    UNSUPPORTED_MESSAGE,
    UNSUPPORTED_PROCESSING,
    UNSUPPORTED_VERSION,
    Message,
    MessageError,
    Segment,
)

ORDER_MESSAGES = frozenset({"ORM^O01", "OMI^O23", "OMG^O19"})
REPORT_MESSAGES = frozenset({"ORU^R01"})
# Update of a patient (A08, of a person A31; A28 is a new person for IHE PAM, who may be here already); merge (A40) and
# change of identifiers (A47): each PID is followed by MRG.
CORRECTION_MESSAGES = frozenset({"ADT^A08", "ADT^A28", "ADT^A31"})
MERGE_MESSAGES = frozenset({"ADT^A40", "ADT^A47"})
PATIENT_MESSAGES = CORRECTION_MESSAGES | MERGE_MESSAGES
MESSAGE_TYPES = ORDER_MESSAGES | REPORT_MESSAGES | PATIENT_MESSAGES

_CANCELLING = frozenset({"CA", "OC", "CR", "DC", "OD", "DR"})
_CANCELLED_STATUSES = frozenset({"CA", "DC"})
_NEW = frozenset({"NW", "RO", "SN"})
_UID = re.compile(r"[0-9.]{1,64}")
_LONGEST_KEY = 250


@dataclass(slots=True)
class _Group:
    """One order of a message: its segments in their order."""

    segments: list[Segment] = field(default_factory=list)

    def first(self, name: str) -> Segment | None:
        return next(self.all(name), None)

    def all(self, name: str) -> Iterator[Segment]:
        return (segment for segment in self.segments if segment.name == name)

    def text(self, name: str, number: int, component: int = 1) -> str:
        found = self.first(name)
        return _readable(found.text(number, component), f"{name}^1^{number}") if found else ""


def check_header(message: Message, hl7: HL7) -> None:
    """Reject messages that this node does not support.

    Raises:
        MessageError: with ``reject`` and the reason.
    """
    header = message.header
    if not header.text(10):
        raise MessageError(REQUIRED_FIELD, "the control ID is missing", "MSH^1^10", reject=True)
    if message.kind not in MESSAGE_TYPES:
        known = any(kind.startswith(f"{header.text(9)}^") for kind in MESSAGE_TYPES)
        code = UNSUPPORTED_EVENT if known else UNSUPPORTED_MESSAGE
        raise MessageError(code, f"this node supports {', '.join(sorted(MESSAGE_TYPES))}", "MSH^1^9", reject=True)
    if header.text(11) not in ("", *hl7.processing_ids):
        raise MessageError(UNSUPPORTED_PROCESSING, "this processing ID is not accepted", "MSH^1^11", reject=True)
    if header.text(12) and not header.text(12).startswith("2."):
        raise MessageError(UNSUPPORTED_VERSION, "only HL7 version 2 is supported", "MSH^1^12", reject=True)
    if hl7.senders and not {sender_of(header), header.text(3)} & set(hl7.senders):
        raise MessageError("103", "this sending application is unknown", "MSH^1^3", reject=True)


def sender_of(header: Segment) -> str:
    """The sender: MSH-3 and MSH-4."""
    return f"{header.text(3)}|{header.text(4)}"


def interpret(message: Message, raw: bytes, hl7: HL7) -> HospitalMessage:
    """Interpret ``message``, whose bytes are ``raw``.

    Raises:
        MessageError: it is not supported, or a needed value is missing or invalid.
    """
    check_header(message, hl7)
    kind = message.kind
    return HospitalMessage(
        sender=sender_of(message.header),
        control_id=_checked(message.header.text(10), "MSH^1^10"),
        digest=_digest(raw),
        kind=kind,
        orders=() if kind in PATIENT_MESSAGES else _orders(message, hl7, is_report=kind in REPORT_MESSAGES),
        patients=_patients(message, hl7) if kind in PATIENT_MESSAGES else (),
    )


def _digest(raw: bytes) -> str:
    """SHA-256 of everything after MSH: a message that is sent again may have another time in MSH-7."""
    return hashlib.sha256(re.split(rb"[\r\n]", raw.lstrip(b"\r\n"), maxsplit=1)[-1]).hexdigest()


def _orders(message: Message, hl7: HL7, *, is_report: bool) -> tuple[OrderUpdate, ...]:
    pid = message.first("PID")
    patient = patient_identifiers(pid, 3, hl7) if pid else ()
    if pid and pid.text(3) and not patient:
        raise MessageError(REQUIRED_FIELD, "PID-3 names no identifier that is a Patient ID", "PID^1^3")
    groups = _groups(message)
    if not groups:
        raise MessageError(SEGMENT_SEQUENCE, "an order or report needs ORC or OBR", "OBR^1")
    common = _common(message, hl7)
    return tuple(_order(group, patient, common, hl7, is_report=is_report) for group in groups)


def _groups(message: Message) -> list[_Group]:
    """Split a message into its orders: each begins with ORC, or with OBR if there is no ORC before it."""
    groups: list[_Group] = []
    for segment in message.segments:
        begins = segment.name == "ORC" or (segment.name == "OBR" and (not groups or groups[-1].first("OBR")))
        if begins:
            groups.append(_Group())
        if groups:
            groups[-1].segments.append(segment)
    return groups


def _common(message: Message, hl7: HL7) -> str:
    """The Study Instance UID that a message has once for all of its orders (ZDS is its last segment)."""
    uids = {uid for uid in (_study_uid(_Group([segment]), hl7) for segment in message.segments) if uid}
    return uids.pop() if len(uids) == 1 else ""


def _order(
    group: _Group, patient: tuple[PatientIdentifier, ...], common: str, hl7: HL7, *, is_report: bool
) -> OrderUpdate:
    keys = OrderKeys(
        study_instance_uid=_study_uid(group, hl7) or common,
        accession_number=_checked(_first(group, hl7.accession_fields), "OBR^1^18"),
        placer_order_number=_checked(group.text("ORC", 2) or group.text("OBR", 2), "ORC^1^2"),
        filler_order_number=_checked(group.text("ORC", 3) or group.text("OBR", 3), "ORC^1^3"),
    )
    if not keys:
        raise MessageError(REQUIRED_FIELD, "no identifier of an order or study", "OBR^1^18")
    code = _priority_code(group)
    changes_status = group.text("ORC", 1) == "SC"
    return OrderUpdate(
        keys=keys,
        patient=patient,
        priority=_priority(code, hl7),
        says_priority=bool(code) and not is_report,
        status="" if is_report else _status(group),
        reported=(is_report or changes_status) and _is_reported(group, hl7),
    )


def _study_uid(group: _Group, hl7: HL7) -> str:
    uid = _first(group, hl7.study_uid_fields)
    if uid and not _UID.fullmatch(uid):
        raise MessageError(DATA_TYPE, "a Study Instance UID has at most 64 digits and dots", "ZDS^1^1")
    return uid


def _first(group: _Group, names: Sequence[str]) -> str:
    """The first value of fields such as ``OBR-18`` or ``OBR-18.2`` that is not empty."""
    for name in names:
        segment, _, location = name.partition("-")
        number, _, component = location.partition(".")
        value = group.text(segment, int(number), int(component or 1))
        if value:
            return value
    return ""


def _readable(value: str, location: str) -> str:
    """Return a needed value, or raise MessageError if it could not be decoded."""
    if UNREADABLE in value:
        raise MessageError(DATA_TYPE, "a needed value has bytes outside of the character set", location)
    return value


def _checked(value: str, location: str) -> str:
    _readable(value, location)
    if len(value) > _LONGEST_KEY or any(ord(character) < 0x20 for character in value):
        raise MessageError(DATA_TYPE, "an identifier is too long or has control characters", location)
    return value


def _priority_code(group: _Group) -> str:
    """The priority of an order, whose field depends on the HL7 version: OBR-27.6, TQ1-9, ORC-7.6, OBR-5."""
    locations = (("OBR", 27, 6), ("TQ1", 9, 1), ("ORC", 7, 6), ("OBR", 5, 1))
    return next((code for location in locations if (code := group.text(*location).upper())), "")


def _priority(code: str, hl7: HL7) -> Priority | None:
    if code in hl7.critical_priorities:
        return Priority.CRITICAL
    return Priority.URGENT if code in hl7.urgent_priorities else None


def _status(group: _Group) -> str:
    control = group.text("ORC", 1)
    if control in _CANCELLING or group.text("ORC", 5) in _CANCELLED_STATUSES:
        return CANCELLED
    return ORDERED if control in _NEW else ""


def _is_reported(group: _Group, hl7: HL7) -> bool:
    """Whether the report is final: by OBR-25 or, if that is empty, by every OBX-11."""
    status = group.text("OBR", 25)
    if status:
        return status in hl7.reported_statuses
    statuses = [_readable(segment.text(11), "OBX^1^11") for segment in group.all("OBX")]
    return bool(statuses) and all(one in hl7.reported_statuses for one in statuses)


def _patients(message: Message, hl7: HL7) -> tuple[PatientUpdate, ...]:
    """Patients that are corrected (a PID each) or merged (each PID is followed by its MRG)."""
    news: list[PatientUpdate] = []
    pid: Segment | None = None
    for segment in message.segments:
        if segment.name == "PID":
            pid = segment
            if message.kind in CORRECTION_MESSAGES:
                news.append(_patient(pid, hl7))
        elif segment.name == "MRG" and pid is not None and message.kind in MERGE_MESSAGES:
            news.append(_merged(_patient(pid, hl7), patient_identifiers(segment, 1, hl7)))
    if not news:
        raise MessageError(SEGMENT_SEQUENCE, "A08, A28 and A31 need PID, A40 and A47 need PID and MRG", "PID^1")
    return tuple(news)


def _merged(news: PatientUpdate, given_up: tuple[PatientIdentifier, ...]) -> PatientUpdate:
    if not given_up:
        raise MessageError(REQUIRED_FIELD, "MRG names no identifier that is a Patient ID", "MRG^1^1")
    return replace(news, prior=given_up)


def _patient(pid: Segment, hl7: HL7) -> PatientUpdate:
    identifiers = patient_identifiers(pid, 3, hl7)
    if not identifiers:
        raise MessageError(REQUIRED_FIELD, "PID-3 names no identifier that is a Patient ID", "PID^1^3")
    birth_date = pid.text(7)[:8]
    sex = pid.text(8).upper()
    return PatientUpdate(
        identifiers=identifiers,
        name=person_name(pid, 5),
        birth_date=birth_date if re.fullmatch(r"\d{8}", birth_date) else "",
        sex={"M": "M", "F": "F", "O": "O", "A": "O"}.get(sex, ""),
    )


def patient_identifiers(segment: Segment, number: int, hl7: HL7) -> tuple[PatientIdentifier, ...]:
    """The patient IDs of a repeating field of type CX, without identifiers of other types (account, insurance)."""
    found = []
    for repetition in segment.repetitions(number):
        identifier = _checked(segment.part(repetition, 1), f"{segment.name}^1^{number}")
        issuer = segment.part(repetition, 4) or segment.part(repetition, 4, 2)
        kind = segment.part(repetition, 5)
        if identifier and (not kind or kind in hl7.patient_id_types):
            found.append(PatientIdentifier(identifier, _checked(issuer, f"{segment.name}^1^{number}")))
    return tuple(dict.fromkeys(found))


def person_name(segment: Segment, number: int) -> str:
    """A name of type XPN as a DICOM person name (PS3.5 6.2.1): the legal one or the first; empty if unreadable."""
    repetitions = segment.repetitions(number)
    if not repetitions:
        return ""
    chosen = next((one for one in repetitions if segment.part(one, 7) == "L"), repetitions[0])
    # XPN: family, given, further given names, suffix, prefix. PN: family, given, middle, prefix, suffix.
    parts = [segment.part(chosen, location) for location in (1, 2, 3, 5, 4)]
    if any(UNREADABLE in part for part in parts):
        return ""
    plain = [re.sub(r"[\^=\\\x00-\x1f]", " ", part) for part in parts]
    return "^".join(plain).rstrip("^")[:_LONGEST_KEY]
