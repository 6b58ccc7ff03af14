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
from typing import Any, BinaryIO

from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
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
_ASKED = [(keyword, tag, dictionary_VR(tag)) for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]
_TAGS = [tag for _, tag, _ in _ASKED]
# Value representations whose values are text (PS3.5 6.2), where one value is given.
_TEXTUAL = frozenset({"AE", "AS", "CS", "DA", "LO", "PN", "SH", "TM", "UI"})


class UnreadableDataSetError(ValueError):
    """The data set cannot be understood; the message says why in words that hold no patient data."""


class Header(Dataset):
    """A data set that gives plain values without converting them: nearly all that are asked for are plain."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        present = dataset.keys()
        self._absent = frozenset(keyword for keyword, tag, _ in _ASKED if tag not in present)
        self._plain = {
            keyword: value
            for keyword, tag, vr in _ASKED
            if tag in present and (value := _plain_value(dataset.get_item(tag), vr)) is not None
        }

    def get(self, key: Any, default: Any = None) -> Any:
        """Give a value; see the base class."""
        value = self._plain.get(key)
        if value is not None:
            return value
        return default if key in self._absent else super().get(key, default)


def _plain_value(element: Any, vr: str) -> str | int | None:
    """Value of an element that holds one number, or one text in ASCII; None where it takes more to find it out."""
    if not isinstance(element, RawDataElement) or element.VR not in (None, vr) or not element.value:
        return None
    if vr == "US" and len(element.value) == 2:
        return int.from_bytes(element.value, "little" if element.is_little_endian else "big")
    value = element.value.rstrip(b" \0")
    if vr not in _TEXTUAL or not value.isascii() or b"\\" in value or b"=" in value:
        return None
    decoded = value.decode("ascii")
    return decoded if decoded.isprintable() else None


def read_header(path: Path, transfer_syntax: str, offset: int, beginning: bytes = b"") -> Dataset:
    """Read the attributes of :data:`KEYWORDS` from the data set that begins ``offset`` bytes into the file.

    ``beginning`` is the beginning of the data set: the file is only read where that is not enough.

    Raises:
        UnreadableDataSetError: the bytes are no data set in ``transfer_syntax``, or lack an identifying UID.
    """
    syntax = uid.UID(transfer_syntax)
    try:
        header = None if syntax in _DEFLATED else _parse_beginning(beginning, syntax)
        if header is None:
            with path.open("rb") as file:
                file.seek(offset)
                header, _ = _parse(_inflate(file) if syntax in _DEFLATED else file, syntax)
    except Exception as error:
        # A parser that meets hostile bytes fails in every way there is; for us they all mean the same.
        raise UnreadableDataSetError(f"the data set cannot be parsed ({type(error).__name__})") from error
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        _check_uid(header, keyword)
    return header


def _parse_beginning(beginning: bytes, syntax: uid.UID) -> Header | None:
    """Parse a data set of which only the beginning is at hand; None where that does not hold the whole header."""
    try:
        header, is_whole = _parse(BytesIO(beginning), syntax)
    except Exception:  # cut off within an element, or hostile: the file will tell
        return None
    return header if is_whole else None


def _parse(source: BinaryIO, syntax: uid.UID) -> tuple[Header, bool]:
    """Read up to the last attribute that is asked for; the second says that ``source`` goes on behind it."""
    goes_on = False

    def is_after_the_last(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal goes_on
        goes_on = int(tag) > _LAST_TAG
        return goes_on

    parsed = read_dataset(
        source,
        is_implicit_VR=syntax == uid.ImplicitVRLittleEndian,
        is_little_endian=syntax != uid.ExplicitVRBigEndian,
        stop_when=is_after_the_last,
        defer_size=_LONGEST_VALUE,
        specific_tags=list(_TAGS),
    )
    _drop_deferred(parsed)
    return Header(parsed), goes_on


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
    """Value as decoded text that a database can hold: no control characters, not endless, empty where unreadable.

    Several values stay what they are in the data set: one text with backslashes between them (PS3.5 6.4).
    """
    try:
        value = header.get(keyword)
        shown = "" if value is None else "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    except (ValueError, TypeError, AttributeError, KeyError, LookupError, NotImplementedError):
        return ""
    if shown.isascii() and shown.isprintable():
        return shown.strip()[:_LONGEST_TEXT]
    printable = "".join(letter if letter.isprintable() else " " for letter in shown)
    return printable.encode("utf-8", "replace").decode().strip()[:_LONGEST_TEXT]


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
