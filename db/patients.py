"""Whose images these are: identifiers that a hospital has merged, and patients that it has corrected.

A correction stops no analysis (a trauma patient is named minutes after the film), but what was made under the former
identity does not leave any more without a person, and what has left is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, or_, select, update

from db import tables
from db.order_tables import MergeRow
from db.prepared import Prepared
from db.records import DeliveryState
from db.transitions import event, lock_study, move, write_events

_MERGE: Any = MergeRow.__table__
_MERGES = Prepared(
    lambda _: (
        select(_MERGE).where(_MERGE.c.prior_patient_id == bindparam("prior_patient_id")).order_by(_MERGE.c.id.desc())
    )
)
_SENT = (DeliveryState.SENDING, DeliveryState.SENT, DeliveryState.PROVEN)


@dataclass(frozen=True, slots=True)
class PatientIdentifier:
    """A patient ID and who has given it (empty: unknown, which contradicts nothing)."""

    patient_id: str
    issuer: str = ""

    def agrees(self, other: PatientIdentifier) -> bool:
        """Say whether both may be the same: equal identifiers, and issuers that do not contradict each other."""
        here, there = self.issuer.strip(), other.issuer.strip()
        return self.patient_id.strip() == other.patient_id.strip() and (not here or not there or here == there)


@dataclass(frozen=True, slots=True)
class PatientNews:
    """What a hospital says of a patient now; an empty value says nothing.

    ``identifiers`` name the patient, the one that holds first. ``prior`` are identifiers that are given up for it.
    ``name`` is a DICOM person name (PS3.5 6.2.1), ``birth_date`` YYYYMMDD, ``sex`` M, F or O.
    """

    identifiers: tuple[PatientIdentifier, ...]
    prior: tuple[PatientIdentifier, ...] = ()
    name: str = ""
    birth_date: str = ""
    sex: str = ""


def canonical(connection: Connection, identifier: PatientIdentifier) -> PatientIdentifier:
    """Follow merges to the identifier that holds now."""
    seen = {identifier.patient_id.strip()}
    while True:
        merge = _merge_of(connection, identifier)
        if merge is None or merge.patient_id in seen:
            return identifier
        seen.add(merge.patient_id)
        identifier = PatientIdentifier(merge.patient_id, merge.issuer_of_patient_id or identifier.issuer)


def _merge_of(connection: Connection, identifier: PatientIdentifier) -> Row[Any] | None:
    rows = _MERGES.rows(connection, {"prior_patient_id": identifier.patient_id.strip()})
    return next(
        (row for row in rows if PatientIdentifier(row.prior_patient_id, row.prior_issuer).agrees(identifier)),
        None,
    )


def same_patient(connection: Connection, named: Sequence[PatientIdentifier], known: PatientIdentifier) -> bool:
    """Say whether ``named`` may be the patient that is ``known``, after all merges; no identifier contradicts none."""
    given = [identifier for identifier in named if identifier.patient_id.strip()]
    if not given or not known.patient_id.strip() or any(identifier.agrees(known) for identifier in given):
        return True
    here = canonical(connection, known)
    return any(canonical(connection, identifier).agrees(here) for identifier in given)


def correct_patient(connection: Connection, news: PatientNews, actor: str, now: datetime) -> tuple[int, ...]:
    """Apply ``news`` to every study of the patient; the studies that changed."""
    target = news.identifiers[0]
    for prior in news.prior:
        _note_merge(connection, prior, target, now)
    changed = []
    for study_id in _studies_of(connection, (*news.identifiers, *news.prior)):
        study = lock_study(connection, study_id)
        known = PatientIdentifier(study.patient_id, study.issuer_of_patient_id)
        merged = any(prior.agrees(known) for prior in news.prior)
        if (merged or any(one.agrees(known) for one in news.identifiers)) and _correct(
            connection, study, _differences(study, news, target if merged else None), actor, now
        ):
            changed.append(study_id)
    return tuple(changed)


def correct_on_arrival(connection: Connection, study: Row[Any], actor: str, now: datetime) -> bool:
    """Give a new, locked study that came under an identifier which was given up the one that holds; whether it did."""
    known = PatientIdentifier(study.patient_id, study.issuer_of_patient_id)
    holds = canonical(connection, known)
    return not holds.agrees(known) and _correct(connection, study, _identity(study, holds), actor, now)


def _note_merge(connection: Connection, prior: PatientIdentifier, target: PatientIdentifier, now: datetime) -> None:
    """Keep a merge for images that are still to come; one that went the other way before is undone by it."""
    merge: Any = MergeRow.__table__
    alive = select(merge).where(merge.c.prior_patient_id == target.patient_id)
    for row in connection.execute(alive).all():
        if PatientIdentifier(row.prior_patient_id, row.prior_issuer).agrees(target):
            connection.execute(delete(merge).where(merge.c.id == row.id))
    values = {"prior_patient_id": prior.patient_id, "prior_issuer": prior.issuer, "at": now}
    target_values = {"patient_id": target.patient_id, "issuer_of_patient_id": target.issuer}
    connection.execute(insert(merge).values(**values, **target_values))


def _studies_of(connection: Connection, identifiers: Sequence[PatientIdentifier]) -> list[int]:
    study = tables.Study
    names = {identifier.patient_id for identifier in identifiers}
    return sorted(connection.scalars(select(study.id).where(or_(*(study.patient_id == name for name in names)))))


def _identity(study: Row[Any], holds: PatientIdentifier) -> dict[str, str]:
    values = {"patient_id": holds.patient_id}
    if holds.issuer and study.issuer_of_patient_id:
        values["issuer_of_patient_id"] = holds.issuer
    return {name: value for name, value in values.items() if getattr(study, name) != value}


def _differences(study: Row[Any], news: PatientNews, target: PatientIdentifier | None) -> dict[str, str]:
    """Columns of the study that ``news`` contradicts, with what holds now."""
    values = _identity(study, target) if target else {}
    given = {"patient_name": news.name, "patient_birth_date": news.birth_date, "patient_sex": news.sex}
    for column, value in given.items():
        if value and plain_text(value) != plain_text(getattr(study, column)):
            values[column] = value
    return values


def plain_text(value: str) -> str:
    """A value without what means nothing: case, empty components at the end, and ideographic forms of a name."""
    return " ".join(value.split("=")[0].rstrip("^ ").casefold().split())


_WORDS = {
    "patient_id": "patient ID",
    "issuer_of_patient_id": "issuer of the patient ID",
    "patient_name": "name",
    "patient_birth_date": "birth date",
    "patient_sex": "sex",
}


def _correct(connection: Connection, study: Row[Any], values: dict[str, str], actor: str, now: datetime) -> bool:
    """Write what was corrected (which columns, never their values, go into the history) and keep results back."""
    if not values:
        return False
    what = ", ".join(_WORDS[name] for name in values)
    # A value that was empty before was not wrong: nothing that was made says otherwise.
    wrong = any(getattr(study, name).strip() for name in values)
    reason = f"The hospital has corrected this patient ({what}): results carry what was known before."
    if wrong:
        values = {**values, "correction": reason}
    connection.execute(update(tables.Study).where(tables.Study.id == study.id).values(**values))
    write_events(connection, [event(study.id, "patient", study.id, "", "corrected", what, actor, now)])
    if wrong:
        _keep_back(connection, study.id, reason, actor, now)
    return True


def _keep_back(connection: Connection, study_id: int, reason: str, actor: str, now: datetime) -> None:
    delivery: Any = tables.Delivery.__table__
    query = (
        select(delivery)
        .where(delivery.c.study_id == study_id, delivery.c.state.in_((DeliveryState.PENDING, *_SENT)))
        .order_by(delivery.c.id)
        .with_for_update(key_share=True)
    )
    for row in connection.execute(query).all():
        if row.state is DeliveryState.PENDING:
            held: dict[str, Any] = {"error": reason, "held_with_study": True}
            move(connection, "delivery", row, DeliveryState.HELD, cause=reason, actor=actor, now=now, **held)
            continue
        words = f"{reason} It was sent before and must be corrected there."
        connection.execute(update(delivery).where(delivery.c.id == row.id).values(error=words))
        state = row.state.value
        write_events(connection, [event(study_id, "delivery", row.id, state, state, words, actor, now)])
