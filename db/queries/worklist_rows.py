"""Rows of the worklist: a study with what belongs to it, from columns of the database to records.

What belongs to a study (findings, states of its jobs and deliveries) is looked up for the rows of a page
only. Everything is done a column at a time: a step in Python for each value of a page took half of its time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, String, and_, func, literal_column, or_, select
from sqlalchemy.orm import aliased

from db.frozen_records import maker
from db.holds import is_on_hold, reason_of_hold
from db.prepared_statements import Prepared, is_among
from db.records import FindingRecord
from db.shown_records import WorklistRow
from db.study_rules import modalities_of
from db.tables import Delivery, Finding, Job, Study

_TEXTS_KEPT = 1024
_BETWEEN = "\\"  # no state holds a backslash


def rows_of(connection: Connection, study_ids: Sequence[int]) -> tuple[WorklistRow, ...]:
    """The rows of these studies, by number, whatever part of the worklist they are in."""
    return complete(connection, _NAMED.columns(connection, {"ids": list(study_ids)}), as_listed=False)


def complete(connection: Connection, columns: Sequence[Sequence[Any]], as_listed: bool) -> tuple[WorklistRow, ...]:
    """Rows of which :data:`COLUMNS` and :func:`counts_of` have been read, with their findings.

    ``as_listed``: see :meth:`db.queries.worklist.Worklist.page`.
    """
    *fields, modalities, jobs, deliveries = columns
    ids = fields[0]
    if not ids:
        return ()
    found = _by_number((_LISTED_FINDINGS if as_listed else _FINDINGS).columns(connection, {"ids": ids}), 0)
    findings = [tuple(found.get(study_id, ())) for study_id in ids]
    counts = (list(map(dict.copy, map(_number_of_each, texts))) for texts in (jobs, deliveries))
    return tuple(_rows([*fields, findings, *counts, list(map(modalities_of, modalities))]))


def current_findings(connection: Connection, study_id: int) -> defaultdict[int, list[FindingRecord]]:
    """All findings of the latest revision of each job of a study, by job."""
    return _by_number(_FINDINGS.columns(connection, {"ids": [study_id]}), 1)


def _by_number(columns: Sequence[Sequence[Any]], place: int) -> defaultdict[int, list[FindingRecord]]:
    """Findings (see :func:`_findings`) in the order in which they were written, by the number at ``place``."""
    found: defaultdict[int, list[FindingRecord]] = defaultdict(list)
    for _, number, finding in sorted(zip(columns[2], columns[place], _records(columns[3:]), strict=True)):
        found[number].append(finding)
    return found


def counts_of(study_id: Any, dialect: str, as_listed: bool = False) -> tuple[ColumnElement[str], ...]:
    """States of the jobs and of the deliveries of a study, one after the other in a text.

    Not grouped: a study has few, and to read a row for each takes longer than to count them here.
    """
    counted = ((Job, Job.state), (Delivery, Delivery.state))
    join = func.string_agg if dialect == "postgresql" else func.group_concat
    nothing: ColumnElement[str] = literal_column("NULL", String)
    texts = (
        select(join(value, literal_column(f"'{_BETWEEN}'"), type_=String))
        .where(table.study_id == study_id)
        .scalar_subquery()
        if not (as_listed and table is Job)
        else nothing
        for table, value in counted
    )
    return tuple(text.label(table.__tablename__) for text, (table, _) in zip(texts, counted, strict=True))


@lru_cache(_TEXTS_KEPT)
def _number_of_each(joined: str | None) -> dict[str, int]:
    """How often each word is in a text of :func:`counts_of`; there are few such texts."""
    return {} if joined is None else dict(Counter(joined.split(_BETWEEN)))


def _findings(dialect: str, *conditions: ColumnElement[bool]) -> Select[Any]:
    fields = (Finding.__table__.c[name] for name in FindingRecord.__dataclass_fields__)
    columns = (Finding.study_id, Finding.job_id, Finding.id, *fields)
    of_studies = is_among(Finding.study_id, "ids", dialect)
    return select(*columns).where(of_studies, Finding.superseded.is_(False), *conditions)


def _listed() -> ColumnElement[bool]:
    """Whether a list shows a finding (see :meth:`db.queries.worklist.Worklist.page`)."""
    other = aliased(Finding)
    counting = select(other.id).where(
        other.study_id == Finding.study_id, other.shadow.is_(False), other.superseded.is_(False)
    )
    return or_(and_(Finding.present.is_(True), Finding.shadow.is_(False)), and_(Finding.shadow, ~counting.exists()))


_records, _rows = maker(FindingRecord), maker(WorklistRow)

_MADE: dict[str, Any] = {
    "study_id": Study.id,
    "received_at": Study.first_received_at,
    "on_hold": is_on_hold(Study),
    "hold_reason": reason_of_hold(Study),
}
_OTHER_TABLES = ("findings", "jobs", "deliveries")
COLUMNS: tuple[Any, ...] = tuple(
    (_MADE[name] if name in _MADE else Study.__table__.c[name]).label(name)
    for name in WorklistRow.__dataclass_fields__
    if name not in _OTHER_TABLES
)
"""The fields of a row in their order, without those that come of other tables."""

_NAMED = Prepared(
    lambda dialect: (
        select(*COLUMNS, *counts_of(Study.id, dialect)).where(is_among(Study.id, "ids", dialect)).order_by(Study.id)
    )
)
_FINDINGS = Prepared(_findings)
_LISTED_FINDINGS = Prepared(lambda dialect: _findings(dialect, _listed()))
