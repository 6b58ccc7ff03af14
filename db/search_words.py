"""The words by which people find a study, and what they type, made alike: without case, accents and punctuation.

Each study has its words in the table ``study_words``, and a search is by the beginning of words through its index.
``MÜLLER``, ``müller`` and ``Mueller, Hans`` find ``Müller^Hans``, and a date is found as ``2026-01-31``, ``31.01.2026``
or ``20260131``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, or_, select, text

from db import tables
from db.prepared_statements import Prepared

_BETWEEN = re.compile(r"[\s,;^=\\]+")
_INSIDE = re.compile(r"[\W_]+")
_ISO_DATE = re.compile(r"(\d{4})-(\d{2})(?:-(\d{2}))?")
_DOTTED_DATE = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})")
_MOST_WORDS = 80
_LONGEST = 64
_MOST_ASKED = 6
_AFTER = "\U0010ffff"
"""Comes after every character of a word, in the order of bytes that both databases keep here."""

# Letters that Unicode does not take apart, and the German way to write umlauts in ASCII, which modalities use.
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "\u0131": "i"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})

# One statement a study, whatever the number of words: it lies between a C-STORE and its answer.
_LISTED = {
    "sqlite": "json_each(:words) WHERE true",
    "postgresql": "jsonb_array_elements_text(CAST(:words AS jsonb))",
}
_INSERT = Prepared(
    lambda dialect: text(
        f"INSERT INTO study_words (word, study_id) SELECT value, :study_id FROM {_LISTED[dialect]}"  # noqa: S608
        " ON CONFLICT DO NOTHING"
    )
)


def fold(value: str) -> str:
    """Text without case and accents."""
    letters = unicodedata.normalize("NFKD", value.casefold().translate(_LETTERS))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def words_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of some texts, each as it is and, where it has punctuation inside, in its parts."""
    found: dict[str, None] = {}
    for value in texts:
        for spelling in _spellings(value):
            for chunk in filter(None, _BETWEEN.split(spelling)):
                found[chunk[:_LONGEST]] = None
                if not chunk.isalnum():
                    found |= dict.fromkeys(word[:_LONGEST] for word in _INSIDE.split(chunk) if word)
    return tuple(found)[:_MOST_WORDS]


def _spellings(value: str) -> tuple[str, ...]:
    if value.isascii():
        return (value.casefold(),)
    composed = unicodedata.normalize("NFC", value.casefold())
    return tuple(dict.fromkeys((fold(composed), fold(composed.translate(_UMLAUTS)))))


def asked_words(search: str) -> tuple[tuple[str, ...], ...]:
    """What a search asks for: each word in its spellings, dates as DICOM writes them; the first six words count."""
    chunks = [chunk for chunk in _BETWEEN.split(search) if chunk][:_MOST_ASKED]
    return tuple(tuple(one[:_LONGEST] for one in _spellings(as_date(chunk))) for chunk in chunks)


def as_date(chunk: str) -> str:
    """A date that people write (``2026-01-31``, ``2026-01``, ``31.01.2026``) as DICOM writes it; else as it is."""
    if found := _ISO_DATE.fullmatch(chunk):
        return "".join(part or "" for part in found.groups())
    if found := _DOTTED_DATE.fullmatch(chunk):
        day, month, year = found.groups()
        return f"{year}{int(month):02}{int(day):02}"
    return chunk


def study_texts(study: Any) -> tuple[str, ...]:
    """The texts of a study (its row, or values by name) by which it is found; its UIDs have indexes of their own."""
    names = ("patient_name", "patient_id", "accession_number", "study_description", "study_date", "patient_birth_date")
    return tuple(study[name] if isinstance(study, dict) else getattr(study, name) for name in names)


def keep_words(connection: Connection, study_id: int, texts: Iterable[str]) -> None:
    """Add the words of these texts to those of a study."""
    words = words_of(texts)
    if words:
        _INSERT.run(connection, {"study_id": study_id, "words": json.dumps(words, ensure_ascii=False)})


def rewrite_words(connection: Connection, study_id: int) -> None:
    """Make the words of a study anew, after something by which it is found was changed."""
    study, series, word = tables.Study, tables.Series, tables.StudyWord
    row = connection.execute(select(study.__table__).where(study.id == study_id)).one()
    stations = connection.scalars(select(series.station_name).where(series.study_id == study_id).distinct()).all()
    connection.execute(delete(word).where(word.study_id == study_id))
    keep_words(connection, study_id, (*study_texts(row), *stations))


def begins_with(number: int, spellings: int) -> ColumnElement[bool]:
    """Condition on ``study_words``: the word begins with a spelling of word ``number`` of a search."""
    word = tables.StudyWord.word
    names = (f"word{number}_{spelling}" for spelling in range(spellings))
    return or_(*(and_(word >= bindparam(name), word < bindparam(f"{name}_end")) for name in names))


def spelling_values(number: int, spellings: Sequence[str]) -> dict[str, str]:
    """The values of :func:`begins_with`."""
    values = {f"word{number}_{place}": spelling for place, spelling in enumerate(spellings)}
    return values | {f"{name}_end": spelling + _AFTER for name, spelling in values.items()}
