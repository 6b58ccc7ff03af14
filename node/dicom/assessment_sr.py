"""Received assessments of our results: a radiologist's verdict on a finding, sent by another system as an SR.

IHE Radiology has a profile for this, AI Result Assessment (AIRA). Its text was not available, so this module makes
these assumptions, and no other code depends on them:

* an assessment is an SR document (PS3.3 A.35) that states, in CODE items, whether a result was accepted, modified,
  rejected or added; the tables below list the accepted codes, and the accepted meanings in any coding scheme;
* a statement is about the finding whose Tracking Unique Identifier (112040, DCM; PS3.16 TID 1411) is its sibling, and
  about the objects referenced beside it, else in a container around it, else in the evidence of the document;
* the observer is the Person Observer Name (121008, DCM; TID 1003), else the verifying or the authoring observer.

A statement that matches no finding of this node is stored and shown. It never causes an error status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pydicom import Dataset, uid

from db.assessments import Assessment, Statement
from workers.results import codes
from workers.results.codes import read_code

VERDICT_CODES: Mapping[tuple[str, str], str] = {
    ("AIRA-ACCEPT", "99PACS"): "accept",
    ("AIRA-MODIFY", "99PACS"): "modify",
    ("AIRA-REJECT", "99PACS"): "reject",
}
"""Verdicts by code value and scheme, as an open-source creator of assessments writes them."""

VERDICT_MEANINGS: Mapping[str, str] = {
    **dict.fromkeys(("accepted", "accept", "ai result accepted", "confirmed", "agree", "agreed"), "accept"),
    **dict.fromkeys(("modified", "modify", "ai result modified", "edited", "accepted with modifications"), "modify"),
    **dict.fromkeys(("rejected", "reject", "ai result rejected", "disagree", "disagreed"), "reject"),
    **dict.fromkeys(("added", "supplemented", "ai result added", "missed"), "added"),
}
"""Verdicts by code meaning in lower case, for every other scheme; used only if the item names an assessment."""

NAME_CODES = frozenset({("AIRA-010", "99PACS"), ("AIRA-001", "99PACS")})
NAME_MEANINGS = frozenset(
    {
        "assessment",
        "assessment decision",
        "ai result assessment",
        "ai result assessments",
        "assessment of ai result",
        "finding assessment",
        "result assessment",
    }
)
"""Concept names of a CODE item that states an assessment, and titles of an assessment document."""

_PERSONS = frozenset({("121008", "DCM"), ("AIRA-020", "99PACS")})
_TRACKING = (codes.TRACKING_UNIQUE_IDENTIFIER.value, codes.TRACKING_UNIQUE_IDENTIFIER.scheme)
_DEEPEST = 16
_MOST_STATEMENTS = 500
_DOCUMENTS = frozenset(
    {
        uid.BasicTextSRStorage,
        uid.EnhancedSRStorage,
        uid.ComprehensiveSRStorage,
        uid.Comprehensive3DSRStorage,
        uid.ExtensibleSRStorage,
    }
)


def may_assess(sop_class_uid: str) -> bool:
    """Whether an object of this class may be an assessment."""
    return sop_class_uid in _DOCUMENTS


@dataclass(frozen=True, slots=True)
class _Context:
    """Context of a statement: the nearest tracking UID, references and comment."""

    tracking_uid: str = ""
    referenced: tuple[str, ...] = ()
    comment: str = ""


def assessment_of(document: Dataset) -> Assessment | None:
    """Make an assessment from a document; None if it is another report."""
    around = _Context(referenced=tuple(dict.fromkeys(_evidence(document))))
    statements = tuple(_statements(document, around, 0))[:_MOST_STATEMENTS]
    if not statements and not _names_assessment(document):
        return None
    return Assessment(
        str(document.SOPInstanceUID), _observer(document), statements or (Statement("", around.referenced),)
    )


def _statements(container: Dataset, around: _Context, depth: int) -> Iterator[Statement]:
    """All assessment statements of a content tree, in order."""
    if depth > _DEEPEST:
        return
    here = _context(container, around)
    for item in container.get("ContentSequence") or ():
        verdict = _verdict(item)
        if verdict is not None:
            beside = _context(item, here)
            yield Statement(verdict, beside.referenced, beside.tracking_uid, beside.comment)
        else:
            yield from _statements(item, here, depth + 1)


def _verdict(item: Dataset) -> str | None:
    """Verdict of a content item; empty if the answer is unknown, None if the item is not an assessment."""
    if item.get("ValueType") != "CODE":
        return None
    answers = [read_code(code) for code in item.get("ConceptCodeSequence") or ()]
    for answer in answers:
        if (answer.value, answer.scheme) in VERDICT_CODES:
            return VERDICT_CODES[answer.value, answer.scheme]
    if not _names_assessment(item):
        return None
    found = (VERDICT_MEANINGS.get(" ".join(answer.meaning.lower().split())) for answer in answers)
    return next((verdict for verdict in found if verdict is not None), "")


def _names_assessment(item: Dataset) -> bool:
    names = [read_code(code) for code in item.get("ConceptNameCodeSequence") or ()]
    return any(
        (name.value, name.scheme) in NAME_CODES or " ".join(name.meaning.lower().split()) in NAME_MEANINGS
        for name in names
    )


def _context(container: Dataset, around: _Context) -> _Context:
    """Context that the direct children of a container give to its content."""
    tracking, comments, referenced = "", [], []
    for item in container.get("ContentSequence") or ():
        kind, name = item.get("ValueType"), _name(item)
        if kind == "UIDREF" and name == _TRACKING:
            tracking = str(item.get("UID") or "")
        elif kind == "TEXT" and not _is_tracking_identifier(name):
            comments.append(str(item.get("TextValue") or ""))
        elif kind in ("COMPOSITE", "IMAGE"):
            referenced += [
                str(one.get("ReferencedSOPInstanceUID") or "") for one in item.get("ReferencedSOPSequence") or ()
            ]
    made = replace(around, tracking_uid=tracking) if tracking else around
    if referenced:
        made = replace(made, referenced=tuple(dict.fromkeys(filter(None, referenced))))
    return replace(made, comment=" ".join(filter(None, comments))) if comments else made


def _is_tracking_identifier(name: tuple[str, str]) -> bool:
    return name == (codes.TRACKING_IDENTIFIER.value, codes.TRACKING_IDENTIFIER.scheme)


def _name(item: Dataset) -> tuple[str, str]:
    for code in item.get("ConceptNameCodeSequence") or ():
        found = read_code(code)
        return found.value, found.scheme
    return "", ""


def _evidence(document: Dataset) -> Iterator[str]:
    """Objects that the whole document is about."""
    for item in document.get("ReferencedSOPSequence") or ():
        yield str(item.get("ReferencedSOPInstanceUID") or "")
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in document.get(keyword) or ():
            for series in study.get("ReferencedSeriesSequence") or ():
                for item in series.get("ReferencedSOPSequence") or ():
                    yield str(item.get("ReferencedSOPInstanceUID") or "")


def _observer(document: Dataset) -> str:
    """Name of the observer (VR PN), empty if the document names none."""
    named = next(_persons(document, 0), "")
    for sequence, keyword in (
        ("VerifyingObserverSequence", "VerifyingObserverName"),
        ("AuthorObserverSequence", "PersonName"),
    ):
        for item in document.get(sequence) or ():
            named = named or str(item.get(keyword) or "")
    return named


def _persons(container: Dataset, depth: int) -> Iterator[str]:
    for item in container.get("ContentSequence") or () if depth <= _DEEPEST else ():
        if item.get("ValueType") == "PNAME" and item.get("PersonName") and _name(item) in _PERSONS:
            yield str(item.PersonName)
        yield from _persons(item, depth + 1)
