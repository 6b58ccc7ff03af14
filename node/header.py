"""Reading what the listener needs of a received data set: a few attributes, in bounded memory, from hostile bytes.

Pixel data is never read. Whatever is wrong with the bytes, the only error is :class:`UnreadableDataSetError`, which
C-STORE answers with 0xC000 (PS3.4 B.2.3, "cannot understand").
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from db.records import ReceivedInstance

# Nothing that is asked for comes after View Code Sequence (0054,0220), so pixel data and most other bulk is not met.
_LAST_TAG = 0x00540220
# A longer value is not read into memory: no attribute that is asked for has a right to it (PS3.5 6.2).
_LONGEST_VALUE = 64 * 1024
# A deflated header (PS3.5 A.5) is inflated so far and no further: a small file can inflate to a very large one.
_LONGEST_HEADER = 4 * 1024 * 1024
_LONGEST_TEXT = 256
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

KEYWORDS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "StudyTime",
    "AccessionNumber",
    "Modality",
    "ConversionType",
    "PresentationIntentType",
    "Manufacturer",
    "StudyDescription",
    "ProcedureCodeSequence",
    "SeriesDescription",
    "AnatomicRegionSequence",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "BodyPartExamined",
    "ProtocolName",
    "ViewPosition",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientOrientation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "QualityControlImage",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "ViewCodeSequence",
)
_TAGS = [tag for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]


class UnreadableDataSetError(ValueError):
    """The data set cannot be understood; the message says why in words that hold no patient data."""


def read_header(path: Path, transfer_syntax: str, offset: int) -> Dataset:
    """Read the attributes of :data:`KEYWORDS` from the data set that begins ``offset`` bytes into the file.

    Raises:
        UnreadableDataSetError: the bytes are no data set in ``transfer_syntax``, or lack an identifying UID.
    """
    syntax = uid.UID(transfer_syntax)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            source = _inflate(file) if syntax in _DEFLATED else file
            header = read_dataset(
                source,
                is_implicit_VR=syntax == uid.ImplicitVRLittleEndian,
                is_little_endian=syntax != uid.ExplicitVRBigEndian,
                stop_when=_is_after_the_last,
                defer_size=_LONGEST_VALUE,
                specific_tags=list(_TAGS),
            )
            _drop_deferred(header)
    except Exception as error:
        # A parser that meets hostile bytes fails in every way there is; for us they all mean the same.
        raise UnreadableDataSetError(f"the data set cannot be parsed ({type(error).__name__})") from error
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        _check_uid(header, keyword)
    return header


def describe(
    header: Dataset,
    *,
    transfer_syntax: str,
    digest: str,
    path: str,
    byte_count: int,
    calling_ae_title: str,
    stat: bool,
) -> ReceivedInstance:
    """Make the record of a received data set out of its header."""
    return ReceivedInstance(
        sop_instance_uid=text(header, "SOPInstanceUID"),
        sop_class_uid=text(header, "SOPClassUID"),
        transfer_syntax_uid=transfer_syntax,
        digest=digest,
        path=path,
        byte_count=byte_count,
        study_instance_uid=text(header, "StudyInstanceUID"),
        series_instance_uid=text(header, "SeriesInstanceUID"),
        patient_id=text(header, "PatientID"),
        issuer_of_patient_id=text(header, "IssuerOfPatientID"),
        patient_name=text(header, "PatientName"),
        patient_birth_date=text(header, "PatientBirthDate"),
        patient_sex=text(header, "PatientSex"),
        accession_number=text(header, "AccessionNumber"),
        study_date=text(header, "StudyDate"),
        study_time=text(header, "StudyTime"),
        study_description=text(header, "StudyDescription"),
        modality=text(header, "Modality"),
        body_part=text(header, "BodyPartExamined"),
        view=text(header, "ViewPosition"),
        series_description=text(header, "SeriesDescription"),
        calling_ae_title=calling_ae_title,
        stat=stat,
    )


def is_stat(study_description: str, patterns: Sequence[str], *, from_stat_peer: bool, high_priority: bool) -> bool:
    """Say whether a study is STAT: by its sender, the DIMSE priority HIGH (PS3.7 9.1.1.1.4) or its description."""
    return (
        from_stat_peer
        or high_priority
        or any(re.search(pattern, study_description, re.IGNORECASE) for pattern in patterns)
    )


def text(header: Dataset, keyword: str) -> str:
    """Value as decoded text that a database can hold: no control characters, not endless, empty where unreadable."""
    try:
        value = header.get(keyword)
        shown = "" if value is None else str(value)
    except (ValueError, TypeError, AttributeError, KeyError, LookupError, NotImplementedError):
        return ""
    printable = "".join(letter if letter.isprintable() else " " for letter in shown)
    return printable.encode("utf-8", "replace").decode().strip()[:_LONGEST_TEXT]


def _is_after_the_last(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _LAST_TAG


def _inflate(file: BinaryIO) -> BytesIO:
    # PS3.5 A.5: a raw deflate stream, without zlib header.
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = bytearray()
    while len(inflated) < _LONGEST_HEADER and not inflater.eof:
        chunk = inflater.unconsumed_tail or file.read(64 * 1024)
        if not chunk:
            break
        inflated += inflater.decompress(chunk, _LONGEST_HEADER - len(inflated))
    return BytesIO(inflated)


def _drop_deferred(header: Dataset) -> None:
    for tag in list(header.keys()):
        element = header.get_item(tag)
        if isinstance(element, RawDataElement) and element.value is None and element.length:
            del header[tag]


def _check_uid(header: Dataset, keyword: str) -> None:
    value = text(header, keyword)
    if not re.fullmatch(r"[0-9.]{1,64}", value):
        raise UnreadableDataSetError(f"{keyword} is missing or is no UID")
