"""Rejection notes: Key Object Selections by which a hospital rejects images (IHE RAD TF, IOCM).

The document title is the reason (PS3.16 CID 7011), and its evidence (0040,A375) names the images (PS3.3 C.17.6.2).
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset, uid

from db.records import RejectionNote
from models.radiograph.bounded_source import InvalidDataSetError

REASONS = {
    "113001": "The hospital has rejected this image for quality reasons.",
    "113037": "The hospital has rejected this image for patient safety reasons.",
    "113038": "The hospital has rejected this image: it was made under an incorrect modality worklist entry.",
    "113039": "The hospital has rejected this image: its data retention time is over.",
}
"""Code value (DCM) of the document title, and the reason that is shown for an image."""

# More images than any study has, and fewer than a database takes in one query.
_MOST_IMAGES = 10_000


class InvalidRejectionError(InvalidDataSetError):
    """The document is a rejection note, but it cannot be applied."""


def is_key_object(sop_class_uid: str) -> bool:
    """Whether an instance of this class may be a rejection note."""
    return sop_class_uid == uid.KeyObjectSelectionDocumentStorage


def rejection_of(document: Dataset) -> RejectionNote | None:
    """Make a rejection note from a document; None if it is a key object with another title.

    Raises:
        InvalidRejectionError: it names no image, or too many.
    """
    code = _title(document)
    if code not in REASONS:
        return None
    instances = tuple(dict.fromkeys(_instances(document)))
    if not instances:
        raise InvalidRejectionError("a rejection note names no image")
    if len(instances) > _MOST_IMAGES:
        raise InvalidRejectionError(f"a rejection note names more than {_MOST_IMAGES} images")
    return RejectionNote(str(document.SOPInstanceUID), code, REASONS[code], instances)


def _title(document: Dataset) -> str:
    names = document.get("ConceptNameCodeSequence") or []
    values = [str(name.get("CodeValue", "")) for name in names if name.get("CodingSchemeDesignator") == "DCM"]
    return values[0] if values else ""


def _instances(document: Dataset) -> Iterator[str]:
    for study in document.get("CurrentRequestedProcedureEvidenceSequence") or []:
        for series in study.get("ReferencedSeriesSequence") or []:
            for item in series.get("ReferencedSOPSequence") or []:
                yield str(item.ReferencedSOPInstanceUID)
