"""The comparison with a prior, as a sentence and as groups of a report (PS3.16 TID 1501)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import highdicom as hd

from workers.results import codes
from workers.results.amend import concept
from workers.results.content_items import CONTAINS, Group, evaluation, measurement, with_comment
from workers.results.finding_text import square_value
from workers.results.header import RESEARCH_USE
from workers.results.identity import Identity
from workers.results.study_account import Change, ChangeKind, Comparison, Extent

_CODES = {
    ChangeKind.NEW: codes.NEW_FINDING,
    ChangeKind.KNOWN: codes.PREVIOUS_FINDING,
    ChangeKind.LARGER: codes.INCREASE_IN_SIZE,
    ChangeKind.SMALLER: codes.DECREASE_IN_SIZE,
}


def comparison_sentence(comparison: Comparison) -> str:
    """All changes in one sentence: ``Compared with 2026-01-02: pneumothorax right larger (12 % of the lung …).``"""
    return f"Compared with {_day(comparison)}: {'; '.join(map(_words, comparison.changes))}."


def comparison_groups(comparison: Comparison, identity: Identity) -> Iterator[Group]:
    """A group for each change with the area now, and one for the prior: its date, UID, images, and the areas then."""
    for number, change in enumerate(comparison.changes, start=1):
        name = f"AI: change of {change.words}"
        group = hd.sr.MeasurementsAndQualitativeEvaluations(
            hd.sr.TrackingIdentifier(identity.uid("summary", f"tracking:change:{number}"), name),
            qualitative_evaluations=[
                evaluation(change.code, codes.PRESENT),
                evaluation(codes.DESCRIPTION_OF_CHANGE, _CODES[change.kind]),
            ],
            measurements=_area(change.now),
        )
        comment = f"Compared with {_day(comparison)}: {_words(change)}."
        yield with_comment(group, comment, RESEARCH_USE)
    yield _prior_group(comparison, identity)


def _prior_group(comparison: Comparison, identity: Identity) -> Group:
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(identity.uid("summary", "tracking:prior"), "AI: prior study")
    )
    content = group[0].ContentSequence
    day = datetime.strptime(comparison.study_date, "%Y%m%d").date()
    content.append(hd.sr.DateContentItem(concept(codes.STUDY_DATE), day, CONTAINS))
    content.append(hd.sr.UIDRefContentItem(concept(codes.STUDY_INSTANCE_UID), comparison.study_instance_uid, CONTAINS))
    for change in comparison.changes:
        # One after the other, as in the groups of images: nothing else ties a number to its finding.
        if change.before is not None:
            content.extend(evaluation(change.code, codes.PRESENT))
            for each in _area(change.before):
                content.extend(each)
    with_comment(group, f"The film of {_day(comparison)}, for comparison.")
    for image in comparison.images:
        uids = (image.sop_class_uid, image.sop_instance_uid)
        content.append(hd.sr.ImageContentItem(concept(codes.TEMPORAL_PREDECESSOR), *uids, relationship_type=CONTAINS))
    return group


def _area(extent: Extent) -> list[hd.sr.Measurement]:
    return [] if extent.area_mm2 is None else [measurement(codes.AREA, *square_value(extent.area_mm2))]


def _words(change: Change) -> str:
    return " ".join(filter(None, (change.words, change.place, change.kind.value, _sizes(change))))


def _sizes(change: Change) -> str:
    """Both sizes, by what both films know: the share of the lung, and the area."""
    if change.before is None:
        return ""
    then, now = change.before, change.now
    parts = []
    if then.lung_share is not None and now.lung_share is not None:
        parts.append(f"{_percent(then.lung_share)} of the lung then, {_percent(now.lung_share)} now")
    if then.area_mm2 is not None and now.area_mm2 is not None:
        parts.append(f"{then.area_mm2 / 100:.1f} cm² then, {now.area_mm2 / 100:.1f} cm² now")
    return f"({'; '.join(parts)})" if parts else ""


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"


def _day(comparison: Comparison) -> str:
    day = comparison.study_date
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"
