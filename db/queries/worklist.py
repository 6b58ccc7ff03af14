"""The worklist: filtered, searched, sorted and counted, for page, API and command line.

Rows come by ``due_at`` through an index unless another order is asked for. What belongs to them (findings, counts of
jobs and deliveries) is looked up for the rows of the page only.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Integer, Select, func, literal_column, select, true

from db.engine import reading
from db.holds import is_on_hold
from db.prepared_statements import Prepared
from db.queries.worklist_filters import ANYTHING, Filters, SearchedWord, asked, conditions
from db.queries.worklist_rows import COLUMNS, complete, counts_of, rows_of
from db.shown_records import WorklistRow
from db.states import Analysis, Priority, StudyState
from db.tables import Finding, Instance, Series, Study

MOST_COUNTED = 10_000
"""A view is counted no further than this."""

_SAMPLE_ROWS = 5000
_MOST_CHOICES = 50
_STATEMENTS_KEPT = 256
_SORTED_BY = "sorted_by"


class WorklistPart(StrEnum):
    """Which part of the worklist to show."""

    UNREPORTED = "unreported"
    CRITICAL = "critical"
    URGENT = "urgent"
    ROUTINE = "routine"
    NOT_ANALYSED = "not-analysed"
    FAILED = "failed"
    ON_HOLD = "on-hold"
    REPORTED = "reported"
    ALL = "all"


class Order(StrEnum):
    """What the rows are sorted by."""

    DUE = "due"
    RECEIVED = "received"
    PATIENT = "patient"
    STUDY = "study"
    PRIORITY = "priority"


class Worklist:
    """Pages of the worklist."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(
        self,
        *,
        show: WorklistPart = WorklistPart.UNREPORTED,
        filters: Filters = ANYTHING,
        order: Order = Order.DUE,
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
        only_open: bool = False,
        as_listed: bool = False,
    ) -> tuple[WorklistRow, ...]:
        """Rows ``offset`` to ``offset + limit`` of what is asked for; ``only_open`` leaves out complete studies.

        ``as_listed`` gives of the findings only what a list shows: those that are present and not in shadow, and those
        in shadow where a study has no others, for it must not look like a negative. ``jobs`` is empty then.
        """
        with reading(self._engine) as connection:
            names, words, values = asked(connection, filters)
            statement = _prepared_page(show, order, descending, only_open, names, words, limit, offset, as_listed)
            return complete(connection, statement.columns(connection, values), as_listed)

    def rows(self, study_ids: Sequence[int]) -> tuple[WorklistRow, ...]:
        """The rows of these studies, by number, whatever part of the list they are in."""
        with reading(self._engine) as connection:
            return rows_of(connection, study_ids)

    def count(self, show: WorklistPart, filters: Filters = ANYTHING, *, at_most: int = MOST_COUNTED) -> int:
        """How many rows there are, counted no further than ``at_most``."""
        with reading(self._engine) as connection:
            names, words, values = asked(connection, filters)
            among = conditions(connection.dialect.name, names, words)
            inner = select(Study.id).where(_shown(show), *among).limit(at_most).subquery()
            return int(connection.execute(select(func.count()).select_from(inner), values).scalar_one())

    def choices(self) -> dict[str, tuple[str, ...]]:
        """What can be filtered by, as far as it has come: modalities, stations, calling AE titles, findings."""
        columns = {
            "modality": Series.modality,
            "station": Series.station_name,
            "calling_ae_title": Instance.calling_ae_title,
            "finding": Finding.label,
        }
        with reading(self._engine) as connection:
            return {name: _latest_values(connection, column) for name, column in columns.items()}

    def counts(self) -> dict[WorklistPart, int]:
        """How many unreported studies each part holds."""
        totals: dict[WorklistPart, int] = {show: 0 for show in WorklistPart if show is not WorklistPart.ALL}
        with reading(self._engine) as connection:
            rows = connection.execute(counts_statement()).all()
        for priority, analysis, on_hold, correction, number in rows:
            totals[WorklistPart.UNREPORTED] += number
            totals[WorklistPart(priority.value)] += number
            if analysis in (Analysis.NOT_ANALYSED, Analysis.FAILED):
                totals[WorklistPart(analysis.value.replace(" ", "-"))] += number
            if on_hold or correction:
                totals[WorklistPart.ON_HOLD] += number
        return totals


def counts_statement() -> Select[Any]:
    """How many unreported studies there are of each kind that :meth:`Worklist.counts` tells apart.

    In the order of the index ``ix_studies_unreported_counted``, which has all of it: nothing is sorted, no row is read.
    """
    by: tuple[Any, ...] = (Study.priority, Study.analysis, Study.on_hold, Study.correction)
    return select(*by, func.count()).where(Study.reported_at.is_(None)).group_by(*by)


def page_statement(
    show: WorklistPart, order: Order, descending: bool, only_open: bool, limit: int = 50, offset: int = 0
) -> Select[Any]:
    """The statement of a page, without what is looked for."""
    # Twice in a row, due_at would not be the order of the index.
    by_due = [] if order is Order.DUE else [Study.due_at]
    shown = [_shown(show), *([Study.state == StudyState.OPEN] if only_open else [])]
    # In the text of the statement: PostgreSQL plans a page of unknown size as if it were a tenth of the table, so it
    # would never keep the plan, and plan anew for every page.
    size, skipped = (literal_column(str(int(number)), Integer) for number in (limit, offset))
    columns = (*COLUMNS, _ORDERS[order].label(_SORTED_BY))
    by = _ORDERS[order].desc() if descending else _ORDERS[order].asc()
    return select(*columns).where(*shown).order_by(by, *by_due, Study.id).limit(size).offset(skipped)


def _counted(page: Select[Any], order: Order, descending: bool, dialect: str, as_listed: bool) -> Select[Any]:
    """The rows of a page, in its order, with what is counted of each: of these alone, not of those that are skipped."""
    if dialect == "sqlite":
        # It copies each value of a subquery, so that takes the numbers alone, and where it can from the index alone.
        numbers = page.with_only_columns(Study.id, Study.due_at, _ORDERS[order].label(_SORTED_BY)).subquery("page")
        read: Select[Any] = select(*COLUMNS, *counts_of(Study.id, dialect, as_listed)).join(
            numbers, Study.id == numbers.c.id
        )
        return read.order_by(*_sorting(numbers.c, order, descending), numbers.c.id)
    rows = page.subquery("page")
    fields = (rows.c[column.name] for column in COLUMNS)
    read = select(*fields, *counts_of(rows.c.study_id, dialect, as_listed))
    return read.order_by(*_sorting(rows.c, order, descending), rows.c.study_id)


def _sorting(page: Any, order: Order, descending: bool) -> tuple[ColumnElement[Any], ...]:
    """What the columns of a page are sorted by, before the number of the study."""
    key = page[_SORTED_BY].desc() if descending else page[_SORTED_BY].asc()
    return (key,) if order is Order.DUE else (key, page.due_at)


@lru_cache(_STATEMENTS_KEPT)
def _prepared_page(
    show: WorklistPart,
    order: Order,
    descending: bool,
    only_open: bool,
    names: tuple[str, ...],
    words: tuple[SearchedWord, ...],
    limit: int,
    offset: int,
    as_listed: bool,
) -> Prepared:
    """The statement of a page, compiled once: to build it takes longer than to run it."""
    page = page_statement(show, order, descending, only_open, limit, offset)

    def make(dialect: str) -> Select[Any]:
        chosen = page.where(*conditions(dialect, names, words))
        if dialect == "sqlite" and order in _SORTED_AFTERWARDS and show is WorklistPart.UNREPORTED:
            chosen = chosen.where(_ANY_PRIORITY)
        return _counted(chosen, order, descending, dialect, as_listed)

    return Prepared(make)


_ORDERS: dict[Order, Any] = {
    Order.DUE: Study.due_at,
    Order.RECEIVED: Study.first_received_at,
    Order.PATIENT: func.lower(Study.patient_name),
    Order.STUDY: Study.study_date,
    # The words sort as they should: critical, routine, urgent would not.
    Order.PRIORITY: func.replace(Study.priority, Priority.ROUTINE.value, "z"),
}


# An index of these orders would be written for each image, for lists that few sort so. SQLite, without statistics here,
# would read the studies in the order of ix_studies_unreported_due_at_id, each on another page. For each priority it
# takes ix_studies_unreported_counted, where they follow each other as in the table: 0.34 s instead of 0.99 for 200,000.
_SORTED_AFTERWARDS = frozenset({Order.RECEIVED, Order.PATIENT, Order.PRIORITY})
_ANY_PRIORITY = Study.priority.in_([literal_column(f"'{each.value}'") for each in Priority])

# In the words of the index ix_studies_not_analysed_due_at_id, so that it is used whatever the value beside it is.
_FAULTY = Study.analysis.in_([literal_column(f"'{each.value}'") for each in (Analysis.NOT_ANALYSED, Analysis.FAILED)])


def _shown(show: WorklistPart) -> ColumnElement[bool]:
    if show is WorklistPart.ALL:
        return true()
    if show is WorklistPart.REPORTED:
        return Study.reported_at.is_not(None)
    unreported = Study.reported_at.is_(None)
    narrower: dict[WorklistPart, ColumnElement[bool]] = {
        WorklistPart.NOT_ANALYSED: _FAULTY & (Study.analysis == Analysis.NOT_ANALYSED),
        WorklistPart.FAILED: _FAULTY & (Study.analysis == Analysis.FAILED),
        WorklistPart.ON_HOLD: is_on_hold(Study),
    }
    if show in (WorklistPart.CRITICAL, WorklistPart.URGENT, WorklistPart.ROUTINE):
        narrower[show] = Study.priority == Priority(show.value)
    return unreported if show is WorklistPart.UNREPORTED else unreported & narrower[show]


def _latest_values(connection: Connection, column: Any) -> tuple[str, ...]:
    """Values of a text column in the latest rows of its table."""
    latest = select(column.label("value")).order_by(column.class_.id.desc()).limit(_SAMPLE_ROWS).subquery()
    values = connection.scalars(select(latest.c.value).where(latest.c.value != "").distinct())
    return tuple(sorted(values)[:_MOST_CHOICES])
