"""Whose images these are: identifiers that a hospital has merged, and patients that it has corrected.

A correction stops no analysis (a trauma patient is named minutes after the film), but what was made under the former
identity does not leave any more without a person, and what has left is marked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, or_, select, update

from db import tables
from db.errors import DatabaseError
from db.order_tables import MergeRow
from db.prepared_statements import Prepared
from db.records import PatientIdentity
from db.search_words import fold, rewrite_words
from db.states import DeliveryState
from db.study_rules import AND
from db.transitions import event, lock_study, move, write_events

_MERGE: Any = MergeRow.__table__
_MERGES = Prepared(
    lambda _: (
        select(_MERGE).where(_MERGE.c.prior_patient_id == bindparam("prior_patient_id")).order_by(_MERGE.c.id.desc())
    )
)
CORRECTION = ("patient", "corrected")
"""Entity and new state of the event that a correction leaves."""

_SENT = (DeliveryState.SENDING, DeliveryState.SENT, DeliveryState.VERIFIED)


class PlaceholderError(DatabaseError):
    """A message corrects or merges a patient ID that many patients share. Nothing was written."""

    def __init__(self) -> None:
        super().__init__("this patient ID is a placeholder of many patients (site.placeholder_patient_ids)")


@dataclass(frozen=True, slots=True)
class PatientIdentifier:
    """A patient ID and who has given it (its issuer, or assigning authority), both as they were written."""

    patient_id: str
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class PatientRules:
    """How this node tells patients apart.

    ``own_issuers`` are the names of its own issuer of patient IDs: an identifier without an issuer is one of that
    issuer, and of no other. ``placeholders`` are regular expressions (case is ignored) of IDs that name nobody.
    """

    own_issuers: tuple[str, ...] = ()
    placeholders: tuple[str, ...] = ()

    def issuer(self, written: str) -> str:
        """The one name of an issuer; empty only where none was written and the node's own is not known."""
        name = written.strip()
        own = self.own_issuers[0] if self.own_issuers else ""
        return own if not name or name in self.own_issuers else name

    def spellings(self, written: str) -> tuple[str, ...]:
        """Every way to write the issuer that was ``written``."""
        name = self.issuer(written)
        own = not name or name in self.own_issuers
        return ("", *self.own_issuers) if own else (name,)

    def same(self, one: PatientIdentifier, other: PatientIdentifier) -> bool:
        """Say whether both are one identifier: the same ID of the same issuer, not of another or an unknown one."""
        return all(here == there for here, there in self._pairs(one, other))

    def contradict(self, one: PatientIdentifier, other: PatientIdentifier) -> bool:
        """Say whether two identifiers cannot be of one patient; what is not known contradicts nothing."""
        return any(here and there and here != there for here, there in self._pairs(one, other))

    def _pairs(self, one: PatientIdentifier, other: PatientIdentifier) -> tuple[tuple[str, str], tuple[str, str]]:
        """IDs and issuers, as they are compared."""
        return (
            (one.patient_id.strip(), other.patient_id.strip()),
            (self.issuer(one.issuer), self.issuer(other.issuer)),
        )

    def names_nobody(self, patient_id: str) -> bool:
        """Say whether a patient ID is none: empty, or a placeholder that many patients share."""
        text = patient_id.strip()
        return not text or any(re.fullmatch(pattern, text, re.IGNORECASE) for pattern in self.placeholders)


@dataclass(frozen=True, slots=True)
class PatientUpdate:
    """What a hospital says of a patient now; an empty value says nothing.

    ``identifiers`` name the patient, the one that holds first. ``prior`` are identifiers that are given up, each for
    the one of the same issuer or, where there is none, for the first.
    ``name`` is a DICOM person name (PS3.5 6.2.1), ``birth_date`` YYYYMMDD, ``sex`` M, F or O.
    """

    identifiers: tuple[PatientIdentifier, ...]
    prior: tuple[PatientIdentifier, ...] = ()
    name: str = ""
    birth_date: str = ""
    sex: str = ""


def canonical(connection: Connection, identifier: PatientIdentifier, rules: PatientRules) -> PatientIdentifier:
    """Follow merges to the identifier that holds now."""
    seen = [identifier]
    while True:
        merge = _merge_of(connection, identifier, rules)
        if merge is None:
            return identifier
        identifier = PatientIdentifier(merge.patient_id, merge.issuer_of_patient_id)
        if any(rules.same(identifier, one) for one in seen):
            return seen[-1]
        seen.append(identifier)


def _merge_of(connection: Connection, identifier: PatientIdentifier, rules: PatientRules) -> Row[Any] | None:
    rows = _MERGES.rows(connection, {"prior_patient_id": identifier.patient_id.strip()})
    return next(
        (row for row in rows if rules.same(PatientIdentifier(row.prior_patient_id, row.prior_issuer), identifier)),
        None,
    )


def same_patient(
    connection: Connection,
    named: Sequence[PatientIdentifier],
    known: Sequence[PatientIdentifier],
    rules: PatientRules,
) -> bool:
    """Say whether ``named`` is the patient that is ``known``, after all merges; no identifier contradicts none."""
    given = [identifier for identifier in named if identifier.patient_id.strip()]
    here = [identifier for identifier in known if identifier.patient_id.strip()]
    if not given or not here or any(rules.same(one, other) for one in given for other in here):
        return True
    merged = [canonical(connection, identifier, rules) for identifier in here]
    return any(rules.same(canonical(connection, one, rules), other) for one in given for other in merged)


def correct_patient(
    connection: Connection, news: PatientUpdate, rules: PatientRules, actor: str, now: datetime
) -> tuple[int, ...]:
    """Apply ``news`` to every study of the patient; the studies that changed.

    Raises:
        PlaceholderError: an identifier names nobody, so that it would change the studies of others.
    """
    if any(rules.names_nobody(one.patient_id) for one in (*news.identifiers, *news.prior)):
        raise PlaceholderError
    given_up = _given_up(news, rules)
    for prior, target in given_up.items():
        _note_merge(connection, prior, target, rules, now)
    changed = []
    for study_id in _studies_of(connection, (*news.identifiers, *given_up)):
        study = lock_study(connection, study_id)
        known = identifier_of(study)
        holds = next((holds for prior, holds in given_up.items() if rules.same(prior, known)), None)
        if holds is None and not any(rules.same(one, known) for one in news.identifiers):
            continue
        if _correct(connection, study, _differences(study, news, holds, rules), actor, now):
            changed.append(study_id)
    return tuple(changed)


def _given_up(news: PatientUpdate, rules: PatientRules) -> dict[PatientIdentifier, PatientIdentifier]:
    """For each identifier that is given up the one that holds, of the same issuer where there is one."""
    pairs = {}
    for prior in news.prior:
        same = [one for one in news.identifiers if rules.issuer(one.issuer) == rules.issuer(prior.issuer)]
        holds = (same or list(news.identifiers))[0]
        if not rules.same(holds, prior):
            pairs[prior] = holds
    return pairs


def identifier_of(row: Row[Any]) -> PatientIdentifier:
    """The identifier that a row (of studies, or of orders) names."""
    return PatientIdentifier(row.patient_id, row.issuer_of_patient_id)


def without_issuer(connection: Connection, named: Sequence[PatientIdentifier], rules: PatientRules) -> bool:
    """Say whether a study carries one of these patient IDs without an issuer, while nobody knows the node's own.

    Such a study may or may not be the patient's: that is for :attr:`PatientRules.own_issuers` to say.
    """
    foreign = [one.patient_id for one in named if one.patient_id.strip() and rules.issuer(one.issuer)]
    if rules.own_issuers or not foreign:
        return False
    study = tables.Study
    query = select(study.id).where(study.patient_id.in_(foreign), study.issuer_of_patient_id == "").limit(1)
    return connection.execute(query).first() is not None


_EVENT: Any = tables.Event.__table__
_CORRECTED = Prepared(
    lambda _: (
        select(_EVENT.c.id)
        .where(
            _EVENT.c.study_id == bindparam("study_id"),
            _EVENT.c.entity == CORRECTION[0],
            _EVENT.c.to_state == CORRECTION[1],
        )
        .limit(1)
    )
)


def was_corrected(connection: Connection, study_id: int) -> bool:
    """Whether the hospital has corrected the patient of a study since its images were made."""
    return _CORRECTED.first(connection, {"study_id": study_id}) is not None


def patient_columns(study: Any) -> list[Any]:
    """The columns of a study (the table's columns, or an alias's) that say who it is of."""
    return [study[name] for name in PatientIdentity.__dataclass_fields__]


def correct_on_arrival(connection: Connection, study: Row[Any], rules: PatientRules, actor: str, now: datetime) -> bool:
    """Give a new, locked study that came under an identifier which was given up the one that holds; whether it did."""
    known = identifier_of(study)
    holds = canonical(connection, known, rules)
    return not rules.same(holds, known) and _correct(connection, study, _identity(study, holds, rules), actor, now)


def _note_merge(
    connection: Connection, prior: PatientIdentifier, target: PatientIdentifier, rules: PatientRules, now: datetime
) -> None:
    """Keep a merge for images that are still to come; one that went the other way before is undone by it."""
    merge: Any = MergeRow.__table__
    alive = select(merge).where(merge.c.prior_patient_id == target.patient_id)
    for row in connection.execute(alive).all():
        if rules.same(PatientIdentifier(row.prior_patient_id, row.prior_issuer), target):
            connection.execute(delete(merge).where(merge.c.id == row.id))
    values = {"prior_patient_id": prior.patient_id, "prior_issuer": prior.issuer, "at": now}
    target_values = {"patient_id": target.patient_id, "issuer_of_patient_id": target.issuer}
    connection.execute(insert(merge).values(**values, **target_values))


def _studies_of(connection: Connection, identifiers: Sequence[PatientIdentifier]) -> list[int]:
    study = tables.Study
    names = {identifier.patient_id for identifier in identifiers}
    return sorted(connection.scalars(select(study.id).where(or_(*(study.patient_id == name for name in names)))))


def _identity(study: Row[Any], holds: PatientIdentifier, rules: PatientRules) -> dict[str, str]:
    """Columns that make ``holds`` the study's identifier; an issuer is written where it becomes another one."""
    values = {"patient_id": holds.patient_id}
    if rules.issuer(study.issuer_of_patient_id) != rules.issuer(holds.issuer):
        values["issuer_of_patient_id"] = rules.issuer(holds.issuer)
    return {name: value for name, value in values.items() if getattr(study, name) != value}


def _differences(
    study: Row[Any], news: PatientUpdate, target: PatientIdentifier | None, rules: PatientRules
) -> dict[str, str]:
    """Columns of the study that ``news`` contradicts, with what holds now."""
    values = _identity(study, target, rules) if target else {}
    given = {"patient_name": news.name, "patient_birth_date": news.birth_date, "patient_sex": news.sex}
    for column, value in given.items():
        if value and plain_text(value) != plain_text(getattr(study, column)):
            values[column] = value
    return values


def plain_text(value: str) -> str:
    """A value without what means nothing: case, empty components at the end, and ideographic forms of a name."""
    alphabetic, _, others = value.partition("=")
    return " ".join((alphabetic.rstrip("^ ") or others).casefold().split())


def different_persons(one: Sequence[str], other: Sequence[str]) -> str:
    """What says that two headers (name and birth date of each) are of different persons, or nothing.

    A missing or unreadable value says nothing, and neither does a name that has more parts, or other accents.
    """
    if tuple(one) == tuple(other):
        return ""
    dates = [birth_date.strip() for _, birth_date in (one, other)]
    if dates[0] != dates[1] and all(re.fullmatch(r"\d{8}", date) for date in dates):
        return "birth date"
    names = [_name_parts(name) for name, _ in (one, other)]
    return "name" if all(names) and not (names[0] <= names[1] or names[1] <= names[0]) else ""


def _name_parts(value: str) -> frozenset[str]:
    """The words of a name without case and accents; none where a character of it could not be read."""
    if "\ufffd" in value:
        return frozenset()
    return frozenset(re.split(r"[\W_]+", fold(plain_text(value)))) - {""}


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
        values = {**values, "correction": _with(study.correction, reason)}
    # A summary that is being made meanwhile names the former patient.
    since = {"activity": tables.Study.activity + 1}
    connection.execute(update(tables.Study).where(tables.Study.id == study.id).values(**values, **since))
    rewrite_words(connection, study.id)
    write_events(connection, [event(study.id, CORRECTION[0], study.id, "", CORRECTION[1], what, actor, now)])
    if wrong:
        _put_on_hold(connection, study.id, reason, actor, now)
    return True


def _with(reasons: str, further: str) -> str:
    """The reasons, and behind them those of the further ones that are new."""
    return AND.join(dict.fromkeys(one for both in (reasons, further) if both for one in both.split(AND)))


def _put_on_hold(connection: Connection, study_id: int, reason: str, actor: str, now: datetime) -> None:
    delivery: Any = tables.Delivery.__table__
    query = (
        select(delivery)
        .where(delivery.c.study_id == study_id, delivery.c.state.in_((DeliveryState.PENDING, *_SENT)))
        .order_by(delivery.c.id)
        .with_for_update(key_share=True)
    )
    for row in connection.execute(query).all():
        if row.state is DeliveryState.PENDING:
            on_hold: dict[str, Any] = {"error": reason, "on_hold_with_study": True}
            move(connection, "delivery", row, DeliveryState.ON_HOLD, cause=reason, actor=actor, now=now, **on_hold)
            continue
        mark_to_correct(connection, row, row.state, reason, actor, now)


TO_CORRECT = " It was sent before and must be corrected there."
"""The end of what is told of a delivery by :func:`mark_to_correct`, until it is sent again."""


def mark_to_correct(
    connection: Connection, delivery: Row[Any], state: DeliveryState, reason: str, actor: str, now: datetime
) -> None:
    """Tell of a delivery in ``state`` that the destination holds it under the former patient."""
    before = delivery.error.removesuffix(TO_CORRECT) if delivery.error.endswith(TO_CORRECT) else ""
    words = f"{_with(before, reason)}{TO_CORRECT}"
    connection.execute(update(tables.Delivery).where(tables.Delivery.id == delivery.id).values(error=words))
    told = event(delivery.study_id, "delivery", delivery.id, state.value, state.value, words, actor, now)
    write_events(connection, [told])
