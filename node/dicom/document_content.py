"""The content of a received document: a rejection note, an assessment of findings, or a report of the study.

:func:`read_document_content` reads it before anything is recorded; :mod:`node.dicom.receiving` records it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from config.triage import Triage
from db.assessments import Assessment
from db.not_eligible_codes import NotEligibleCode
from db.records import NotEligible, ReceivedInstance, RejectionNote
from models.radiograph.bounded_source import InvalidDataSetError
from node.dicom.assessment_sr import assessment_of, may_assess
from node.dicom.received_documents import read_document
from node.dicom.rejection_notes import is_key_object, rejection_of
from node.dicom.report_objects import is_report, may_report


@dataclass(frozen=True, slots=True)
class DocumentContent:
    """Content of a document. ``unreadable`` is the reason if a possible document could not be read."""

    rejection: RejectionNote | None = None
    assessment: Assessment | None = None
    reported: bool = False
    unreadable: str = ""


NO_CONTENT = DocumentContent()


def read_document_content(
    path: Path | str, received: ReceivedInstance, not_eligible: NotEligible | None, rules: Triage
) -> DocumentContent:
    """Read the document at ``path``; ``NO_CONTENT`` if its SOP class is none of these documents."""
    # A rejection note of this node that comes back was meant for the archive.
    own = not_eligible is not None and not_eligible.code == NotEligibleCode.OWN_RESULT
    is_key = is_key_object(received.sop_class_uid) and not own
    assesses = may_assess(received.sop_class_uid)
    reports = may_report(received.sop_class_uid, not_eligible, rules)
    if not (is_key or assesses or reports):
        return NO_CONTENT
    try:
        document = read_document(Path(path))
        if is_key:
            return DocumentContent(rejection=rejection_of(document))
        assessment = assessment_of(document) if assesses else None
        # An assessment of our findings is not a report of the study.
        return DocumentContent(
            assessment=assessment, reported=reports and assessment is None and is_report(document, rules)
        )
    except InvalidDataSetError as error:
        return DocumentContent(unreadable=str(error))
    except Exception as error:  # pydicom may raise anything on a malformed value
        return DocumentContent(unreadable=type(error).__name__)
