"""Erasing studies: what a person has asked for, what it waits for, and the transaction in which every row goes.

A study is on hold from the request on, so nothing of it begins any more. What has begun ends first: then it is known
what others have been sent. Rows go together; the files after them, from a list that survives the process.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, func, insert, or_, select, update

from db import order_tables, tables, user_tables
from db.audit import AuditEntry, write_entry
from db.audit_events import ERASED_PATIENT, ERASED_STUDY
from db.audit_tables import AuditRow
from db.holds import hold
from db.instance_statements import insert_or_ignore
from db.order_tables import MergeRow, NotificationRow, NotificationState, OrderRow
from db.patients import PatientIdentifier, PatientRules, canonical, identifier_of
from db.records import FOR_RETENTION
from db.stale_objects import mark_erased
from db.states import DeliveryState, JobState
from db.tables import BackfilledStudy, ErasedFile, ErasedStudy, Erasure, Instance, Rejection, Result, Study
from db.transitions import lock_study

HOLD_REASON = "it is being erased"
"""Why such a study is on hold."""

LONGEST_REASON = 200
_TO_MAKE_A_NOTE = timedelta(minutes=10)
_LOOK_AGAIN = timedelta(minutes=1)
_WITH_TABLES = (order_tables, user_tables)  # they add theirs to the metadata


@dataclass(frozen=True, slots=True)
class Waiting:
    """A study that cannot be erased yet: ``why`` is what must end first, and ``until`` when that is over at the
    latest, unless it goes on."""

    why: str
    until: datetime


@dataclass(frozen=True, slots=True)
class PatientRows:
    """What is known of a patient apart from studies: rows of orders without a study, and of merged identifiers."""

    orders: tuple[int, ...] = ()
    merges: tuple[int, ...] = ()


def studies_of(connection: Connection, wanted: PatientIdentifier, rules: PatientRules) -> tuple[int, ...]:
    """The studies under exactly this identifier, the oldest first."""
    table = Study.__table__
    found = connection.execute(select(table).where(table.c.patient_id == wanted.patient_id).order_by(table.c.id))
    return tuple(row.id for row in found if rules.same(identifier_of(row), wanted))


def issuers_of(connection: Connection, patient_id: str, rules: PatientRules) -> tuple[str, ...]:
    """Who has given this patient ID, by the studies, the orders and the merged identifiers that are here."""
    pairs = (
        (Study.patient_id, Study.issuer_of_patient_id),
        (OrderRow.patient_id, OrderRow.issuer_of_patient_id),
        (MergeRow.prior_patient_id, MergeRow.prior_issuer),
        (MergeRow.patient_id, MergeRow.issuer_of_patient_id),
    )
    found = (
        issuer
        for given, issued in pairs
        for issuer in connection.scalars(select(issued).where(given == patient_id).distinct())
    )
    return tuple(sorted({rules.issuer(issuer) for issuer in found}))


def holds_now(connection: Connection, wanted: PatientIdentifier, rules: PatientRules) -> PatientIdentifier:
    """The identifier that the hospital uses in the place of ``wanted``; itself where it has not been given up."""
    return canonical(connection, wanted, rules)


def patient_rows(connection: Connection, wanted: PatientIdentifier, rules: PatientRules) -> PatientRows:
    """What is known of a patient apart from studies."""
    orders = connection.execute(select(OrderRow.__table__).where(OrderRow.study_id.is_(None)))
    merges = connection.execute(
        select(MergeRow.__table__).where(
            or_(MergeRow.patient_id == wanted.patient_id, MergeRow.prior_patient_id == wanted.patient_id)
        )
    )
    return PatientRows(
        tuple(row.id for row in orders if any(rules.same(one, wanted) for one in _named_by(row))),
        tuple(row.id for row in merges if any(rules.same(one, wanted) for one in _merged(row))),
    )


def _named_by(order: Row[Any]) -> list[PatientIdentifier]:
    return [identifier_of(order), *(PatientIdentifier(*one) for one in order.other_identifiers or ())]


def _merged(merge: Row[Any]) -> tuple[PatientIdentifier, PatientIdentifier]:
    return identifier_of(merge), PatientIdentifier(merge.prior_patient_id, merge.prior_issuer)


def erase_patient_rows(
    connection: Connection, wanted: PatientIdentifier, rules: PatientRules, entry: AuditEntry
) -> PatientRows:
    """Delete what is known of a patient apart from studies, with an ``entry`` of the audit trail where there is any."""
    found = patient_rows(connection, wanted, rules)
    connection.execute(delete(OrderRow).where(OrderRow.id.in_(found.orders)))
    connection.execute(delete(MergeRow).where(MergeRow.id.in_(found.merges)))
    if found != PatientRows():
        write_entry(connection, entry)
    return found


def patient_entry(wanted: PatientIdentifier, found: PatientRows, actor: str, reason: str, now: datetime) -> AuditEntry:
    """The entry of the audit trail for :func:`erase_patient_rows`."""
    detail = f"{len(found.orders)} orders without a study, {len(found.merges)} merged identifiers: {reason}"
    return AuditEntry(now, actor, ERASED_PATIENT, "patient", detail=detail, patient_id=wanted.patient_id)


def request(connection: Connection, study_id: int, actor: str, address: str, reason: str, now: datetime) -> None:
    """Ask to erase a study; it is on hold from now on. A request that is there already stays.

    Raises:
        RecordNotFoundError: there is no such study.
    """
    lock_study(connection, study_id)
    values = {"actor": actor[:80], "address": address[:64], "reason": reason, "requested_at": now}
    connection.execute(insert_or_ignore(connection, Erasure).values(study_id=study_id, **values))
    hold(connection, study_id, HOLD_REASON, actor, now)


def requested(connection: Connection) -> tuple[int, ...]:
    """The studies that somebody has asked to erase and that are still here, the oldest request first."""
    return tuple(connection.scalars(select(Erasure.study_id).order_by(Erasure.requested_at, Erasure.study_id)))


@dataclass(frozen=True, slots=True)
class LateErasure:
    """A study that somebody has asked to erase long ago, and what it waits for; ``waits`` is None where nobody acts."""

    study_id: int
    requested_at: datetime
    waits: Waiting | None


def late_erasures(connection: Connection, before: datetime, now: datetime) -> tuple[LateErasure, ...]:
    """What was to be erased ``before`` this time and is still here, the oldest request first."""
    query = (
        select(Erasure.study_id, Erasure.requested_at, Study.study_instance_uid)
        .join(Study, Study.id == Erasure.study_id)
        .where(Erasure.requested_at < before)
        .order_by(Erasure.requested_at)
    )
    return tuple(
        LateErasure(row.study_id, row.requested_at, under_way(connection, row.study_id, row.study_instance_uid, now))
        for row in connection.execute(query)
    )


def late_files(connection: Connection, before: datetime) -> int:
    """How many files of erased studies are still there, where the last of these was erased ``before`` this time."""
    last = connection.scalar(select(func.max(ErasedStudy.at)))
    if last is None or last >= before:
        return 0
    return int(connection.scalar(select(func.count()).select_from(ErasedFile)) or 0)


def is_requested(connection: Connection, study_id: int) -> bool:
    """Whether somebody has asked to erase this study."""
    return connection.scalar(select(Erasure.study_id).where(Erasure.study_id == study_id)) is not None


def erase(connection: Connection, study_id: int, now: datetime, noting: Sequence[str] = ()) -> Waiting | None:
    """Delete every row of a study whose erasure was asked for, and list its files to be removed.

    The destinations ``noting`` get a rejection note for what they hold of it, and it waits until they have it or the
    attempts are used up.

    None: it is gone, also where it was gone before.
    """
    asked = connection.execute(select(Erasure.__table__).where(Erasure.study_id == study_id)).one_or_none()
    if asked is None:
        return None
    # Not as lock_study does: what refers to the study must not come in while its rows are deleted.
    table = Study.__table__
    study = connection.execute(select(table).where(table.c.id == study_id).with_for_update()).one_or_none()
    if study is None:
        return None
    waiting = under_way(connection, study_id, study.study_instance_uid, now)
    if waiting is None and mark_erased(connection, study_id, noting, asked.actor, now):
        waiting = _note_under_way(connection, study_id, now)
    if waiting:
        hold(connection, study_id, HOLD_REASON, asked.actor, now)  # a person may have released it meanwhile
        return waiting
    entry = _entry(connection, study, asked, now)
    _list_files(connection, study_id)
    _delete_by_uid(connection, study.study_instance_uid, study_id)
    for each in _tables_of_a_study():
        connection.execute(delete(each).where(each.c.study_id == study_id))
    connection.execute(delete(Study).where(Study.id == study_id))
    _remember(connection, study.study_instance_uid, now)
    write_entry(connection, entry)
    return None


def under_way(connection: Connection, study_id: int, study_instance_uid: str, now: datetime) -> Waiting | None:
    """What somebody does with a study at this moment and must end first; None where nothing is."""
    delivery, sending = tables.Delivery, (DeliveryState.SENDING, DeliveryState.WITHDRAWN)
    pulled = BackfilledStudy
    looks = (
        ("an image is being analysed", tables.Job, tables.Job.state == JobState.RUNNING),
        ("a result is being sent", delivery, delivery.state.in_(sending)),
        ("a notification is being sent", NotificationRow, NotificationRow.state == NotificationState.SENDING),
    )
    for why, table, busy in looks:
        row: Any = table
        until = connection.scalar(select(func.max(row.lease_until)).where(row.study_id == study_id, busy))
        if until is not None and until > now:
            return Waiting(why, until)
    ends = connection.scalar(select(pulled.pull_ends_at).where(pulled.study_instance_uid == study_instance_uid))
    if ends is not None and ends > now:
        return Waiting("it is being pulled from the archive", ends)
    return _note_under_way(connection, study_id, now)


def _note_under_way(connection: Connection, study_id: int, now: datetime) -> Waiting | None:
    """A rejection note about a study that is to be erased: the scheduler has to make it, or a destination to take it.

    One that nobody makes (no scheduler runs, no image is left) is waited for only for a time.
    """
    marked, note = tables.Delivery, tables.Delivery.__table__.alias("note")
    of_study = (marked.study_id == study_id, marked.stale_code == FOR_RETENTION)
    asked = select(Erasure.requested_at).join(marked, marked.study_id == Erasure.study_id)
    requested_at = connection.scalar(asked.where(*of_study, marked.note_id.is_(None)).limit(1))
    if requested_at is not None and requested_at + _TO_MAKE_A_NOTE > now:
        return Waiting("a rejection note is being made", requested_at + _TO_MAKE_A_NOTE)
    unsent = (
        select(func.max(func.coalesce(note.c.lease_until, note.c.due_at, now)))
        .join(marked, marked.note_id == note.c.result_id)
        .where(*of_study, note.c.state.in_((DeliveryState.PENDING, DeliveryState.SENDING)))
    )
    until = connection.scalar(unsent)
    return Waiting("a rejection note is being sent", max(until, now + _LOOK_AGAIN)) if until is not None else None


def _entry(connection: Connection, study: Row[Any], asked: Row[Any], now: datetime) -> AuditEntry:
    """The entry of the audit trail: who erased what, how much of it, and why."""
    counted = select(Instance.sop_class_uid, func.count()).where(Instance.study_id == study.id)
    classes = {row[0]: row[1] for row in connection.execute(counted.group_by(Instance.sop_class_uid))}
    results = connection.scalar(select(func.count()).where(Result.study_id == study.id))
    left = defaultdict(list)
    for one in held_elsewhere(connection, study.id):
        left[one.destination].append(one.sop_instance_uid)
    return AuditEntry(
        at=now,
        actor=asked.actor,
        action=ERASED_STUDY,
        subject="study",
        study_id=study.id,
        address=asked.address,
        detail=f"{sum(classes.values())} images, {results} results: {asked.reason}",
        study_instance_uid=study.study_instance_uid,
        patient_id=study.patient_id,
        data={"instances": classes, "left": left},
    )


@dataclass(frozen=True, slots=True)
class HeldObject:
    """An object that a destination was sent. ``sent_at`` is None where it may have arrived without a word."""

    destination: str
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    sent_at: datetime | None
    verified_at: datetime | None


def held_elsewhere(connection: Connection, study_id: int) -> tuple[HeldObject, ...]:
    """What destinations were sent of a study, or may have got."""
    delivery, result = tables.Delivery, Result
    query = (
        select(
            delivery.destination,
            result.kind,
            result.sop_class_uid,
            result.sop_instance_uid,
            result.series_instance_uid,
            delivery.sent_at,
            delivery.verified_at,
        )
        .join(result, result.id == delivery.result_id)
        .where(delivery.study_id == study_id, or_(delivery.sent_at.is_not(None), delivery.unanswered))
        .order_by(delivery.destination, delivery.id)
    )
    return tuple(HeldObject(*row) for row in connection.execute(query))


def left_at(connection: Connection, study_id: int) -> dict[str, list[str]]:
    """SOP Instance UIDs that destinations hold of an erased study, by destination, as the audit trail tells."""
    erased = (AuditRow.study_id == study_id, AuditRow.action == ERASED_STUDY)
    data = connection.scalar(select(AuditRow.data).where(*erased).order_by(AuditRow.id.desc()).limit(1))
    return dict(json.loads(data).get("left", {})) if data else {}


def _list_files(connection: Connection, study_id: int) -> None:
    """Note which files go, and which folders are searched for copies that a killed process has left."""
    files = {
        row.path: row.sop_instance_uid
        for table in (Instance, Result)
        for row in connection.execute(select(table.path, table.sop_instance_uid).where(table.study_id == study_id))
    }
    rows = [
        {"path": path, "sop_instance_uid": uid}
        for path, uid in {**files, **dict.fromkeys((RESULTS, SET_ASIDE, DATABASE), "")}.items()
    ]
    connection.execute(insert_or_ignore(connection, ErasedFile), rows)


RESULTS, SET_ASIDE, DATABASE = "results/", "set-aside/", "database/"
"""What follows when the files are gone: the folders of the store in which killed processes may have left files that no
row names are searched, and the database's own file is made anew."""


def _delete_by_uid(connection: Connection, study_instance_uid: str, study_id: int) -> None:
    """Delete what knows a study by UIDs instead of its row."""
    images = select(Instance.sop_instance_uid).where(Instance.study_id == study_id)
    connection.execute(
        delete(Rejection).where(or_(Rejection.sop_instance_uid.in_(images), Rejection.note_uid.in_(images)))
    )
    connection.execute(delete(BackfilledStudy).where(BackfilledStudy.study_instance_uid == study_instance_uid))
    connection.execute(delete(OrderRow).where(OrderRow.study_instance_uid == study_instance_uid))
    prior = tables.PriorSearch
    found = update(prior).where(prior.prior_study_instance_uid == study_instance_uid)
    connection.execute(found.values(prior_study_instance_uid="", problem=PRIOR_ERASED))
    compared = update(Study).where(Study.compared_with == study_instance_uid)
    connection.execute(compared.values(compared_with=""))


PRIOR_ERASED = "the prior was erased"
"""What the search of a newer study says from then on."""


def _tables_of_a_study() -> tuple[Table, ...]:
    """Every table whose rows belong to a study, those that refer to another one before it."""
    return tuple(
        table
        for table in reversed(tables.Base.metadata.sorted_tables)
        if "study_id" in table.c and table.c.study_id.foreign_keys
    )


def _remember(connection: Connection, study_instance_uid: str, now: datetime) -> None:
    key = secrets.token_hex(32)
    values = {"key": key, "digest": _digest(key, study_instance_uid), "at": now}
    connection.execute(insert(ErasedStudy).values(**values))


def _digest(key: str, study_instance_uid: str) -> str:
    return hmac.new(bytes.fromhex(key), study_instance_uid.encode(), hashlib.sha256).hexdigest()


def erased_among(connection: Connection, study_instance_uids: Iterable[str]) -> frozenset[str]:
    """Which of these studies were ever erased. Each digest has a key of its own, so all are tried."""
    known = connection.execute(select(ErasedStudy.key, ErasedStudy.digest)).all()
    return frozenset(uid for uid in study_instance_uids if any(_digest(row.key, uid) == row.digest for row in known))


def left_out(connection: Connection, study_instance_uids: Iterable[str]) -> frozenset[str]:
    """Which of these studies no archive is asked for: they were erased, and nobody has sent them again since."""
    erased = erased_among(connection, study_instance_uids)
    here = select(Study.study_instance_uid).where(Study.study_instance_uid.in_(erased))
    return erased - frozenset(connection.scalars(here)) if erased else erased


@dataclass(frozen=True, slots=True)
class FileToRemove:
    """A file of an erased study, or one of :data:`RESULTS`, :data:`SET_ASIDE` and :data:`DATABASE`."""

    path: str
    sop_instance_uid: str


def files_to_remove(connection: Connection, limit: int = 500) -> tuple[FileToRemove, ...]:
    """Some of the files that :func:`erase` has listed; where none is left the next of what follows."""
    listed = select(ErasedFile.path, ErasedFile.sop_instance_uid).order_by(ErasedFile.path)
    files = connection.execute(listed.where(~ErasedFile.path.endswith("/")).limit(limit)).all()
    if not files:
        rest = {row.path: row for row in connection.execute(listed)}
        files = [rest[each] for each in (RESULTS, SET_ASIDE, DATABASE) if each in rest][:1]
    return tuple(FileToRemove(*row) for row in files)


def forget_files(connection: Connection, paths: Sequence[str]) -> None:
    """These files are gone, these folders were searched."""
    connection.execute(delete(ErasedFile).where(ErasedFile.path.in_(list(paths))))


def is_recorded(connection: Connection, file: FileToRemove) -> bool:
    """Whether a row names this file: the bytes that were erased may have come again."""
    named = (
        select(table.id).where(table.sop_instance_uid == file.sop_instance_uid, table.path == file.path)
        for table in (Instance, Result)
    )
    return any(connection.scalar(query.limit(1)) is not None for query in named)


def result_paths(connection: Connection) -> Iterator[str]:
    """The files of all results, relative to the store folder; the rows are not kept in memory."""
    yield from connection.execution_options(yield_per=1000).scalars(select(Result.path))
