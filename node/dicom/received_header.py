"""Read the few attributes that the listener needs of a received data set, in bounded memory, from untrusted bytes.

Pixel data is never read. The only error is :class:`UnreadableDataSetError`, which C-STORE answers with 0xC000
(PS3.4 B.2.3, "cannot understand").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from db.records import ReceivedInstance, Route
from db.states import JOBS
from models.radiograph.bounded_source import InvalidDataSetError, Limits
from models.radiograph.data_set import DEFLATED, Reader

# No needed attribute comes after View Code Sequence (0054,0220), so pixel data and most other bulk is not read.
_LAST_TAG = 0x00540220
_PIXEL_DATA = 0x7FE00000
_ROWS = 0x00280010
# No needed attribute may have a longer value (PS3.5 6.2). A header is small and at the beginning: anything larger than
# this is content that is not needed here.
_LIMITS = Limits(inflated_bytes=16 * 1024 * 1024, elements=20_000, depth=32, value_bytes=64 * 1024, seconds=2.0)
_LONGEST_TEXT = 256
_UID = re.compile(r"[0-9.]{1,64}")
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

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
    "InstitutionName",
    "StationName",
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
_KEYWORDS = frozenset(KEYWORDS)
# Value representations whose single values are text (PS3.5 6.2).
_TEXTUAL = frozenset({"AE", "AS", "CS", "DA", "LO", "PN", "SH", "TM", "UI"})
_ASKED = {
    tag: (keyword, vr, vr in _TEXTUAL)
    for keyword in KEYWORDS
    if (tag := tag_for_keyword(keyword)) is not None and (vr := dictionary_VR(tag))
}
_NOT_ASKED = ("", "", False)
# The last three are attributes of the items of code sequences (PS3.3 8.8).
_TAGS = frozenset(_ASKED) | {0x00080100, 0x00080102, 0x00080104}
_IDENTITY_TAGS = tuple(tag for tag, (keyword, *_) in _ASKED.items() if keyword in _IDENTITY)


class UnreadableDataSetError(ValueError):
    """The data set cannot be understood. The message gives the reason and contains no patient data."""


class Header(Dataset):
    """A data set that returns plain values without pydicom's conversion. Nearly all needed values are plain.

    What pydicom keeps of a data set is made when something else is asked for, which takes as long as all plain values.
    """

    _plain: dict[str, str | int]
    _absent: frozenset[str]
    _reader: Reader

    @classmethod
    def of(cls, reader: Reader) -> Header:
        """Make a header of the elements that were read."""
        header = cls.__new__(cls)
        plain: dict[str, str | int] = {}
        present = set()
        for tag, element in reader.elements.items():
            keyword, vr, is_text = _ASKED.get(tag, _NOT_ASKED)
            present.add(keyword)
            if type(element) is not RawDataElement or element.VR not in (None, vr):
                continue
            value = _plain_text(element.value or b"") if is_text else _plain_number(element, vr)
            if value is not None:
                plain[keyword] = value
        # pydicom would look for each name in its dictionary.
        header.__dict__.update(_plain=plain, _absent=_KEYWORDS - present, _reader=reader)
        return header

    def __getattr__(self, name: str) -> Any:
        """Make what the base class keeps of a data set, when it first asks for it; see there for all other names."""
        reader = self.__dict__.pop("_reader", None)
        if reader is None:
            return super().__getattr__(name)
        self.__dict__.update(reader.data_set().__dict__)
        return getattr(self, name)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a value; see the base class. A value that cannot be converted counts as missing."""
        value = self._plain.get(key)
        if value is not None:
            return value
        if key in self._absent:
            return default
        try:
            return super().get(key, default)
        except Exception:  # pydicom may raise anything on a malformed value; the value counts as missing
            return default


def _plain_number(element: RawDataElement, vr: str) -> int | None:
    """The value of an element that holds one number; None if pydicom must convert it."""
    if vr != "US" or element.value is None or len(element.value) != 2:
        return None
    return int.from_bytes(element.value, "little" if element.is_little_endian else "big")


def _plain_text(value: bytes) -> str | None:
    """A value that is one text of printable ASCII, which is not empty; None if pydicom must convert it."""
    if not value.isascii() or b"\\" in value or b"=" in value:
        return None
    decoded = value.rstrip(b" \0").decode("ascii")
    return decoded if decoded.isprintable() and value else None


def read_header(path: Path | str, transfer_syntax: str, offset: int, beginning: bytes = b"") -> Dataset:
    """Read the attributes of :data:`KEYWORDS` from the data set that begins ``offset`` bytes into the file.

    ``beginning`` holds the first bytes of the data set; the file is read only if they are not enough.

    Raises:
        UnreadableDataSetError: the bytes are not a data set in ``transfer_syntax``, or an identifying UID is missing.
    """
    header = None if transfer_syntax in DEFLATED else _read_beginning(beginning, transfer_syntax)
    if header is None:
        header = _read_file(path, transfer_syntax, offset)
    check_identity(header)
    return header


def check_identity(header: Dataset) -> None:
    """Raise UnreadableDataSetError where an identifying UID is missing, or is no UID."""
    for keyword in _IDENTITY:
        _check_uid(header, keyword)


def _read_beginning(beginning: bytes, transfer_syntax: str) -> Header | None:
    """Read the header from the first bytes of a data set; None if they do not hold the whole header."""
    reader = Reader(BytesIO(beginning), transfer_syntax, _LIMITS, _TAGS)
    stop = _Stop(reader)
    try:
        reader.read(stop, _LAST_TAG)
    except InvalidDataSetError:  # cut off within an element, or malformed: reading the file decides which
        return None
    return Header.of(reader) if stop.stopped else None


def _read_file(path: Path | str, transfer_syntax: str, offset: int) -> Header:
    try:
        with Path(path).open("rb") as file:
            file.seek(offset)
            reader = Reader(file, transfer_syntax, _LIMITS, _TAGS)
            try:
                reader.read(_Stop(reader), _LAST_TAG)
            except InvalidDataSetError:
                # A data set whose identifiers could be read is kept; later readers report what else is wrong.
                if not _is_identified(reader):
                    raise
    except (InvalidDataSetError, OSError) as error:
        why = str(error) if isinstance(error, InvalidDataSetError) else type(error).__name__
        raise UnreadableDataSetError(f"the data set cannot be read: {why}") from error
    return Header.of(reader)


class _Stop:
    """Stops reading when no needed attribute can follow; asked at tags after :data:`_LAST_TAG`.

    Elements are in the order of their tags (PS3.5 7.1), and none is needed after :data:`_LAST_TAG`. Some devices write
    a private group out of order, and other receivers accept that. So a data set whose elements are out of order, or
    that lacks an identifying UID, is read to its end.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.stopped = False

    def __call__(self, tag: int) -> bool:
        """Return whether to stop at ``tag``."""
        if self._reader.in_order and _is_identified(self._reader):
            self.stopped = tag >= _PIXEL_DATA or _ROWS in self._reader.elements
        return self.stopped


def _is_identified(reader: Reader) -> bool:
    return all(tag in reader.elements for tag in _IDENTITY_TAGS)


def describe(
    header: Dataset,
    *,
    transfer_syntax: str,
    digest: str,
    path: str,
    byte_count: int,
    calling_ae_title: str,
    stat: bool,
    route: Route | None = None,
    queue: str = JOBS,
) -> ReceivedInstance:
    """Make the record of a received data set from its header."""
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
        station_name=text(header, "StationName"),
        calling_ae_title=calling_ae_title,
        stat=stat,
        route=route,
        queue=queue,
    )


def is_stat(study_description: str, patterns: Sequence[str], *, from_stat_peer: bool, high_priority: bool) -> bool:
    """Whether a study is STAT: by its sender, the DIMSE priority HIGH (PS3.7 9.1.1.1.4) or its description."""
    return (
        from_stat_peer
        or high_priority
        or any(re.search(pattern, study_description, re.IGNORECASE) for pattern in patterns)
    )


def text(header: Dataset, keyword: str) -> str:
    """Decoded text for the database: without control characters, of limited length, empty if it cannot be read.

    Several values remain one text with backslashes between them, as in the data set (PS3.5 6.4).
    """
    if type(header) is Header and type(plain := header._plain.get(keyword)) is str:
        return plain.strip()[:_LONGEST_TEXT]  # all of it is printable
    try:
        value = header.get(keyword)
        shown = "" if value is None else "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    except Exception:  # see Header.get
        return ""
    if shown.isascii() and shown.isprintable():
        return shown.strip()[:_LONGEST_TEXT]
    printable = "".join(letter if letter.isprintable() else " " for letter in shown)
    return printable.encode("utf-8", "replace").decode().strip()[:_LONGEST_TEXT]


def _check_uid(header: Dataset, keyword: str) -> None:
    if _UID.fullmatch(text(header, keyword)):
        return
    if header.get_item(keyword) is None:
        raise UnreadableDataSetError(f"{keyword} is missing")
    raise UnreadableDataSetError(f"{keyword} is not a UID of up to 64 digits and dots")
