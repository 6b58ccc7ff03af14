"""Common modules of every result object: patient, study, series, equipment and contributing equipment.

Patient and study are copied exactly from the source: identifying attributes are copied even if they are invalid,
because an object that does not match its study is lost. Other attributes that violate their value representation
(PS3.5 6.2; for example an age of ``62``) or multiplicity (PS3.6) are left out, so that errors of the source are not
repeated. A description with a backslash, which makes two values of it, is written with a slash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from copy import deepcopy
from datetime import datetime, timedelta, timezone

from pydicom import config
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName, validate_value

from models.radiograph.attributes import (
    CHARACTER_SET_VRS,
    UnreadableText,
    character_set_terms,
    is_as_promised,
    is_readable,
)

RESEARCH_USE = "Research use only. Not a medical device. Not for diagnosis."

# Attributes that identify patient and study: copied exactly. The second tuple is type 2 in PS3.3 C.7.1.1, C.7.2.1.
_IDENTITY = ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "IssuerOfPatientID")
TYPE_2 = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID")
TYPE_3 = (
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyDescription",
    "ProcedureCodeSequence",
    "IssuerOfAccessionNumberSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "AdmissionID",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)
ACQUISITION = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)
"""The device that made the image, in Contributing Equipment."""
_DESCRIPTIONS = {"LO": 64, "SH": 16}
"""Value representations of short texts, and their maximum length (PS3.5 6.2)."""
_MOMENTS = (
    ("InstanceCreation", ""),
    ("Series", ""),
    ("Content", ""),
    ("PresentationCreation", ""),
    ("", "OfSecondaryCapture"),
)
"""What is before and after ``Date`` and ``Time`` in the keywords of the job's time."""
_SEXES = ("M", "F", "O", "")


def finish(made: Dataset, source: Dataset) -> Dataset:
    """Declare the character set after all texts are set: the source's, or UTF-8 if that cannot encode them.

    If undecodable bytes were copied from the source, its character set is declared in any case. An unknown term counts
    as none. A source without a declaration but with letters outside of ASCII was read as Latin-1 (pydicom's rule),
    which writes the same bytes: it is declared as such, because undeclared letters are an error.
    """
    wanted = character_set_terms(source)
    elements = [element for element in made.iterall() if element.VR in CHARACTER_SET_VRS]
    if not (wanted and _has_unreadable(elements)):
        letters = _letters(elements)
        if not wanted and not _fits(letters, ["ISO_IR 6"]):
            wanted = ("ISO_IR 100",)
        if wanted and not _fits(letters, list(wanted)):
            wanted = ("ISO_IR 192",)
    if wanted:
        made.SpecificCharacterSet = list(wanted) if len(wanted) > 1 else wanted[0]
    return made


def _has_unreadable(elements: Iterable[DataElement]) -> bool:
    """Whether undecodable bytes were copied from the source."""
    return any(isinstance(element.value, bytes) or not is_readable(element.value) for element in elements)


def _letters(elements: Iterable[DataElement]) -> frozenset[str]:
    """The letters outside of ASCII."""
    found: set[str] = set()
    for element in elements:
        for value in element.value if element.VM > 1 else [element.value]:
            text = "" if value is None else str(value)
            if not text.isascii():
                found.update(letter for letter in text if not letter.isascii())
    return frozenset(found)


def _fits(letters: frozenset[str], terms: list[str]) -> bool:
    try:
        encodings = convert_encodings(terms)
    except (LookupError, ValueError):
        return False
    if terms == ["ISO_IR 6"]:
        encodings = ["ascii"]
    return all(any(_has(letter, encoding) for encoding in encodings) for letter in letters)


def _has(letter: str, encoding: str) -> bool:
    try:
        letter.encode("latin-1" if encoding == "iso8859" else encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def copy_patient_and_study(source: Dataset, made: Dataset) -> None:
    """Copy the Patient, Patient Study, General Study and Clinical Trial modules; see the module's docstring."""
    for keyword in _IDENTITY:
        if keyword in source:
            made.add(_exact_copy(source[keyword]))
        elif keyword not in ("IssuerOfPatientID", "StudyInstanceUID"):
            setattr(made, keyword, "")
    for keyword in TYPE_2:
        setattr(made, keyword, "")
    copy_valid(source, made, TYPE_2)
    if made.PatientSex not in _SEXES:
        made.PatientSex = ""
    copy_valid(source, made, TYPE_3)


def copy_valid(source: Dataset, made: Dataset, keywords: Iterable[str]) -> None:
    """Copy the attributes that exist, have a value and are valid; see :func:`copied`."""
    for keyword in keywords:
        kept = copied(source, keyword)
        if kept is not None and not is_empty(kept):
            made.add(kept)


def copy_together(source: Dataset, made: Dataset, keywords: Collection[str]) -> bool:
    """Copy attributes that need each other; if one is missing, none is copied and the result is False."""
    found = Dataset()
    copy_valid(source, found, keywords)
    if not keywords or len(found) < len(keywords):
        return False
    made.update(found)
    return True


def copied(source: Dataset, keyword: str) -> DataElement | None:
    """A valid copy of an element of ``source``, or None if that is not possible.

    Several values of a single-valued attribute are a text with a backslash: they are joined by a slash. An undecodable
    text is copied as bytes.
    """
    if keyword not in source:
        return None
    element = source[keyword]
    limit = _DESCRIPTIONS.get(element.VR)
    if element.VM > 1 and limit is not None and _most_values(element) == 1:
        element = DataElement(element.tag, element.VR, _joined(element.value)[:limit])
    return _exact_copy(element) if is_valid(element) else None


def _exact_copy(element: DataElement) -> DataElement:
    """An exact copy of an attribute; an undecodable text is copied as bytes."""
    if isinstance(element.value, UnreadableText):
        return DataElement(element.tag, element.VR, element.value.octets)
    return deepcopy(element)


def text_of(dataset: Dataset, keyword: str, between: str = "/") -> str:
    """A value as one text; several values are joined by ``between``; empty if there is none.

    Joined by a backslash, an identifier is the same as in the data set (PS3.5 6.4).
    """
    value = dataset.get(keyword)
    return _joined(value, between) if isinstance(value, MultiValue) else str(value or "")


def _joined(values: Iterable[object], between: str = "/") -> str:
    return between.join(str(value).strip() for value in values)


def _most_values(element: DataElement) -> int | None:
    """Maximum number of values of the attribute (PS3.6); None for any number."""
    try:
        most = dictionary_VM(element.tag).split("-")[-1]
    except KeyError:
        return None
    return int(most) if most.isdigit() else None


def is_empty(element: DataElement) -> bool:
    """Whether the element has no value."""
    return element.value is None or element.value == "" or (element.VR == "SQ" and not element.value)


def is_valid(element: DataElement) -> bool:
    """Whether an attribute, including nested ones, is valid.

    It must have the value representation and multiplicity of PS3.6, and each value must conform to PS3.5 6.2.
    """
    if not is_as_promised(element):
        return False
    if element.VR == "SQ":
        return all(is_valid(inner) for item in element.value for inner in item)
    values = element.value if element.VM > 1 else [element.value]
    try:
        for value in values:
            plain = (
                str(value) if isinstance(value, PersonName) or element.VR in ("DS", "IS", "DA", "TM", "DT") else value
            )
            if plain is not None and plain != "None":
                validate_value(element.VR, plain, config.RAISE)
    except (ValueError, TypeError):
        return False
    return True


def items_of(dataset: Dataset) -> Iterator[Dataset]:
    """Every item below ``dataset``, those of an item behind it."""
    for tag, element in list(dataset.items()):  # without sorting, and without looking at each value
        if element.VR == "SQ":
            for item in dataset[tag].value:
                yield item
                yield from items_of(item)


def orientation_values(source: Dataset) -> list[str]:
    """Patient Orientation of an object on the grid of ``source`` (PS3.3 C.7.6.1.1.1); empty if it is unknown."""
    value = source.get("PatientOrientation")
    if value and not isinstance(value, str) and len(value) == 2 and is_valid(source["PatientOrientation"]):
        return [str(direction) for direction in value]
    return []


def set_lossy(source: Dataset, made: Dataset) -> None:
    """What is made from a lossy image is lossy itself (PS3.3 C.7.6.1.1.5); ratio and method are the source's."""
    made.LossyImageCompression = "01" if source.get("LossyImageCompression") == "01" else "00"
    if made.LossyImageCompression == "01":
        copy_valid(source, made, ("LossyImageCompressionRatio", "LossyImageCompressionMethod"))


def local_time(source: Dataset, moment: datetime) -> datetime:
    """``moment`` in the time zone that the source declares (PS3.3 C.12.1), else unchanged."""
    offset = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    if len(offset) == 5 and offset[0] in "+-" and offset[1:].isdecimal() and offset[3:] < "60":
        minutes = int(offset[1:3]) * 60 + int(offset[3:])
        if minutes <= 14 * 60:
            zone = timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
            return moment.astimezone(zone)
    return moment


def long_string(text: str) -> str:
    """``text`` as one LO value (PS3.5 6.2): at most 64 characters and no backslash."""
    return text.replace("\\", "/")[:64]


def set_times(source: Dataset, made: Dataset, created_at: datetime) -> None:
    """Set dates and times of the instance and its series (PS3.3 C.12.1, C.7.3.1), and those that ``made`` has of its
    content.

    Timezone Offset From UTC (0008,0201) says of every DA and TM of an object what zone it is in (PS3.3 C.12.1.1.8), of
    the study's, which are copied, as well. So it is copied where the source has it, and our times are converted to it.
    Where the source has none, the study's times are in a zone that it does not tell: an offset of ours would shift
    them, and there is none. Our own times are then in the zone of ``created_at``."""
    moment = local_time(source, created_at)
    if moment.tzinfo is not created_at.tzinfo and is_valid(source["TimezoneOffsetFromUTC"]):
        made.TimezoneOffsetFromUTC = source.TimezoneOffsetFromUTC
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")
    for before, after in _MOMENTS:
        if f"{before}Date{after}" in made or before == "Series":
            setattr(made, f"{before}Date{after}", date)
            setattr(made, f"{before}Time{after}", time)
