"""Reading received documents (Structured Reports, key objects, encapsulated documents) once and within limits.

Only the attributes that matter for a study are read. A document is read before anything is recorded and outside of
every other lock, so large or hostile documents delay only other documents.
"""

from __future__ import annotations

import threading
from pathlib import Path

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from models.radiograph.bounded_source import Limits
from models.radiograph.data_set import read_path

LIMITS = Limits(inflated_bytes=16 * 1024 * 1024, elements=100_000, depth=32, value_bytes=64 * 1024, seconds=5.0)
"""A signed report has some hundred elements, the largest assessments and rejection notes some ten thousand."""

_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesDescription",
    "DocumentTitle",
    "CompletionFlag",
    "VerificationFlag",
    "PreliminaryFlag",
    "AuthorObserverSequence",
    "VerifyingObserverSequence",
    "VerifyingObserverName",
    "PersonName",
    "CurrentRequestedProcedureEvidenceSequence",
    "PertinentOtherEvidenceSequence",
    "ReferencedSeriesSequence",
    "ReferencedSOPSequence",
    "ReferencedSOPInstanceUID",
    "ContentSequence",
    "ValueType",
    "ConceptNameCodeSequence",
    "ConceptCodeSequence",
    "CodeValue",
    "LongCodeValue",
    "URNCodeValue",
    "CodingSchemeDesignator",
    "CodeMeaning",
    "UID",
    "TextValue",
)
_TAGS = frozenset(tag for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None)
# Reading several documents at once would multiply the memory that one needs.
_one_at_a_time = threading.Lock()


def read_document(path: Path) -> Dataset:
    """Read the needed attributes of the document at ``path``.

    Raises:
        InvalidDataSetError: it is not a data set, or exceeds the limits.
        OSError: the file cannot be read.
    """
    with _one_at_a_time:
        return read_path(path, LIMITS, _TAGS)
