"""Reads the content of our reports (PS3.16 TID 1500) with highdicom, back to words and numbers."""

from __future__ import annotations

from collections.abc import Iterator

import highdicom as hd
from pydicom.dataset import Dataset

from models.model_spec import Code
from workers.results import codes
from workers.results.amend import concept
from workers.results.readings import BrokenResult, ReadReference, ReadStatement

_ANSWERS = {
    codes.PRESENT.value: "present",
    codes.NOT_DETECTED.value: "not detected",
    codes.ABSENT.value: "absent",
    codes.UNDETERMINED.value: "not determined",
}


def measurement_groups(report: Dataset) -> list[hd.sr.ContentSequence]:
    """The items of each measurement group, of those about the whole image that stand beside an outline, too.

    Raises:
        BrokenResult: the content is not that of a report.
    """
    try:
        (root,) = hd.sr.ContentSequence.from_sequence([_root(report)], is_root=True)
    except (AttributeError, TypeError, ValueError) as error:
        raise BrokenResult(f"the content of the report cannot be read: {error}") from error
    sections = [*_find(root, codes.IMAGING_MEASUREMENTS), *_find(root, codes.QUALITATIVE_EVALUATIONS)]
    return [group.ContentSequence for section in sections for group in _find(section, codes.MEASUREMENT_GROUP)]


def frames(group: hd.sr.ContentSequence) -> Iterator[ReadReference]:
    """The frames that a group references, with its tracking UID."""
    for item in group:
        if isinstance(item, hd.sr.ImageContentItem):
            for frame in item.referenced_frame_numbers or ():
                sop_class_uid, sop_instance_uid = map(str, item.value)
                uid = _text(group, codes.TRACKING_UNIQUE_IDENTIFIER)
                yield ReadReference(sop_class_uid, sop_instance_uid, frame, uid)


def statement(group: hd.sr.ContentSequence) -> ReadStatement:
    """What a measurement group says."""
    coded = [item for item in group if isinstance(item, hd.sr.CodeContentItem)]
    probabilities = [item.value for item in group.find(concept(codes.PROBABILITY))]
    algorithm = (_text(group, codes.ALGORITHM_NAME), _text(group, codes.ALGORITHM_VERSION))
    areas = group.find(concept(codes.AREA))
    statuses = [*group.find(concept(codes.PRIORITY)), *group.find(concept(codes.SUMMARY_OF_ANALYSES))]
    return ReadStatement(
        label=_text(group, codes.TRACKING_IDENTIFIER),
        tracking_uid=_text(group, codes.TRACKING_UNIQUE_IDENTIFIER),
        answers=tuple(
            (str(item.name.meaning), _ANSWERS[item.value.value]) for item in coded if item.value.value in _ANSWERS
        ),
        probability=probabilities[0] if probabilities else None,
        area=" ".join(f"{item.value:g} {item.unit.value}" for item in areas),
        side=_side(group),
        status=" ".join(str(item.value.meaning) for item in statuses),
        algorithm=" ".join(algorithm).strip(),
        points=sum(len(item.value) for item in group.find(concept(codes.IMAGE_REGION))),
        comment=_text(group, codes.COMMENT),
    )


def _root(report: Dataset) -> Dataset:
    """The root of the content, which in a document lies between the attributes of all the other modules."""
    keywords = ("ConceptNameCodeSequence", "ContentSequence", "ContinuityOfContent", "ValueType")
    return Dataset({report[keyword].tag: report[keyword] for keyword in keywords if keyword in report})


def _find(item: Dataset, name: Code) -> hd.sr.ContentSequence:
    content = item.get("ContentSequence")
    return content.find(concept(name)) if isinstance(content, hd.sr.ContentSequence) else hd.sr.ContentSequence()


def _text(group: hd.sr.ContentSequence, name: Code) -> str:
    return next((str(item.value) for item in group.find(concept(name))), "")


def _side(group: hd.sr.ContentSequence) -> str:
    """The side of a finding; empty where its sites are on both, or none is named."""
    sites = group.find(concept(codes.FINDING_SITE))
    sides = {str(side.value.meaning) for site in sites for side in _find(site, codes.LATERALITY)}
    return sides.pop() if len(sides) == 1 else ""
