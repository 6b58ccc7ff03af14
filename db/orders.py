"""Orders and report states from HL7, applied to studies that are here or arrive later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    union_all,
    update,
)

from db import tables
from db.accessions import BETWEEN, has_number, numbers_of
from db.errors import DatabaseError
from db.order_tables import MergeRow, MessageRow, OrderRow
from db.patients import (
    PatientIdentifier,
    PatientRules,
    PatientUpdate,
    correct_patient,
    identifier_of,
    same_patient,
    without_issuer,
)
from db.prepared_statements import Prepared
from db.states import Priority
from db.study_rules import AHEAD, highest_priority, priority_by_orders
from db.study_status import report, write_priority
from db.transitions import event, lock_study, write_events

ACTOR = "hl7"
ORDERED, CANCELLED = "ordered", "cancelled"

_ORDER: Any = OrderRow.__table__
_IS_REMEMBERED = (
    _ORDER.c.study_id.is_(None),
    or_(
        _ORDER.c.study_instance_uid == bindparam("study_instance_uid"),
        and_(
            _ORDER.c.accession_number == bindparam("accession_number"),
            _ORDER.c.accession_number != literal_column("''"),
        ),
    ),
)
_REMEMBERED = Prepared(lambda _: select(_ORDER).where(*_IS_REMEMBERED).order_by(_ORDER.c.id))
_CAME_BEFORE = Prepared(
    lambda _: union_all(
        select(MergeRow.id).where(MergeRow.prior_patient_id == bindparam("patient_id")),
        select(_ORDER.c.id).where(*_IS_REMEMBERED),
    ).limit(literal_column("1"))
)
_ARRIVALS = 0x504C484C  # "PLHL": the key of PostgreSQL's advisory lock
_REPORTED = "its final report was announced by HL7"
_UNKNOWN_ISSUER = "site.patient_id_issuers must say whose it is"


class OtherPatientError(DatabaseError):
    """A message names an order of ours with another patient. Nothing was written.

    ``issuer_unknown``: the patient ID is the same, but only the setting of the node's own issuer could tell whose it
    is.
    """

    def __init__(self, *, issuer_unknown: bool = False) -> None:
        words = "the study with this accession number or UID belongs to another patient"
        if issuer_unknown:
            words = f"the study carries this patient ID without an issuer; {_UNKNOWN_ISSUER}"
        super().__init__(words)


@dataclass(frozen=True, slots=True)
class OrderKeys:
    """What an order is known by; empty where a message does not say it."""

    study_instance_uid: str = ""
    accession_number: str = ""
    placer_order_number: str = ""
    filler_order_number: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to know it by."""
        return any((self.study_instance_uid, self.accession_number, self.placer_order_number, self.filler_order_number))


@dataclass(frozen=True, slots=True)
class OrderUpdate:
    """One order in a message.

    ``priority`` is None where the message asks for none above routine; ``says_priority`` is true where it asks for one.
    ``status`` is ordered or cancelled, empty where the message does not give it. ``reported``: its report is final.
    """

    keys: OrderKeys
    patient: tuple[PatientIdentifier, ...] = ()
    priority: Priority | None = None
    says_priority: bool = False
    status: str = ""
    reported: bool = False


@dataclass(frozen=True, slots=True)
class HospitalMessage:
    """One message, understood: who sent it, how they call it, the SHA-256 of its bytes, and what it says."""

    sender: str
    control_id: str
    digest: str
    kind: str
    orders: tuple[OrderUpdate, ...] = ()
    patients: tuple[PatientUpdate, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageResult:
    """What a message did. ``study_ids``: triage must look at these again.

    ``issuer_unknown``: a patient it names may have studies here, under the same patient ID without an issuer.
    """

    repeat: bool = False
    study_ids: tuple[int, ...] = ()
    remembered: int = 0
    issuer_unknown: bool = False


def receive(connection: Connection, message: HospitalMessage, rules: PatientRules, now: datetime) -> MessageResult:
    """Apply a message about orders, reports and patients, and store it.

    The same message again does nothing. What is about a study that is not here yet is applied when it arrives.

    Raises:
        OtherPatientError: what it names belongs to another patient.
    """
    lock_arrivals(connection, shared=False)
    table: Any = MessageRow.__table__
    known = select(table.c.id).where(
        table.c.sender == message.sender,
        table.c.control_id == message.control_id,
        table.c.digest == message.digest,
    )
    if connection.execute(known).first() is not None:
        return MessageResult(repeat=True)
    connection.execute(
        insert(table).values(
            sender=message.sender,
            control_id=message.control_id,
            digest=message.digest,
            kind=message.kind,
            at=now,
        )
    )
    changed = {
        study_id for news in message.patients for study_id in correct_patient(connection, news, rules, ACTOR, now)
    }
    remembered = 0
    for news in message.orders:
        studies = _apply(connection, news, rules, now)
        changed.update(studies)
        remembered += not studies
    named = [one for news in message.patients for one in (*news.identifiers, *news.prior)]
    return MessageResult(
        study_ids=tuple(sorted(changed)),
        remembered=remembered,
        issuer_unknown=not changed and without_issuer(connection, named, rules),
    )


def lock_arrivals(connection: Connection, *, shared: bool) -> None:
    """Let a message and a new study come one after the other, until the transaction ends.

    Otherwise each could look for the other a moment before it is there. New studies share the lock. (On SQLite there is
    one writer at a time anyway.)
    """
    if connection.dialect.name == "postgresql":
        function = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        connection.execute(select(function(_ARRIVALS)))


def forget(connection: Connection, before: datetime) -> None:
    """Delete messages, and orders without a study, that are older than ``before``."""
    table: Any = MessageRow.__table__
    connection.execute(delete(table).where(table.c.at < before))
    connection.execute(delete(_ORDER).where(_ORDER.c.study_id.is_(None), _ORDER.c.updated_at < before))


def nothing_came_before(connection: Connection, study: Any) -> bool:
    """Whether no message speaks of a new study, which is so of most of them: one look instead of two with their rules.

    What several accession numbers name is not looked at here, and counts as spoken of.
    """
    if BETWEEN in study.accession_number:
        return False
    names = ("study_instance_uid", "accession_number")
    values = {name: getattr(study, name).strip() for name in (*names, "patient_id")}
    return not _CAME_BEFORE.rows(connection, values)


def apply_on_arrival(connection: Connection, study: Row[Any], rules: PatientRules, now: datetime) -> Priority | None:
    """Apply what was remembered for a study that is new (and locked); the priority that its orders ask for."""
    mine = [row for row in _remembered(connection, study) if _fits(connection, row, study, rules)]
    for row in mine:
        connection.execute(update(_ORDER).where(_ORDER.c.id == row.id).values(study_id=study.id))
        cause = "the order came before its images"
        write_events(connection, [event(study.id, "order", row.id, "", row.status, cause, ACTOR, now)])
    wanted = highest_priority(row.priority for row in mine if row.status == ORDERED)
    if wanted is not None:
        _write_priority(connection, study, wanted, now)
    if any(row.reported_at is not None for row in mine):
        report(connection, study.id, now, actor=AHEAD, cause=_REPORTED)
    return wanted


def _remembered(connection: Connection, study: Row[Any]) -> list[Any]:
    """Orders without a study that name ``study``, by its UID or by one of its accession numbers."""
    found: dict[int, Any] = {}
    for number in numbers_of(study.accession_number) or ("",):
        named = {"study_instance_uid": study.study_instance_uid, "accession_number": number}
        found |= {row.id: row for row in _REMEMBERED.rows(connection, named)}
    return [found[key] for key in sorted(found)]


def _apply(connection: Connection, news: OrderUpdate, rules: PatientRules, now: datetime) -> tuple[int, ...]:
    """Write one order and give the studies to which it was applied."""
    row = _order(connection, news, rules, now)
    studies = _studies(connection, row, news, rules)
    for study in studies:
        before = _floor(connection, study.id)
        connection.execute(update(OrderRow).where(OrderRow.id == row.id).values(study_id=study.id))
        _update_order(connection, row.id, news, now)
        wanted = priority_by_orders(study.hospital_priority, before, _floor(connection, study.id))
        _write_priority(connection, study, wanted, now)
        after = "reported" if news.reported else news.status or row.status
        write_events(connection, [event(study.id, "order", row.id, row.status, after, _cause(news), ACTOR, now)])
        if news.reported:
            report(connection, study.id, now, actor=ACTOR, cause=_REPORTED)
    if not studies:
        _update_order(connection, row.id, news, now)
    return tuple(study.id for study in studies)


def _cause(news: OrderUpdate) -> str:
    parts = [f"priority {news.priority or 'routine'}"] if news.says_priority else []
    parts += ["final report"] if news.reported else []
    return ", ".join(parts) or "message about the order"


def _order(connection: Connection, news: OrderUpdate, rules: PatientRules, now: datetime) -> Row[Any]:
    """Find the order that is meant, or make it; its row as it was before this message."""
    candidates = connection.execute(select(_ORDER).where(_named(news.keys)).order_by(_ORDER.c.id.desc())).all()
    for row in candidates:
        if _is_same_order(row, news.keys) and same_patient(connection, news.patient, _patient_of(row), rules):
            return row
    values = {name: getattr(news.keys, name) for name in OrderKeys.__dataclass_fields__}
    statement = insert(_ORDER).returning(_ORDER)
    return connection.execute(
        statement.values(
            **values,
            **_patient_columns(news.patient),
            status=ORDERED,
            created_at=now,
            updated_at=now,
        )
    ).one()


def _patient_of(row: Row[Any]) -> tuple[PatientIdentifier, ...]:
    """Every identifier of an order's patient."""
    others = (PatientIdentifier(*one) for one in row.other_identifiers or ())
    return (identifier_of(row), *others)


def _patient_columns(identifiers: Sequence[PatientIdentifier]) -> dict[str, Any]:
    """The columns in which an order keeps its patient's identifiers: the image may carry any of them."""
    first, *others = identifiers or [PatientIdentifier("")]
    return {
        "patient_id": first.patient_id,
        "issuer_of_patient_id": first.issuer,
        "other_identifiers": [[one.patient_id, one.issuer] for one in others] or None,
    }


def _named(keys: OrderKeys) -> Any:
    """Condition: an order that shares a key with ``keys``."""
    given = {name: getattr(keys, name) for name in OrderKeys.__dataclass_fields__ if getattr(keys, name)}
    return or_(False, *(_ORDER.c[name] == value for name, value in given.items()))


def _is_same_order(row: Row[Any], keys: OrderKeys) -> bool:
    """Compare by the most particular key that both have: two orders may share a study and an accession number."""
    for name in ("filler_order_number", "placer_order_number"):
        here, there = getattr(row, name), getattr(keys, name)
        if here and there:
            return bool(here == there)
    pairs = ((getattr(row, name), getattr(keys, name)) for name in ("study_instance_uid", "accession_number"))
    return any(here and here == there for here, there in pairs)


def _update_order(connection: Connection, order_id: int, news: OrderUpdate, now: datetime) -> None:
    row = connection.execute(select(_ORDER).where(_ORDER.c.id == order_id)).one()
    values: dict[str, Any] = {"updated_at": now}
    for name in OrderKeys.__dataclass_fields__:
        if getattr(news.keys, name) and not getattr(row, name):
            values[name] = getattr(news.keys, name)
    if not row.patient_id and news.patient:
        values |= _patient_columns(news.patient)
    if news.says_priority:
        values["priority"] = news.priority
    if news.status:
        values["status"] = news.status
    if news.reported:
        values["reported_at"] = now
    connection.execute(update(_ORDER).where(_ORDER.c.id == order_id).values(**values))


def _studies(connection: Connection, row: Row[Any], news: OrderUpdate, rules: PatientRules) -> list[Row[Any]]:
    """Lock and give the studies that an order is about: by UID, else by accession number, else as known before.

    Raises:
        OtherPatientError: there are some, and none is of the patient that the message names.
    """
    study = tables.Study
    uid = news.keys.study_instance_uid or row.study_instance_uid
    accession = news.keys.accession_number or row.accession_number
    ids = list(connection.scalars(select(study.id).where(study.study_instance_uid == uid))) if uid else []
    if not ids and accession:
        ids = list(connection.scalars(select(study.id).where(has_number(accession)).order_by(study.id)))
    if not ids and row.study_id is not None:
        ids = [row.study_id]
    found = [lock_study(connection, study_id) for study_id in ids]
    mine = [one for one in found if same_patient(connection, news.patient, (identifier_of(one),), rules)]
    if found and not mine:
        raise OtherPatientError(issuer_unknown=without_issuer(connection, news.patient, rules))
    return mine


def _fits(connection: Connection, row: Row[Any], study: Row[Any], rules: PatientRules) -> bool:
    """Whether a remembered order is about a new study: named by it, of its patient, and not about another UID.

    An archive may give its own Study Instance UID; where the accession number agrees, that does not matter.
    """
    return same_patient(connection, _patient_of(row), (identifier_of(study),), rules)


def _floor(connection: Connection, study_id: int) -> Priority | None:
    """The highest priority that the orders of a study ask for."""
    order = OrderRow
    query = select(order.priority).where(order.study_id == study_id, order.status == ORDERED)
    return highest_priority(connection.scalars(query))


def _write_priority(connection: Connection, study: Row[Any], priority: Priority | None, now: datetime) -> None:
    cause = "its order asks for it" if priority else "no order asks for it any more"
    write_priority(connection, study, priority, now, actor=ACTOR, cause=cause)
