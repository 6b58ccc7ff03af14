"""The worklist: filtered, searched, sorted and counted, for page, API and command line.

Rows come by ``due_at`` through an index unless another order is asked for. What belongs to them (findings, counts of
jobs and deliveries, modalities) is looked up for the rows of the page only.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import aliased

from db.engine import reading
from db.frozen_records import maker
from db.holds import is_on_hold, reason_of_hold
from db.prepared_statements import Prepared, is_among
from db.records import FindingRecord
from db.search_words import asked_words, begins_with, spelling_values
from db.shown_records import WorklistRow
from db.states import Analysis, Priority, StudyState
from db.tables import Delivery, Finding, Instance, Job, Series, Study, StudyWord

MOST_COUNTED = 10_000
"""A view is counted no further than this."""

_UID = re.compile(r"\d+(\.\d+){3,}")
_RARE_WORD_LIMIT = 500  # studies that are looked up one by one
_RARE_WORD_ROWS = 2 * _RARE_WORD_LIMIT
_LISTED_WORD_ROWS = 20_000  # studies whose numbers SQLite collects before it looks at any
_SAMPLE_ROWS = 5000
_MOST_CHOICES = 50
_STATEMENTS_KEPT = 256
_TEXTS_KEPT = 1024
_BETWEEN = "\\"  # no value of DICOM and no state holds a backslash
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


@dataclass(frozen=True, slots=True)
class Filters:
    """What is looked for; an empty field means anything.

    ``search``: each word must be the beginning of a word of the patient's name, ID or birth date, of the accession
    number, of the study's date or description, or of a station name, without case and accents and in any order; or the
    UID of the study, a series or an instance. Dates are ``YYYYMMDD`` and inclusive. ``finding`` is a label that an
    active model has found, ``destination`` one that something of the study goes to, ``state`` that of the study.
    """

    search: str = ""
    date_from: str = ""
    date_to: str = ""
    modality: str = ""
    station: str = ""
    calling_ae_title: str = ""
    destination: str = ""
    finding: str = ""
    state: StudyState | None = None

    @property
    def active(self) -> dict[str, str]:
        """The fields that look for something, beside ``search``, as text."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "search"}
        return {name: str(value) for name, value in named.items() if value}


ANYTHING = Filters()


class Worklist:
    """Pages of the worklist."""

    def __init__(self, engine: Engine) -> None:
        self._engine = reading(engine)

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
        in shadow where a study has no others, for it must not look like a negative.
        """
        with self._engine.connect() as connection:
            asked = _asked(connection, filters)
            statement = _prepared_page(show, order, descending, only_open, asked.names, asked.words, limit, offset)
            rows = statement.rows(connection, asked.values)
            return _complete(connection, rows, _LISTED_FINDINGS if as_listed else _FINDINGS)

    def rows(self, study_ids: Sequence[int]) -> tuple[WorklistRow, ...]:
        """The rows of these studies, by number, whatever part of the list they are in."""
        with self._engine.connect() as connection:
            return rows_of(connection, study_ids)

    def count(self, show: WorklistPart, filters: Filters = ANYTHING, *, at_most: int = MOST_COUNTED) -> int:
        """How many rows there are, counted no further than ``at_most``."""
        with self._engine.connect() as connection:
            asked = _asked(connection, filters)
            conditions = (_shown(show), *_conditions(connection.dialect.name, asked.names, asked.words))
            inner = select(Study.id).where(*conditions).limit(at_most).subquery()
            return int(connection.execute(select(func.count()).select_from(inner), asked.values).scalar_one())

    def choices(self) -> dict[str, tuple[str, ...]]:
        """What can be filtered by, as far as it has come: modalities, stations, calling AE titles, findings."""
        columns = {
            "modality": Series.modality,
            "station": Series.station_name,
            "calling_ae_title": Instance.calling_ae_title,
            "finding": Finding.label,
        }
        with self._engine.connect() as connection:
            return {name: _latest_values(connection, column) for name, column in columns.items()}

    def counts(self) -> dict[WorklistPart, int]:
        """How many unreported studies each part holds."""
        totals: dict[WorklistPart, int] = {show: 0 for show in WorklistPart if show is not WorklistPart.ALL}
        with self._engine.connect() as connection:
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
    conditions = [_shown(show), *([Study.state == StudyState.OPEN] if only_open else [])]
    # In the text of the statement: PostgreSQL plans a page of unknown size as if it were a tenth of the table, so it
    # would never keep the plan, and plan anew for every page.
    size, skipped = (literal_column(str(int(number)), Integer) for number in (limit, offset))
    columns = (*_COLUMNS, _ORDERS[order].label(_SORTED_BY))
    by = _ORDERS[order].desc() if descending else _ORDERS[order].asc()
    return select(*columns).where(*conditions).order_by(by, *by_due, Study.id).limit(size).offset(skipped)


def _counted(page: Select[Any], order: Order, descending: bool, dialect: str) -> Select[Any]:
    """The rows of a page, in its order, with what is counted of each: of these alone, not of those that are skipped."""
    rows = page.subquery("page")
    key = rows.c[_SORTED_BY].desc() if descending else rows.c[_SORTED_BY].asc()
    by_due = [] if order is Order.DUE else [rows.c.due_at]
    columns = (*(rows.c[column.name] for column in _COLUMNS), *_counts_of(rows.c.study_id, dialect))
    return select(*columns).order_by(key, *by_due, rows.c.study_id)


def _counts_of(study_id: Any, dialect: str) -> tuple[ColumnElement[str], ...]:
    """States of the jobs and of the deliveries and the modalities of a study, one after the other in a text.

    Not grouped: a study has few, and to read a row for each takes longer than to count them here.
    """
    counted = ((Job, Job.state), (Delivery, Delivery.state), (Series, Series.modality))
    join = func.string_agg if dialect == "postgresql" else func.group_concat
    return tuple(
        select(join(value, literal_column(f"'{_BETWEEN}'"), type_=String))
        .where(table.study_id == study_id)
        .scalar_subquery()
        .label(table.__tablename__)
        for table, value in counted
    )


@lru_cache(_STATEMENTS_KEPT)
def _prepared_page(
    show: WorklistPart,
    order: Order,
    descending: bool,
    only_open: bool,
    names: tuple[str, ...],
    words: tuple[_Word, ...],
    limit: int,
    offset: int,
) -> Prepared:
    """The statement of a page, compiled once: to build it takes longer than to run it."""
    page = page_statement(show, order, descending, only_open, limit, offset)
    return Prepared(
        lambda dialect: _counted(page.where(*_conditions(dialect, names, words)), order, descending, dialect)
    )


_ORDERS: dict[Order, Any] = {
    Order.DUE: Study.due_at,
    Order.RECEIVED: Study.first_received_at,
    Order.PATIENT: func.lower(Study.patient_name),
    Order.STUDY: Study.study_date,
    # The words sort as they should: critical, routine, urgent would not.
    Order.PRIORITY: func.replace(Study.priority, Priority.ROUTINE.value, "z"),
}


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


class _Word(NamedTuple):
    """A word that is searched: in how many spellings, and whether the studies that have it are listed first."""

    spellings: int
    listed: bool


class _Asked(NamedTuple):
    """What is looked for: the conditions (see :func:`_conditions`) and the values that they compare with."""

    names: tuple[str, ...]
    words: tuple[_Word, ...]
    values: dict[str, Any]


def _asked(connection: Connection, filters: Filters) -> _Asked:
    values: dict[str, Any] = dict(filters.active)
    if filters.state is not None:
        values["state"] = filters.state
    if filters.date_from and filters.date_from == filters.date_to:
        # One day's studies lie in the order of the page in the index.
        values["day"] = values.pop("date_to")
        del values["date_from"]
    if filters.modality:
        values["modality"] = filters.modality.upper()
    if filters.station:
        values["station"] = filters.station.lower()
    ids: set[int] | None = None
    searched: list[tuple[str, ...]] = []
    if filters.search.strip():
        ids, searched = _searched(connection, filters.search)
        values |= {} if ids is None else {"ids": sorted(ids)}
    names = tuple(values)
    words = tuple(_Word(len(each), ids is None and _is_listed(connection, each)) for each in searched)
    for number, spellings in enumerate(searched):
        values |= spelling_values(number, spellings)
    return _Asked(names, words, values)


def _conditions(dialect: str, names: Sequence[str], words: Sequence[_Word]) -> list[ColumnElement[bool]]:
    """A condition for each of ``names``, which has its value by that name, and one for each word that is searched."""
    found = [is_among(Study.id, "ids", dialect) if name == "ids" else _CONDITIONS[name] for name in names]
    for number, word in enumerate(words):
        having = select(StudyWord.study_id).where(begins_with(number, word.spellings))
        of_study = having.where(StudyWord.study_id == Study.id)
        found.append(Study.id.in_(having) if word.listed else of_study.exists())
    return found


def _of_study(table: Any, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return select(table.id).where(table.study_id == Study.id, *conditions).exists()


_CONDITIONS: dict[str, ColumnElement[bool]] = {
    "day": Study.study_date == bindparam("day"),
    "date_from": Study.study_date >= bindparam("date_from"),
    "date_to": and_(Study.study_date <= bindparam("date_to"), Study.study_date != ""),
    "state": Study.state == bindparam("state"),
    "modality": _of_study(Series, Series.modality == bindparam("modality")),
    "station": _of_study(Series, func.lower(Series.station_name) == bindparam("station")),
    "calling_ae_title": _of_study(Instance, Instance.calling_ae_title == bindparam("calling_ae_title")),
    "destination": _of_study(Delivery, Delivery.destination == bindparam("destination")),
    "finding": _of_study(
        Finding,
        Finding.label == bindparam("finding"),
        Finding.present.is_(True),
        Finding.shadow.is_(False),
        Finding.superseded.is_(False),
    ),
}


def _searched(connection: Connection, search: str) -> tuple[set[int] | None, list[tuple[str, ...]]]:
    """Studies among which are all that are searched (None: among all), and the words that they must have.

    A rare word decides how the studies are found: where few have it, they are looked up, whatever the order of the
    page. The longest word is tried first, for it is likely to be rare. Where every word is common, the page is walked
    in its order and each row is asked for its words, save those that :func:`_is_listed` names.
    """
    asked = asked_words(search)
    if not asked:
        return set(), []
    uids = [one[0] for one in asked if _UID.fullmatch(one[0])]
    words = sorted((one for one in asked if one[0] not in uids), key=lambda one: -len(one[0]))
    if uids:
        return set.intersection(*(_studies_of_uid(connection, uid) for uid in uids)), words
    for number, one in enumerate(words):
        ids = _studies_of_rare_word(connection, one)
        if ids is not None:
            return ids, words[:number] + words[number + 1 :]
    return None, words


def _studies_of_rare_word(connection: Connection, spellings: Sequence[str]) -> set[int] | None:
    """The studies with this word; None where they are many."""
    rows = _having_word(len(spellings)).rows(connection, spelling_values(0, spellings))
    ids = {row.study_id for row in rows}
    return ids if len(ids) <= _RARE_WORD_LIMIT and len(rows) < _RARE_WORD_ROWS else None


@cache
def _having_word(spellings: int) -> Prepared:
    # Not DISTINCT: PostgreSQL would collect all rows of a common word first. A study has few words that begin alike.
    size = literal_column(str(_RARE_WORD_ROWS), Integer)
    return Prepared(lambda _: select(StudyWord.study_id).where(begins_with(0, spellings)).limit(size))


def _is_listed(connection: Connection, spellings: Sequence[str]) -> bool:
    """Whether SQLite shall first list the studies with this word, and look at those alone.

    It would walk the list of all studies until a page is full: for two words of which each has a few thousand among a
    million, and both have none, to its end. PostgreSQL chooses by its statistics.
    """
    if connection.dialect.name != "sqlite":
        return False
    counted = _counted_with_word(len(spellings)).first(connection, spelling_values(0, spellings))
    return bool(counted.number < _LISTED_WORD_ROWS)


@cache
def _counted_with_word(spellings: int) -> Prepared:
    size = literal_column(str(_LISTED_WORD_ROWS), Integer)
    found = select(StudyWord.study_id).where(begins_with(0, spellings)).limit(size).subquery()
    return Prepared(lambda _: select(func.count().label("number")).select_from(found))


def _studies_of_uid(connection: Connection, uid: str) -> set[int]:
    """Studies that have this UID themselves, in a series or an instance, or something else that is written like one.

    Looked up first, each by its index: as one condition with OR, PostgreSQL asks it of every study.
    """
    return {row.id for row in _OF_UID.rows(connection, {"uid": uid})}


_OF_UID = Prepared(
    lambda _: union_all(
        select(Study.id).where(Study.study_instance_uid == bindparam("uid")),
        select(Series.study_id).where(Series.series_instance_uid == bindparam("uid")),
        select(Instance.study_id).where(Instance.sop_instance_uid == bindparam("uid")),
        select(StudyWord.study_id).where(StudyWord.word == bindparam("uid")),
    )
)


def rows_of(connection: Connection, study_ids: Sequence[int]) -> tuple[WorklistRow, ...]:
    """The rows of these studies, by number, whatever part of the worklist they are in."""
    return _complete(connection, _NAMED.rows(connection, {"ids": list(study_ids)}), _FINDINGS)


def current_findings(connection: Connection, study_id: int) -> defaultdict[int, list[FindingRecord]]:
    """All findings of the latest revision of each job of a study, by job."""
    return _by_number(_FINDINGS.rows(connection, {"ids": [study_id]}), 1)


def _by_number(rows: list[Any], place: int) -> defaultdict[int, list[FindingRecord]]:
    """Rows of :func:`_findings` as records in the order in which they were written, by the number at ``place``."""
    found: defaultdict[int, list[FindingRecord]] = defaultdict(list)
    for row in sorted(rows, key=itemgetter(2)):
        found[row[place]].append(_finding(*row[3:]))
    return found


def _complete(connection: Connection, rows: Sequence[Any], findings: Prepared) -> tuple[WorklistRow, ...]:
    """The rows of a page with those of its findings that the statement ``findings`` gives."""
    ids = [row.study_id for row in rows]
    found = _by_number(findings.rows(connection, {"ids": ids}), 0) if ids else {}
    return tuple(
        _row(*row[:-3], tuple(found.get(row.study_id, ())), *map(_number_of_each, row[-3:-1]), _different(row[-1]))
        for row in rows
    )


def _number_of_each(joined: str | None) -> dict[str, int]:
    return dict(_numbers(joined))


@lru_cache(_TEXTS_KEPT)
def _numbers(joined: str | None) -> dict[str, int]:
    """How often each word is in a text of :func:`_counts_of`; there are few such texts."""
    return Counter(() if joined is None else joined.split(_BETWEEN))


@lru_cache(_TEXTS_KEPT)
def _different(joined: str | None) -> tuple[str, ...]:
    return tuple(sorted(_numbers(joined)))


def _findings(dialect: str, *conditions: ColumnElement[bool]) -> Select[Any]:
    fields = (Finding.__table__.c[name] for name in FindingRecord.__dataclass_fields__)
    columns = (Finding.study_id, Finding.job_id, Finding.id, *fields)
    of_studies = is_among(Finding.study_id, "ids", dialect)
    return select(*columns).where(of_studies, Finding.superseded.is_(False), *conditions)


def _listed() -> ColumnElement[bool]:
    """Whether a list shows a finding (see :meth:`Worklist.page`)."""
    other = aliased(Finding)
    counting = select(other.id).where(
        other.study_id == Finding.study_id, other.shadow.is_(False), other.superseded.is_(False)
    )
    return or_(and_(Finding.present.is_(True), Finding.shadow.is_(False)), and_(Finding.shadow, ~counting.exists()))


_finding, _row = maker(FindingRecord), maker(WorklistRow)

_MADE: dict[str, Any] = {
    "study_id": Study.id,
    "received_at": Study.first_received_at,
    "on_hold": is_on_hold(Study),
    "hold_reason": reason_of_hold(Study),
}
_OTHER_TABLES = ("findings", "jobs", "deliveries", "modalities")
_COLUMNS: tuple[Any, ...] = tuple(
    (_MADE[name] if name in _MADE else Study.__table__.c[name]).label(name)
    for name in WorklistRow.__dataclass_fields__
    if name not in _OTHER_TABLES
)
"""The fields of a row in their order; those at its end come of other tables."""

_NAMED = Prepared(
    lambda dialect: (
        select(*_COLUMNS, *_counts_of(Study.id, dialect)).where(is_among(Study.id, "ids", dialect)).order_by(Study.id)
    )
)
_FINDINGS = Prepared(_findings)
_LISTED_FINDINGS = Prepared(lambda dialect: _findings(dialect, _listed()))
