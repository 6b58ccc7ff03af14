"""Reports that arrive as DICOM objects: by them a study is known to be read.

Not every document is a report. Dose reports, measurements and the results of other algorithms travel as Structured
Reports too, and request forms as encapsulated PDF. So what counts by default is what a person has signed: a Structured
Report that is complete and verified (PS3.3 C.17.2), whose class is one for text or whose title is a LOINC code, as the
titles of imaging reports are (PS3.16 CID 7000) and those of measurements are not; and an encapsulated document (PS3.3
C.24.2) whose title says that it is a report.
"""

from __future__ import annotations

import logging
import re
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydicom import Dataset, dcmread, uid

from config.settings import Triage
from db.records import ReceivedInstance, Refusal
from node.assessment import read_assessment
from node.eligibility import RefusalCode

log = logging.getLogger(__name__)

_TEXTS = frozenset({uid.BasicTextSRStorage, uid.EnhancedSRStorage})
_MIXED = frozenset({uid.ComprehensiveSRStorage, uid.Comprehensive3DSRStorage, uid.ExtensibleSRStorage})
_ENCAPSULATED = frozenset({uid.EncapsulatedPDFStorage, uid.EncapsulatedCDAStorage})
_LOINC = frozenset({"LN", "2.16.840.1.113883.6.1"})
_HEADER = (
    "SOPClassUID",
    "SeriesDescription",
    "DocumentTitle",
    "CompletionFlag",
    "VerificationFlag",
    "PreliminaryFlag",
    "ConceptNameCodeSequence",
)


class ReportedList(Protocol):
    """What taking a report needs of :class:`db.worklist.Worklist`."""

    def report_by_object(self, instance_id: int, actor: str, now: datetime) -> bool:
        """Mark the study of this instance as reported; False where nothing has changed."""


def take_report(
    worklist: ReportedList,
    path: Path,
    received: ReceivedInstance,
    refusal: Refusal | None,
    instance_id: int,
    rules: Triage,
    now: datetime,
) -> None:
    """Mark the study as reported where the received object (at ``path``) is a report of it.

    A repeat does it again, for the node may have died between recording the instance and this; what was done once for
    an instance is not done twice.
    """
    if rules.report_objects == "ignore" or received.sop_class_uid not in _TEXTS | _MIXED | _ENCAPSULATED:
        return
    if refusal is not None and refusal.code == RefusalCode.OWN_RESULT:
        return
    try:
        document = dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER))
        counts = is_report(document, rules) and not _assesses(path, received)
    except Exception as error:  # a parser of hostile bytes fails in every way there is
        log.error("instance %d is a document that cannot be read: %s", instance_id, type(error).__name__)
        return
    if counts and worklist.report_by_object(instance_id, received.calling_ae_title, now):
        log.info("instance %d is a report; its study leaves the worklist", instance_id)


def is_report(document: Dataset, rules: Triage) -> bool:
    """Say whether ``document`` tells that its study was read, under ``rules``."""
    if _value(document, "PreliminaryFlag") == "PRELIMINARY":
        return False
    sop_class = _value(document, "SOPClassUID")
    if sop_class in _ENCAPSULATED:
        return _value(document, "VerificationFlag") != "UNVERIFIED" and _is_titled_report(document, rules)
    if sop_class not in _TEXTS and not (sop_class in _MIXED and _is_loinc(document)):
        return False
    flags = (_value(document, "CompletionFlag"), _value(document, "VerificationFlag"))
    return rules.report_objects == "any" or flags == ("COMPLETE", "VERIFIED")


def _is_titled_report(document: Dataset, rules: Triage) -> bool:
    titles = [_value(document, "DocumentTitle"), _value(document, "SeriesDescription"), _concept(document)[1]]
    named = any(re.search(pattern, title, re.IGNORECASE) for pattern in rules.report_titles for title in titles)
    return named or _is_loinc(document)


def _is_loinc(document: Dataset) -> bool:
    return _concept(document)[0] in _LOINC


def _concept(document: Dataset) -> tuple[str, str]:
    """Scheme and meaning of the coded title."""
    names = document.get("ConceptNameCodeSequence") or [Dataset()]
    return _value(names[0], "CodingSchemeDesignator"), _value(names[0], "CodeMeaning")


def _value(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()


def _assesses(path: Path, received: ReceivedInstance) -> bool:
    """A verdict on a finding of ours is no report of the study."""
    return received.sop_class_uid not in _ENCAPSULATED and read_assessment(path) is not None
