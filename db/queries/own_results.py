"""Results of this node that others may ask for: those that a destination of the kind ``on-request`` has, now.

A result is there from its delivery on, as it would be at an archive, and it is there no more once it was withdrawn,
replaced by a newer revision, or while its study is on hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from db import tables
from db.holds import stays_here
from db.states import DeliveryState

_THERE = (DeliveryState.SENT, DeliveryState.VERIFIED)


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052), the patient's aside: it is answered from studies."""

    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


@dataclass(frozen=True, slots=True)
class ResultKeys:
    """What is asked for (PS3.4 C.2.2.2); empty values match everything.

    ``texts`` are of columns of the study and may hold the wildcards ``*`` and ``?``. Several UIDs match any of them,
    dates are DA and inclusive. ``kinds`` are those of a result, ``study_kinds`` those of which its study must have one.
    """

    study_uids: tuple[str, ...] = ()
    series_uids: tuple[str, ...] = ()
    sop_uids: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    first_date: str = ""
    last_date: str = ""
    kinds: frozenset[str] | None = None
    study_kinds: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class OwnResult:
    """One result with its study."""

    id: int
    study_id: int
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str
    study_instance_uid: str
    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    study_date: str
    study_time: str
    study_description: str


def matches(
    connection: Connection, level: Level, keys: ResultKeys, destinations: Sequence[str], limit: int, offset: int = 0
) -> tuple[tuple[OwnResult, ...], ...]:
    """Matches at ``level``, the newest studies first: each is all results of one study or series, or one result."""
    result, study = tables.Result, tables.Study
    own = {Level.STUDY: study.id, Level.SERIES: result.series_instance_uid, Level.IMAGE: result.id}[level]
    newest = func.max(study.id).label("newest")
    found = (
        select(own.label("own"), newest)
        .select_from(result)
        .join(study, study.id == result.study_id)
        .where(_is_there(destinations), *_conditions(keys, destinations))
        .group_by(own)
        .order_by(newest.desc(), own)
        .limit(limit)
        .offset(offset)
    )
    wanted = [row.own for row in connection.execute(found)]
    if not wanted:
        return ()
    groups: dict[Any, list[OwnResult]] = {one: [] for one in wanted}
    rows = _rows().where(own.in_(wanted), _is_there(destinations)).order_by(result.ordinal, result.id)
    for row in connection.execute(rows):
        one = OwnResult(*row)
        by = {Level.STUDY: one.study_id, Level.SERIES: one.series_instance_uid, Level.IMAGE: one.id}[level]
        groups[by].append(one)
    return tuple(tuple(group) for group in groups.values() if group)


def _rows() -> Select[Any]:
    result, study = tables.Result, tables.Study
    of_result = {"id", "study_id", "kind", "sop_class_uid", "sop_instance_uid", "series_instance_uid", "path"}
    columns = [getattr(result if name in of_result else study, name) for name in OwnResult.__dataclass_fields__]
    return select(*columns).select_from(result).join(study, study.id == result.study_id)


def _is_there(destinations: Sequence[str]) -> ColumnElement[bool]:
    """A delivery to one of these destinations says so. Result and study are in the query."""
    result, study, delivery = tables.Result, tables.Study, tables.Delivery
    delivered = (
        select(delivery.id)
        .where(
            delivery.result_id == result.id,
            delivery.destination.in_(destinations),
            delivery.state.in_(_THERE),
            delivery.stale_code == "",
        )
        .exists()
    )
    return delivered & ~stays_here(study, result.kind) & study.files_removed_at.is_(None)


def _conditions(keys: ResultKeys, destinations: Sequence[str]) -> list[ColumnElement[bool]]:
    result, study = tables.Result, tables.Study
    lists = (
        (study.study_instance_uid, keys.study_uids),
        (result.series_instance_uid, keys.series_uids),
        (result.sop_instance_uid, keys.sop_uids),
        (result.sop_class_uid, keys.sop_classes),
    )
    found: list[ColumnElement[bool]] = [column.in_(values) for column, values in lists if values]
    found += [_has(name, text) for name, text in keys.texts.items()]
    if keys.first_date:
        found.append(study.study_date >= keys.first_date)
    if keys.last_date:
        found += [study.study_date <= keys.last_date, study.study_date != ""]
    if keys.kinds is not None:
        found.append(result.kind.in_(keys.kinds))
    if keys.study_kinds is not None:
        found.append(_study_has(keys.study_kinds, destinations))
    return found


def _has(name: str, text: str) -> ColumnElement[bool]:
    """Whether that column of the study matches: a text that says less than is known of it is not another one."""
    study, accession = tables.Study, tables.StudyAccession
    matched = _like(getattr(study, name), text)
    if name == "patient_name":
        # SQLite's lower() knows ASCII alone, so a name with other letters is found as it is written, too.
        return or_(_like(func.lower(study.patient_name), text.lower()), matched)
    if name == "accession_number":
        one = _like(accession.accession_number, text)
        return or_(matched, select(accession.study_id).where(accession.study_id == study.id, one).exists())
    if name == "issuer_of_patient_id":
        return or_(matched, study.issuer_of_patient_id == "")
    return matched


def _study_has(kinds: frozenset[str], destinations: Sequence[str]) -> ColumnElement[bool]:
    result, study, delivery = tables.Result.__table__.alias("other"), tables.Study, tables.Delivery
    there = (delivery.destination.in_(destinations), delivery.state.in_(_THERE), delivery.stale_code == "")
    return (
        select(result.c.id)
        .join(delivery, delivery.result_id == result.c.id)
        .where(result.c.study_id == study.id, result.c.kind.in_(kinds), *there)
        .exists()
    )


def _like(column: Any, text: str) -> ColumnElement[bool]:
    """Wild card matching (PS3.4 C.2.2.2.4), or single value matching where there is no wild card."""
    if not set("*?") & set(text):
        matched: ColumnElement[bool] = column == text
        return matched
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    liked: ColumnElement[bool] = column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")
    return liked
