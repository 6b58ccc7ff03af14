"""What is looked for in the worklist: filters and the words of a search, as conditions on its studies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Integer, and_, bindparam, func, literal_column, select, union_all

from db.prepared_statements import Prepared, is_among
from db.search_words import asked_words, begins_with, spelling_values
from db.states import StudyState
from db.tables import Delivery, Finding, Instance, Series, Study, StudyWord

_UID = re.compile(r"\d+(\.\d+){3,}")
_RARE_WORD_LIMIT = 500  # studies that are looked up one by one
_RARE_WORD_ROWS = 2 * _RARE_WORD_LIMIT
_LISTED_WORD_ROWS = 20_000  # studies whose numbers SQLite collects before it looks at any


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


class SearchedWord(NamedTuple):
    """A word that is searched: in how many spellings, and whether the studies that have it are listed first."""

    spellings: int
    listed: bool


class Asked(NamedTuple):
    """What is looked for: the conditions (see :func:`conditions`) and the values that they compare with."""

    names: tuple[str, ...]
    words: tuple[SearchedWord, ...]
    values: dict[str, Any]


def asked(connection: Connection, filters: Filters) -> Asked:
    """What these filters ask for. Words and UIDs are looked up first, to know how the studies are best found."""
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
    words = tuple(SearchedWord(len(each), ids is None and _is_listed(connection, each)) for each in searched)
    for number, spellings in enumerate(searched):
        values |= spelling_values(number, spellings)
    return Asked(names, words, values)


def conditions(dialect: str, names: Sequence[str], words: Sequence[SearchedWord]) -> list[ColumnElement[bool]]:
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
    all_words = asked_words(search)
    if not all_words:
        return set(), []
    uids = [one[0] for one in all_words if _UID.fullmatch(one[0])]
    words = sorted((one for one in all_words if one[0] not in uids), key=lambda one: -len(one[0]))
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
