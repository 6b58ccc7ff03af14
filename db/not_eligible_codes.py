"""Why a header makes an image not eligible for analysis, and what each reason means for the study: one table.

The rules that give these reasons are in :mod:`node.dicom.eligibility`, those of the site in :mod:`workers.routing`;
triage, results and the database ask what a reason means. The worker's input quality check (:mod:`models.gate`) has
reasons of its own.
"""

from __future__ import annotations

from enum import StrEnum


class NotEligibleCode(StrEnum):
    """Every reason that a header can give. A new one needs a rule and its place in the sets below."""

    OWN_RESULT = "own-result"
    NOT_AN_IMAGE = "not-an-image"
    OTHER_CLASS = "other-image-class"
    OTHER_MODALITY = "other-modality"
    FOR_PROCESSING = "for-processing"
    SCANNED_DOCUMENT = "scanned-document"
    DERIVED = "derived-image"
    QUALITY_CONTROL = "quality-control-image"
    COLOUR = "colour-image"
    MULTI_FRAME = "multi-frame"
    TOO_SMALL = "too-small"
    NOT_A_CHEST = "not-a-chest"
    BODY_PART_UNKNOWN = "body-part-unknown"
    NOT_FRONTAL = "not-frontal"
    TOO_YOUNG = "too-young"
    AGE_UNKNOWN = "age-unknown"
    EXCLUDED_BY_RULE = "excluded-by-rule"


_Code = NotEligibleCode

NO_CHEST_RADIOGRAPH = frozenset(
    {
        *(_Code.NOT_A_CHEST, _Code.OTHER_MODALITY, _Code.OTHER_CLASS, _Code.NOT_AN_IMAGE, _Code.OWN_RESULT),
        *(_Code.SCANNED_DOCUMENT, _Code.QUALITY_CONTROL),
    }
)
"""The header says plainly that this is no chest radiograph: nobody waits for its analysis."""

MAY_BE_CHEST = frozenset(
    {
        *(_Code.FOR_PROCESSING, _Code.COLOUR, _Code.MULTI_FRAME, _Code.TOO_SMALL, _Code.NOT_FRONTAL),
        *(_Code.TOO_YOUNG, _Code.AGE_UNKNOWN, _Code.EXCLUDED_BY_RULE),
    }
)
"""The rule comes after those about the body part: the image may well show a chest, and its study gets a result that
says *not analysed*."""

UNDECIDED = frozenset({_Code.BODY_PART_UNKNOWN, _Code.DERIVED})
"""Neither of the two: nothing says what the image shows, or it is made of one that is analysed itself."""

FOR_A_READER = frozenset(
    {
        *(_Code.NOT_FRONTAL, _Code.NOT_A_CHEST, _Code.BODY_PART_UNKNOWN, _Code.TOO_SMALL),
        *(_Code.TOO_YOUNG, _Code.AGE_UNKNOWN, _Code.EXCLUDED_BY_RULE),
    }
)
"""A radiograph that a radiologist reads all the same: one that comes after the report brings its study back."""
