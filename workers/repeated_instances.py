"""Whether two received data sets under one SOP Instance UID are the same object.

The same image may come from modality and archive, each in its own transfer syntax, with what a router adds: that is a
repeat. So what is compared is what the data sets mean: who and what they belong to, what the pixel values stand for,
and the decoded pixels; of an object without pixels, its content. Encoded bytes are looked at only where they agree,
because then nothing need be decoded. A lossy copy has other pixels, and is another image.

An empty value contradicts nothing, for archives fill in what modalities leave out. Patient ID and name are the
exception: an image that had none, and now has one, has been given to a patient since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from db.patients import plain_text
from models.radiograph.data_set import MALFORMED
from models.radiograph.decode import MAXIMUM_PIXELS, StoredPixels, UnreadablePixels, decode, read_file

_PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_LITTLE_ENDIAN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)

_SAME_AND_THERE = ("PatientID", "PatientName")
_SAME_WHERE_BOTH_SAY = (
    "SOPClassUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "Modality",
)
"""Attributes of identity (PS3.3 C.7.1.1, C.7.2.1, C.7.3.1)."""

_MEANING = (
    "ImageType",
    "PresentationIntentType",
    "BodyPartExamined",
    "ViewPosition",
    "PatientOrientation",
    "ImageLaterality",
    "Laterality",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelRepresentation",
    "BitsStored",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelAspectRatio",
    "EstimatedRadiographicMagnificationFactor",
    "RescaleSlope",
    "RescaleIntercept",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
)
"""What the analysis reads of an image beside its pixels: a flipped Patient Orientation is not the same image."""

_ADDED_ON_THE_WAY = frozenset(
    {
        "SpecificCharacterSet",
        "InstanceAvailability",
        "RetrieveAETitle",
        "RetrieveURL",
        "RetrieveURI",
        "RetrieveLocationUID",
        "StationAETitle",
        "StorageMediaFileSetID",
        "StorageMediaFileSetUID",
        "ContributingEquipmentSequence",
        "OriginalAttributesSequence",
        "DataSetTrailingPadding",
    }
)
"""What archives and routers write into objects that they pass on: where they lie, and what was coerced."""


def difference(before: Path, after: Path, threads: int = 1, maximum_pixels: int = MAXIMUM_PIXELS) -> str:
    """Say in what two DICOM files differ, in words for a person and without a value; empty where one repeats the other.

    ``threads`` and ``maximum_pixels`` are those of :func:`models.radiograph.decode.decode`.

    Raises:
        OSError: one of them cannot be read now, though it is there.
    """
    if not before.exists():
        return "the file of the earlier one has been removed"
    try:
        first, second = read_file(before), read_file(after)
    except UnreadablePixels as error:
        return f"they cannot be compared: {error}"
    return _differing_attributes(first, second) or _differing_content(
        first, second, lambda each: decode(each, threads, maximum_pixels)
    )


def _differing_attributes(first: Dataset, second: Dataset) -> str:
    wrong = [name for name in _SAME_AND_THERE if _text(first, name) != _text(second, name)]
    wrong += [
        name
        for name in (*_SAME_WHERE_BOTH_SAY, *_MEANING, *_monochrome(first, second))
        if (here := _text(first, name)) and (there := _text(second, name)) and here != there
    ]
    return f"other {', '.join(wrong)}" if wrong else ""


def _monochrome(first: Dataset, second: Dataset) -> tuple[str, ...]:
    """White and black may be exchanged; the colour spaces of a colour image follow its encoding."""
    grey = any(_text(each, "PhotometricInterpretation").startswith("monochrome") for each in (first, second))
    return ("PhotometricInterpretation",) if grey else ()


def _text(dataset: Dataset, keyword: str) -> str:
    """A value for comparison: without padding and, but for identifiers, without case; empty where it says nothing."""
    value = _guarded(lambda: dataset.get(keyword))
    if value is None:
        return ""
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(_number(str(each)) for each in value)
    text = str(value).strip(" \0")
    return text if keyword.endswith(("ID", "UID", "Number")) else _number(plain_text(text))


def _number(text: str) -> str:
    """One spelling for equal numbers (a decimal string may be 0.2 or 0.200); other text as it is."""
    try:
        return repr(float(text))
    except ValueError:
        return text.strip(" \0").casefold()


def _guarded(read: Callable[[], object]) -> object:
    """A value that cannot be converted says nothing."""
    try:
        return read()
    except MALFORMED:
        return None


def _differing_content(first: Dataset, second: Dataset, stored: Callable[[Dataset], StoredPixels]) -> str:
    here, there = _pixel_data(first), _pixel_data(second)
    if here is None and there is None:
        return _differing_elements(first, second)
    if here is None or there is None:
        return "only one of them has pixel data"
    if here == there:
        return ""
    try:
        same = _same_pixels(stored(first), stored(second))
    except UnreadablePixels as error:
        return f"their pixels cannot be compared: {error}"
    return "" if same else "other pixels"


def _pixel_data(dataset: Dataset) -> tuple[str, bytes] | None:
    """The encoded pixels without padding, and how they are encoded: the native little endian syntaxes do it alike."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    for keyword in _PIXEL_DATA:
        if keyword in dataset:
            encoding = "little endian" if syntax in _LITTLE_ENDIAN else str(syntax)
            return f"{keyword}, {encoding}", bytes(dataset[keyword].value or b"").rstrip(b"\0")
    return None


def _same_pixels(first: StoredPixels, second: StoredPixels) -> bool:
    same_kind = (first.bits, first.signed) == (second.bits, second.signed)
    return same_kind and np.array_equal(first.codes, second.codes)


def _differing_elements(first: Dataset, second: Dataset) -> str:
    """Compare two objects without pixels (a report, a presentation state) element by element."""
    here, there = dict(_content(first)), dict(_content(second))
    wrong = [tag for tag in sorted(here.keys() | there.keys()) if not _alike(here.get(tag), there.get(tag))]
    return f"other content of {keyword_for_tag(wrong[0]) or wrong[0]}" if wrong else ""


def _content(dataset: Dataset) -> Iterator[tuple[BaseTag, DataElement]]:
    """Elements that say something: no group lengths, no private ones, nothing that is added on the way."""
    for tag in list(dataset.keys()):
        if tag.is_private or tag.element == 0 or keyword_for_tag(tag) in _ADDED_ON_THE_WAY:
            continue
        element = _guarded(partial(dataset.__getitem__, tag))
        if isinstance(element, DataElement) and not element.is_empty:
            yield tag, element


def _alike(here: DataElement | None, there: DataElement | None) -> bool:
    if here is None or there is None:
        return False
    if here.VR != "SQ" or there.VR != "SQ":
        return _plain(here) == _plain(there)
    pairs = zip(here.value, there.value, strict=False)
    return len(here.value) == len(there.value) and not any(_differing_elements(*pair) for pair in pairs)


def _plain(element: DataElement) -> object:
    value = element.value
    if isinstance(value, bytes):
        return value.rstrip(b"\0")
    return [_number(str(each)) for each in value] if isinstance(value, MultiValue) else _number(str(value))
