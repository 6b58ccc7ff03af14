"""Reports that arrive as DICOM objects: they mark their study as reported.

Not every document is a report. Dose reports, measurements and the results of other algorithms are Structured Reports
too, and request forms are encapsulated PDF. By default only signed reports count: a Structured Report that is complete
and verified (PS3.3 C.17.2), with a text class or a LOINC code as its title (titles of imaging reports are LOINC codes,
PS3.16 CID 7000, those of measurements are not); and an encapsulated document (PS3.3 C.24.2) whose title matches the
configured patterns.
"""

from __future__ import annotations

import re

from pydicom import Dataset, uid

from config.triage import Triage
from db.not_eligible_codes import NotEligibleCode
from db.records import NotEligible

_TEXTS = frozenset({uid.BasicTextSRStorage, uid.EnhancedSRStorage})
_MIXED = frozenset({uid.ComprehensiveSRStorage, uid.Comprehensive3DSRStorage, uid.ExtensibleSRStorage})
_ENCAPSULATED = frozenset({uid.EncapsulatedPDFStorage, uid.EncapsulatedCDAStorage})
_LOINC = frozenset({"LN", "2.16.840.1.113883.6.1"})


def may_report(sop_class_uid: str, not_eligible: NotEligible | None, rules: Triage) -> bool:
    """Whether an object of this class may be a report of its study under ``rules``. Results of this node are not."""
    if rules.report_objects == "ignore" or (
        not_eligible is not None and not_eligible.code == NotEligibleCode.OWN_RESULT
    ):
        return False
    return sop_class_uid in _TEXTS | _MIXED | _ENCAPSULATED


def is_report(document: Dataset, rules: Triage) -> bool:
    """Whether ``document`` is a report of its study under ``rules``."""
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
