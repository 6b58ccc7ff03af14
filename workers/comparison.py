"""Change of a finding since the last prior: new, known, larger or smaller. Pure decisions (docs/priors.md).

In doubt nothing is claimed: a size is compared only where side, view and lungs allow it, and there is no statement on a
finding whose side is unknown, which the prior was not analysed for, or which is not seen any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from db.records import ComparableFinding, FindingRecord, PriorStudy
from models.model_spec import Code
from models.radiograph.views import View, frontal_view
from workers.laterality import NO_PLACE, UNKNOWN, place_text
from workers.results.study_account import Change, ChangeKind, Comparison, Extent, Reference

LEAST_RATIO = 2.0
LEAST_DIFFERENCE = 0.05
"""Shares of the lung are equal unless they differ by this factor, and by this much. ``benchmarks.repeatability`` has
the noise: 95 % of pairs of films on which nothing has changed differ by less than a factor of 1.6."""

_SIDES = {"left": {"left"}, "right": {"right"}, "both": {"left", "right"}}


def compare(
    findings: Sequence[ComparableFinding], prior: PriorStudy, codes: Mapping[str, Code], parents: Mapping[str, str]
) -> Comparison | None:
    """Compare the findings of a study with those of a prior; None where there is nothing to say.

    ``codes`` are those of the labels that may leave the node, ``parents`` what each label is part of: a whole whose
    part is present is not compared.
    """
    present = [one for one in findings if one.finding.present and not one.rejected]
    wholes = {parents.get(one.finding.label, "") for one in present}
    changes, compared = list[Change](), list[ComparableFinding]()
    for label in dict.fromkeys(one.finding.label for one in present):
        then = [one for one in prior.findings if one.finding.label == label]
        if label in codes and label not in wholes and then:
            change, films = _change([one for one in present if one.finding.label == label], then, codes[label])
            changes += [] if change is None else [change]
            compared += [] if change is None else films
    if not changes:
        return None
    images = (Reference(one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid) for one in compared)
    return Comparison(prior.study_instance_uid, prior.study_date, tuple(dict.fromkeys(images)), tuple(changes))


def _largest(findings: Iterable[ComparableFinding]) -> ComparableFinding:
    return max(findings, key=lambda one: (one.finding.lung_share or 0.0, one.finding.probability or 0.0))


def _change(
    found: Sequence[ComparableFinding], then: Sequence[ComparableFinding], code: Code
) -> tuple[Change | None, Sequence[ComparableFinding]]:
    """Change of one finding, present on one image or several, since it was looked for ``then``; and on which
    films of the prior it was, or was looked for in vain."""
    now = _largest(found)
    finding = now.finding
    place = place_text(finding.side, filter(None, finding.zones.split(",")))
    words = finding.label.replace("_", " ")
    seen = [one for one in then if one.finding.present and not one.rejected]
    new = Change(code, words, place, ChangeKind.NEW, _extent(finding)) if _was_looked_for(finding, then) else None
    if not seen:
        return new, then
    sides = {one.finding.side for one in seen}
    if UNKNOWN in {finding.side, *sides}:
        return None, ()
    if NO_PLACE in {finding.side, *sides} and sides != {finding.side}:
        return None, ()  # it may have been on the other side
    if finding.side != NO_PLACE:
        here, sides_then = _SIDES[finding.side], _sides_of(seen)
        seen = [one for one in seen if _SIDES[one.finding.side] & here]
        if not seen:
            return new, then
        if not _sides_of(found) <= sides_then:
            return None, ()  # known on one side, new on the other
    before = _largest(seen)
    extent = _extent(before.finding) if _drawn_by_the_same(finding, before.finding) else Extent()
    return Change(code, words, place, _size(now, before), _extent(finding), extent), (before,)


def _sides_of(findings: Iterable[ComparableFinding]) -> set[str]:
    return set[str]().union(*(_SIDES.get(one.finding.side, ()) for one in findings))


def _was_looked_for(now: FindingRecord, then: Sequence[ComparableFinding]) -> bool:
    """Whether what has found ``now`` would have found it on the prior: the same version of the same model told of it,
    and what it left out there is left out by today's threshold, too."""
    compared = [one.finding for one in then if _by_the_same(one.finding, now)]
    left_out = [one.probability for one in compared if not one.present]
    return bool(compared) and all(each is not None and each < now.threshold for each in left_out)


def _by_the_same(one: FindingRecord, other: FindingRecord) -> bool:
    return (one.model, one.model_version) == (other.model, other.model_version)


def _drawn_by_the_same(one: FindingRecord, other: FindingRecord) -> bool:
    """Whether their sizes may be compared: two models draw the same finding, or the same lungs, differently."""
    drawn = [(each.placed_by, each.lungs_by) for each in (one, other)]
    return _by_the_same(one, other) and drawn[0] == drawn[1]


def _size(now: ComparableFinding, before: ComparableFinding) -> ChangeKind:
    shares = now.finding.lung_share, before.finding.lung_share
    views = {frontal_view(now.view), frontal_view(before.view)}
    same = now.finding.side == before.finding.side != NO_PLACE and views in ({View.PA}, {View.AP})
    same = same and _drawn_by_the_same(now.finding, before.finding)
    if not same or not shares[0] or not shares[1]:
        return ChangeKind.KNOWN
    return size_change(shares[0], shares[1])


def size_change(now: float, then: float) -> ChangeKind:
    """What two shares of the lung (above 0) say by themselves: larger, smaller, or nothing."""
    if abs(now - then) < LEAST_DIFFERENCE or max(now, then) < LEAST_RATIO * min(now, then):
        return ChangeKind.KNOWN
    return ChangeKind.LARGER if now > then else ChangeKind.SMALLER


def _extent(finding: FindingRecord) -> Extent:
    return Extent(finding.area_mm2, finding.lung_share)
