"""What a received object says beyond its header: that images are rejected, a finding assessed, a study reported.

:func:`read_said` reads it, before anything is recorded; recording it is :mod:`node.dicom.receiving`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from config.settings import Triage
from db.assessments import Assessment
from db.records import NotEligible, ReceivedInstance, RejectionNote
from models.radiograph.data_set import InvalidDataSetError
from node.dicom.assessment_sr import assessment_of, may_assess
from node.dicom.eligibility import NotEligibleCode
from node.dicom.received_documents import read_document
from node.dicom.rejection_notes import is_key_object, rejection_of
from node.dicom.report_objects import is_report, may_report


@dataclass(frozen=True, slots=True)
class Said:
    """What an object says; ``unreadable`` is why nothing could be read of one that might say something."""

    rejection: RejectionNote | None = None
    assessment: Assessment | None = None
    reported: bool = False
    unreadable: str = ""


NOTHING = Said()


def read_said(path: Path, received: ReceivedInstance, not_eligible: NotEligible | None, rules: Triage) -> Said:
    """Read what the object at ``path`` says; nothing where its class can say nothing."""
    # A note of ours that comes back has said what it says where it was sent.
    own = not_eligible is not None and not_eligible.code == NotEligibleCode.OWN_RESULT
    is_key = is_key_object(received.sop_class_uid) and not own
    assesses = may_assess(received.sop_class_uid)
    reports = may_report(received.sop_class_uid, not_eligible, rules)
    if not (is_key or assesses or reports):
        return NOTHING
    try:
        document = read_document(path)
        if is_key:
            return Said(rejection=rejection_of(document))
        assessment = assessment_of(document) if assesses else None
        # A verdict on a finding of ours is no report of the study.
        return Said(assessment=assessment, reported=reports and assessment is None and is_report(document, rules))
    except InvalidDataSetError as error:
        return Said(unreadable=str(error))
    except Exception as error:  # pydicom converts hostile values, and fails in every way there is
        return Said(unreadable=type(error).__name__)
