"""Accession numbers of a study, of which there may be several: two orders, one exposure, ``B100\\B101`` in the header.

Accession Number (0008,0050) holds one value (PS3.3 C.7.2.1), but modalities write one for each order. Whoever names one
of them means the study.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, insert, or_, select

from db.tables import Study, StudyAccession

BETWEEN = "\\"


def numbers_of(text: str) -> tuple[str, ...]:
    """By what a study with this Accession Number is known: the text itself and, where it holds several, each value."""
    values = [value.strip() for value in text.split(BETWEEN)]
    return tuple(dict.fromkeys(value for value in (text.strip(), *values) if value))


def keep_numbers(connection: Connection, study_id: int, text: str) -> None:
    """Note each accession number of a study whose Accession Number was just written, where it has several."""
    if BETWEEN in text:
        rows = [{"study_id": study_id, "accession_number": number} for number in numbers_of(text)[1:]]
        if rows:  # none where there is nothing between the backslashes
            connection.execute(insert(StudyAccession), rows)


def has_number(number: str) -> ColumnElement[bool]:
    """Condition on ``studies``: this is its accession number, or one of them."""
    several = select(StudyAccession.study_id).where(StudyAccession.accession_number == number)
    return or_(Study.accession_number == number, Study.id.in_(several))
