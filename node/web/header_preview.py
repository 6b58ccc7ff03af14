"""What the header of an uploaded DICOM file says, read in the process for untrusted files."""

from __future__ import annotations

from dataclasses import asdict
from io import BytesIO
from typing import Any

from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.uid import UID

from config.settings import Eligibility
from db.records import NotEligible
from models.radiograph.bounded_source import InvalidDataSetError, Limits
from models.radiograph.data_set import read_part_10
from node.dicom.eligibility import check_eligibility
from node.dicom.received_header import UnreadableDataSetError, check_identity, text
from workers.not_analysed import header_shows_chest
from workers.routing import ImageFacts, facts_of
from workers.services.expected_route import ImageHeader

_LIMITS = Limits(inflated_bytes=64 * 1024 * 1024, elements=50_000, seconds=5.0)
_SHOWN = (
    "Modality",
    "StationName",
    "BodyPartExamined",
    "ViewPosition",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "ImageType",
    "PresentationIntentType",
    "PatientAge",
)
"""Attributes that rules look at and that name nobody."""


def preview(data: bytes, eligibility: dict[str, Any]) -> dict[str, Any]:
    """The header of a DICOM file for :func:`header_of`, as values of JSON; ``eligibility`` are the settings' values."""
    rules = Eligibility.model_validate(eligibility)
    try:
        header = read_part_10(BytesIO(data), _LIMITS, pixels=False)
        check_identity(header)
    except (InvalidDataSetError, UnreadableDataSetError) as error:
        return {"refused": str(error)}
    not_eligible = check_eligibility(header, rules)
    return {
        "facts": _facts(header),
        "not_eligible": asdict(not_eligible) if not_eligible else None,
        "study_description": text(header, "StudyDescription"),
        "study_date": text(header, "StudyDate"),
        "shows_chest": header_shows_chest(header, rules),
        "routing": asdict(facts_of(header, text(header.file_meta, "SendingApplicationEntityTitle"))),
    }


def _facts(header: Dataset) -> list[tuple[str, str]]:
    sop_class, syntax = UID(text(header, "SOPClassUID")), header.file_meta.get("TransferSyntaxUID", "")
    named = [("SOP Class", sop_class.name), ("Transfer Syntax", UID(str(syntax)).name)]
    shown = ((dictionary_description(keyword), text(header, keyword)) for keyword in _SHOWN)
    return [*named, *((name, value) for name, value in shown if value)]


def header_of(values: dict[str, Any], *, stat: bool) -> ImageHeader:
    """What :func:`preview` has said.

    Raises:
        ValueError: it is no such answer.
    """
    try:
        return _header(values, stat)
    except (KeyError, TypeError) as error:
        raise ValueError("the process that reads images sent a malformed response") from error


def _header(values: dict[str, Any], stat: bool) -> ImageHeader:
    if "refused" in values:
        return ImageHeader(refused=str(values["refused"]))
    reason = values["not_eligible"]
    return ImageHeader(
        facts=tuple((str(name), str(value)) for name, value in values["facts"]),
        not_eligible=NotEligible(str(reason["code"]), str(reason["sentence"])) if reason else None,
        stat=stat,
        study_date=str(values["study_date"]),
        shows_chest=bool(values["shows_chest"]),
        routing=ImageFacts(**values["routing"] | {"views": tuple(map(str, values["routing"]["views"]))}),
    )
