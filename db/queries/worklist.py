"""The worklist: filtered, searched, sorted and counted, for page, API and command line.

Rows come by ``due_at`` through an index unless another order is asked for. What belongs to them (findings, counts of
jobs and deliveries, modalities) is looked up for the rows of the page only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    String,
    bindparam,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    union_all,
)

from db.holds import hold_reason_of, is_on_hold
from db.records import Analysis, FindingRecord, Priority, StudyState, WorklistRow
from db.tables import Delivery, Finding, Instance, Job, Series, Study


class Show(StrEnum):
    """Which part of the worklist to show."""

    UNREPORTED = "unreported"
    CRITICAL = "critical"
    URGENT = "urgent"
    ROUTINE = "routine"
    NOT_ANALYSED = "not-analysed"
    FAILED = "failed"
    ON_HOLD = "on-hold"
    REPORTED = "reported"


class Order(StrEnum):
    """What the rows are sorted by."""

    DUE = "due"
    RECEIVED = "received"
    PATIENT = "patient"
    STUDY = "study"
    PRIORITY = "priority"


class ReadingList:
    """Pages of the worklist."""

    def __init__(self, engine: Engine) -> None:
        """Use the database of ``engine``."""
        self._engine = engine

    def page(
        self,
        *,
        show: Show = Show.UNREPORTED,
        search: str = "",
        order: Order = Order.DUE,
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
        only_open: bool = False,
    ) -> tuple[WorklistRow, ...]:
        """Rows ``offset`` to ``offset + limit`` of what is asked for; ``only_open`` leaves out complete studies.

        ``search``: each word must be found in the patient's name or the study description, be the beginning of the
        patient ID or of an accession number, or be the Study Instance UID. Case does not matter.
        """
        query = page_statement(show, order, descending, only_open)
        if search:
            query = query.where(*_matching(search))
        with self._engine.connect() as connection:
            return _complete(connection, connection.execute(query, {"limit": limit, "offset": offset}).all())

    def rows(self, study_ids: Sequence[int]) -> tuple[WorklistRow, ...]:
        """The rows of these studies, by number, whatever part of the list they are in."""
        with self._engine.connect() as connection:
            return rows_of(connection, study_ids)

    def count(self, show: Show, search: str = "", *, at_most: int = 10_000) -> int:
        """How many rows there are, counted no further than ``at_most``."""
        inner = select(Study.id).where(_shown(show), *_matching(search)).limit(at_most).subquery()
        with self._engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(inner)).scalar_one())

    def counts(self) -> dict[Show, int]:
        """How many unreported studies each part holds."""
        on_hold_now = case((is_on_hold(Study), 1), else_=0).label("on_hold_now")
        grouped = (
            select(Study.priority, Study.analysis, on_hold_now, func.count())
            .where(Study.reported_at.is_(None))
            .group_by(Study.priority, Study.analysis, on_hold_now)
        )
        totals = dict.fromkeys(Show, 0)
        with self._engine.connect() as connection:
            rows = connection.execute(grouped).all()
        for priority, analysis, on_hold, number in rows:
            totals[Show.UNREPORTED] += number
            totals[Show(priority.value)] += number
            if analysis in (Analysis.NOT_ANALYSED, Analysis.FAILED):
                totals[Show(analysis.value.replace(" ", "-"))] += number
            if on_hold:
                totals[Show.ON_HOLD] += number
        return totals


@cache
def page_statement(show: Show, order: Order, descending: bool, only_open: bool) -> Select[Any]:
    """The statement of a page, with ``limit`` and ``offset`` to be bound."""
    key = _ORDERS[order].desc() if descending else _ORDERS[order].asc()
    by_due = [] if order is Order.DUE else [Study.due_at]  # twice in a row it would not be the order of the index
    conditions = [_shown(show), *([Study.state == StudyState.OPEN] if only_open else [])]
    # In the text of the statement: PostgreSQL plans a page of unknown size as if it were a tenth of the table, so it
    # would never keep the plan, and plan anew for every page.
    limit, offset = (bindparam(name, type_=Integer, literal_execute=True) for name in ("limit", "offset"))
    return select(*_COLUMNS).where(*conditions).order_by(key, *by_due, Study.id).limit(limit).offset(offset)


_ORDERS: dict[Order, Any] = {
    Order.DUE: Study.due_at,
    Order.RECEIVED: Study.first_received_at,
    Order.PATIENT: func.lower(Study.patient_name),
    Order.STUDY: Study.study_date,
    # The words sort as they should: critical, routine, urgent would not.
    Order.PRIORITY: func.replace(Study.priority, Priority.ROUTINE.value, "z"),
}


def _shown(show: Show) -> ColumnElement[bool]:
    if show is Show.REPORTED:
        return Study.reported_at.is_not(None)
    unreported = Study.reported_at.is_(None)
    narrower: dict[Show, ColumnElement[bool]] = {
        Show.NOT_ANALYSED: Study.analysis == Analysis.NOT_ANALYSED,
        Show.FAILED: Study.analysis == Analysis.FAILED,
        Show.ON_HOLD: is_on_hold(Study),
    }
    if show in (Show.CRITICAL, Show.URGENT, Show.ROUTINE):
        narrower[show] = Study.priority == Priority(show.value)
    return unreported if show is Show.UNREPORTED else unreported & narrower[show]


def _matching(search: str) -> list[ColumnElement[bool]]:
    """One condition a word; of a search with more than six, the first six count."""
    return [
        or_(
            func.lower(Study.patient_name).contains(word, autoescape=True),
            func.lower(Study.study_description).contains(word, autoescape=True),
            func.lower(Study.patient_id).startswith(word, autoescape=True),
            func.lower(Study.accession_number).startswith(word, autoescape=True),
            func.lower(Study.accession_number).contains(f"\\{word}", autoescape=True),
            Study.study_instance_uid == word,
        )
        for word in search.lower().split()[:6]
    ]


def rows_of(connection: Connection, study_ids: Sequence[int]) -> tuple[WorklistRow, ...]:
    """The rows of these studies, by number, whatever part of the worklist they are in."""
    return _complete(connection, connection.execute(_NAMED, {"ids": study_ids}).all())


def current_findings(
    connection: Connection, study_ids: Sequence[int], by: Literal["study_id", "job_id"]
) -> defaultdict[int, tuple[FindingRecord, ...]]:
    """All findings of the latest revision of each job of these studies, by study or by job."""
    found: defaultdict[int, tuple[FindingRecord, ...]] = defaultdict(tuple)
    place = 0 if by == "study_id" else 1
    for row in connection.execute(_FINDINGS, {"ids": study_ids}).all():
        found[row[place]] += (FindingRecord(*row[2:]),)
    return found


def _complete(connection: Connection, rows: Sequence[Any]) -> tuple[WorklistRow, ...]:
    ids = [row.id for row in rows]
    if not ids:
        return ()
    findings = current_findings(connection, ids, "study_id")
    counted: defaultdict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for kind, study_id, value, number in connection.execute(_COUNTED, {"ids": ids}).all():
        counted[kind, study_id][value] = number
    made = []
    for row in rows:
        hold_reason = hold_reason_of(row)
        made.append(
            WorklistRow(
                **dict(zip(_AS_STORED, row[-len(_AS_STORED) :], strict=True)),
                study_id=row.id,
                received_at=row.first_received_at,
                on_hold=hold_reason is not None,
                hold_reason=hold_reason or "",
                findings=findings[row.id],
                jobs=counted["jobs", row.id],
                deliveries=counted["deliveries", row.id],
                modalities=tuple(sorted(counted["modalities", row.id])),
            )
        )
    return tuple(made)


def _counts_of(kind: str, study_id: Any, value: Any, *conditions: ColumnElement[bool]) -> Select[Any]:
    """How many rows each study has with each ``value``, under the name ``kind``."""
    query = select(literal(kind), study_id, cast(value, String), func.count()).where(study_id.in_(_IDS), *conditions)
    return query.group_by(study_id, value)


_AS_STORED = tuple(
    name
    for name in WorklistRow.__dataclass_fields__
    if name in Study.__table__.c and name not in ("on_hold", "hold_reason")
)
"""Columns that a row of the worklist takes over as they are."""
_COLUMNS: tuple[Any, ...] = tuple(
    Study.__table__.c[name] for name in ("id", "first_received_at", "on_hold", "hold_reason", "correction", *_AS_STORED)
)

# Written once and not for each page: to build a statement takes as long as to run it.
_IDS: Any = bindparam("ids", expanding=True)
_NAMED = select(*_COLUMNS).where(Study.id.in_(_IDS)).order_by(Study.id)
_FINDINGS = (
    select(
        Finding.study_id, Finding.job_id, *(Finding.__table__.c[name] for name in FindingRecord.__dataclass_fields__)
    )
    .where(Finding.study_id.in_(_IDS), Finding.superseded.is_(False))
    .order_by(Finding.id)
)
_COUNTED = union_all(
    _counts_of("jobs", Job.study_id, Job.state),
    _counts_of("deliveries", Delivery.study_id, Delivery.state),
    _counts_of(
        "modalities",
        Series.study_id,
        Series.modality,
        Series.id.in_(select(Instance.series_id).where(Instance.study_id.in_(_IDS))),
    ),
)
