"""Queries for this node's own results (C-FIND, C-MOVE, C-GET, QIDO-RS): their keys, and the attributes of a match.

All of them and WADO-RS use the same :class:`db.queries.own_results.ResultKeys`. The attributes of studies come from the
database, as the hospital has corrected them; those of series and instances from the files.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from config.settings import Settings
from db.database import Database
from db.queries import own_results
from db.queries.own_results import Level, OwnResult, ResultKeys
from workers.results.result_kinds import MODALITIES

MOST_MATCHES = 1000
"""Matches that one query gives; a C-FIND with more is refused, QIDO-RS has pages."""

ON_REQUEST = "on-request"

_OF_STUDY = (
    ("StudyDate", "study_date"),
    ("StudyTime", "study_time"),
    ("AccessionNumber", "accession_number"),
    ("StudyDescription", "study_description"),
    ("PatientName", "patient_name"),
    ("PatientID", "patient_id"),
    ("IssuerOfPatientID", "issuer_of_patient_id"),
    ("PatientBirthDate", "patient_birth_date"),
    ("PatientSex", "patient_sex"),
    ("StudyInstanceUID", "study_instance_uid"),
)
_TEXTS = frozenset(
    {"AccessionNumber", "StudyDescription", "PatientName", "PatientID", "IssuerOfPatientID", "PatientSex"}
)
"""Those of a study that may be asked for as texts."""
_OF_SERIES = ("Modality", "SeriesDescription", "SeriesNumber", "SeriesDate", "SeriesTime")
_OF_IMAGE = ("InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames", "ContentDate", "ContentTime")
_RANGE = re.compile(r"(\d{8})?(-)?(\d{8})?")

log = logging.getLogger(__name__)


class InvalidKeyError(ValueError):
    """A key of a query cannot be understood; the message names it, and no value of it."""


@dataclass(frozen=True)
class OwnResults:
    """The results of this node that others may ask for."""

    settings: Settings
    database: Database
    destinations: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Find the destinations of the kind ``on-request``."""
        names = tuple(each.name for each in self.settings.destinations if each.kind == ON_REQUEST)
        object.__setattr__(self, "destinations", names)

    def find(self, level: Level, keys: ResultKeys, limit: int, offset: int = 0) -> tuple[tuple[OwnResult, ...], ...]:
        """Matches; see :func:`db.queries.own_results.matches`."""
        return self.database.read(own_results.matches, level, keys, self.destinations, limit, offset)

    def objects(self, keys: ResultKeys, limit: int = MOST_MATCHES) -> tuple[OwnResult, ...]:
        """Single results, of a study in the order of storing."""
        return tuple(one for group in self.find(Level.IMAGE, keys, limit) for one in group)

    def path(self, result: OwnResult) -> Path:
        """The file of a result."""
        return self.settings.store.folder / result.path

    def describe(self, level: Level, group: Sequence[OwnResult], extra: Collection[BaseTag] = ()) -> Dataset:
        """The attributes of a match (PS3.4 C.6.2.1, PS3.18 10.6.3.3), and ``extra`` ones that its file has."""
        first = group[0]
        found = Dataset()
        found.SpecificCharacterSet = "ISO_IR 192"
        for keyword, name in _OF_STUDY:
            setattr(found, keyword, getattr(first, name))
        found.InstanceAvailability = "ONLINE"
        if level is Level.STUDY:
            found.ModalitiesInStudy = sorted({MODALITIES[one.kind] for one in group})
            found.NumberOfStudyRelatedSeries = len({one.series_instance_uid for one in group})
            found.NumberOfStudyRelatedInstances = len(group)
        else:
            found.SeriesInstanceUID = first.series_instance_uid
        if level is Level.SERIES:
            found.NumberOfSeriesRelatedInstances = len(group)
        if level is Level.IMAGE:
            found.SOPClassUID, found.SOPInstanceUID = first.sop_class_uid, first.sop_instance_uid
        self._add_from_file(found, level, first, extra)
        return found

    def _add_from_file(self, found: Dataset, level: Level, result: OwnResult, extra: Collection[BaseTag]) -> None:
        wanted = {*extra} - {element.tag for element in found}
        if level is not Level.STUDY:
            wanted |= {Tag(keyword) for keyword in _OF_SERIES}
        if level is Level.IMAGE:
            wanted |= {Tag(keyword) for keyword in _OF_IMAGE}
        if not wanted:
            return
        try:
            header = dcmread(self.path(result), stop_before_pixels=True, specific_tags=list(wanted))
        except FileNotFoundError:
            log.warning("the file of result %d is no longer in the store", result.id)
            return
        for element in header:
            if element.tag in wanted:
                found.add(element)


def keys_of(query: Dataset) -> ResultKeys:
    """The keys of a query that are supported; every other one matches everything (PS3.4 C.2.2.1.3).

    Raises:
        InvalidKeyError: a date is no date, or no range of dates, or a key has several values that may have one.
    """
    first, last = _dates(_text(query, "StudyDate"))
    texts = {column: text for keyword, column in _OF_STUDY if keyword in _TEXTS and (text := _text(query, keyword))}
    return ResultKeys(
        study_uids=_list(query, "StudyInstanceUID"),
        series_uids=_list(query, "SeriesInstanceUID"),
        sop_uids=_list(query, "SOPInstanceUID"),
        sop_classes=_list(query, "SOPClassUID"),
        texts=texts,
        first_date=first,
        last_date=last,
        kinds=_kinds(_list(query, "Modality")),
        study_kinds=_kinds(_list(query, "ModalitiesInStudy")),
    )


def _kinds(modalities: Collection[str]) -> frozenset[str] | None:
    """The kinds of results with one of these modalities; None where none is asked for."""
    if not modalities or "*" in modalities:
        return None
    return frozenset(kind for kind, modality in MODALITIES.items() if modality in modalities)


def _dates(text: str) -> tuple[str, str]:
    if not text or text == "*":
        return "", ""
    found = _RANGE.fullmatch(text)
    if found is None or text == "-":
        raise InvalidKeyError("StudyDate is no date, and no range of dates")
    first, dash, last = found[1] or "", found[2], found[3] or ""
    if not dash and last:
        raise InvalidKeyError("StudyDate is no date, and no range of dates")
    return first, last if dash else first


def _text(query: Dataset, keyword: str) -> str:
    """One value as text; empty where there is none, which matches everything."""
    value = query.get(keyword)
    if isinstance(value, MultiValue):
        raise InvalidKeyError(f"{keyword} has several values")
    if value is None:
        return ""
    text = str(value).strip(" \0")
    if keyword == "PatientName":
        text = text.rstrip("^")
    return "" if text == "*" else text


def _list(query: Dataset, keyword: str) -> tuple[str, ...]:
    value = query.get(keyword)
    values = value if isinstance(value, MultiValue) else [value]
    return tuple(text for each in values if each is not None and (text := str(each).strip(" \0")))
