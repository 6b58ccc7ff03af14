"""Content of the reports of a study as values for FHIR, read from the DICOM objects, so that both agree.

With pydicom alone: the processes that deliver are spared highdicom and its tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo

from pydicom.dataset import Dataset

from models.model_spec import Code
from workers.results import codes
from workers.results.codes import read_code
from workers.results.readings import NotAResult

_ANSWERS = frozenset(code.value for code in (codes.PRESENT, codes.NOT_DETECTED, codes.ABSENT, codes.UNDETERMINED))


@dataclass(frozen=True, slots=True)
class Measured:
    """A number with its unit (UCUM)."""

    name: Code
    value: float
    unit: Code


@dataclass(frozen=True, slots=True)
class FindingSite:
    """An anatomical structure, and the patient's side where it is known."""

    structure: Code
    side: Code | None


@dataclass(frozen=True, slots=True)
class ReportedFinding:
    """A finding on one image: present, not detected or undetermined.

    ``uid`` is its tracking UID, ``measured`` its probability and area, as far as they are known.
    """

    uid: str
    finding: Code
    answer: Code
    measured: tuple[Measured, ...]
    sites: tuple[FindingSite, ...]
    algorithm: str
    algorithm_version: str
    comment: str
    image_uid: str = ""


@dataclass(frozen=True, slots=True)
class AnalysisStatus:
    """Whether the analysis of a study (``image_uid`` empty) or an image succeeded (PS3.16 CID 6042), with the reason.

    ``report_uids`` are the SOP Instance UIDs of the reports about the image.
    """

    uid: str
    status: Code
    priority: Code | None
    comment: str
    image_uid: str
    report_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StudyReport:
    """The report on a study; ``header`` is the data set with patient, study and equipment, ``issued`` an aware time."""

    header: Dataset
    issued: datetime
    sentence: str
    procedure: Code
    statuses: tuple[AnalysisStatus, ...]
    findings: tuple[ReportedFinding, ...]


def read_study_report(
    document: Dataset, reports: Mapping[str, Dataset], zone: tzinfo, made_at: datetime | None = None
) -> StudyReport:
    """Read a summary with the reports that it refers to, by SOP Instance UID, or the report that stands for a summary.

    ``zone`` is the site's: that of the report's times where it declares none. ``made_at``, an aware time a moment later
    than those, says which they are in an autumn's hour that comes twice; without it they are of the first.

    Raises:
        NotAResult: ``document`` is neither, or the report of an analysed image is not among ``reports``.
    """
    try:
        groups = list(_groups(document))
        statuses = tuple(status for group in groups if (status := _status(group)) is not None)
        findings = [finding for status in statuses for finding in _findings_of(status, reports)]
        (sentence,) = _texts(document.ContentSequence, codes.SUMMARY)
        (procedure,) = _coded(document.ContentSequence, _PROCEDURE_REPORTED)
        issued = _issued(document, zone, made_at)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise NotAResult("the content of the report cannot be read") from error
    if not statuses:
        raise NotAResult("this is no report on a study")
    return StudyReport(document, issued, sentence, procedure, statuses, tuple(findings))


_PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure Reported")


def _issued(document: Dataset, zone: tzinfo, made_at: datetime | None) -> datetime:
    """When the report was made, by its clock (:func:`workers.results.header.set_times`)."""
    moment = f"{document.ContentDate}{str(document.ContentTime)[:6]}"
    offset = str(document.get("TimezoneOffsetFromUTC") or "")
    if offset:
        return datetime.strptime(moment + offset, "%Y%m%d%H%M%S%z")
    first = datetime.strptime(moment, "%Y%m%d%H%M%S").replace(tzinfo=zone)
    second = first.replace(fold=1)
    # As UTC: two times of one zone are compared by their clocks alone.
    return second if made_at is not None and second.astimezone(UTC) <= made_at else first


def _findings_of(status: AnalysisStatus, reports: Mapping[str, Dataset]) -> Iterator[ReportedFinding]:
    if not status.image_uid or status.status != codes.SUCCEEDED:
        return
    of_image = [reports[uid] for uid in status.report_uids if uid in reports]
    if not of_image:
        raise NotAResult("the report of an analysed image is missing")
    for report in of_image:
        for group in _groups(report):
            found = _finding(group)
            if found is not None:
                yield replace(found, image_uid=status.image_uid)


def _groups(document: Dataset) -> Iterator[Sequence[Dataset]]:
    """The content of each measurement group (PS3.16 TID 1410, 1411, 1501)."""
    sections = (codes.IMAGING_MEASUREMENTS, codes.QUALITATIVE_EVALUATIONS)
    for section in (item for name in sections for item in _named(document.ContentSequence, name)):
        for group in _named(section.get("ContentSequence") or (), codes.MEASUREMENT_GROUP):
            yield group.ContentSequence


def _status(group: Sequence[Dataset]) -> AnalysisStatus | None:
    """The group as a status; None where it is about one finding of an algorithm, whose analysis may have failed."""
    statuses = list(_coded(group, codes.SUMMARY_OF_ANALYSES))
    if not statuses or next(_texts(group, codes.ALGORITHM_NAME), ""):
        return None
    sources = [item for item in group if item.ValueType == "IMAGE"] + list(_named(group, codes.SOURCE))
    evidence = _named(group, codes.CURRENT_PROCEDURE_EVIDENCE)
    return AnalysisStatus(
        uid=_tracking_uid(group),
        status=statuses[0],
        priority=next(_coded(group, codes.PRIORITY), None),
        comment=" ".join(_texts(group, codes.COMMENT)),
        image_uid=_referenced(sources[0]) if sources else "",
        report_uids=tuple(_referenced(item) for item in evidence),
    )


def _finding(group: Sequence[Dataset]) -> ReportedFinding | None:
    """The group as a finding; None where it has no answer, as one that only draws an outline."""
    answer = _answer(group)
    if answer is None:
        return None
    return ReportedFinding(
        uid=_tracking_uid(group),
        finding=answer[0],
        answer=answer[1],
        measured=tuple(_measured(item) for name in (codes.PROBABILITY, codes.AREA) for item in _named(group, name)),
        sites=tuple(_site(item) for item in _named(group, codes.FINDING_SITE)),
        algorithm=next(_texts(group, codes.ALGORITHM_NAME), ""),
        algorithm_version=next(_texts(group, codes.ALGORITHM_VERSION), ""),
        comment=" ".join(_texts(group, codes.COMMENT)),
    )


def _answer(group: Sequence[Dataset]) -> tuple[Code, Code] | None:
    """The finding of a group, and its value."""
    for item in group:
        if item.ValueType == "CODE":
            answer = read_code(item.ConceptCodeSequence[0])
            if answer.value in _ANSWERS:
                return read_code(item.ConceptNameCodeSequence[0]), answer
    return None


def _measured(item: Dataset) -> Measured:
    measured = item.MeasuredValueSequence[0]
    unit = read_code(measured.MeasurementUnitsCodeSequence[0])
    return Measured(read_code(item.ConceptNameCodeSequence[0]), float(measured.NumericValue), unit)


def _site(item: Dataset) -> FindingSite:
    side = next(_coded(item.get("ContentSequence") or (), codes.LATERALITY), None)
    return FindingSite(read_code(item.ConceptCodeSequence[0]), side)


def _named(items: Sequence[Dataset], name: Code) -> Iterator[Dataset]:
    """The items with this concept name."""
    for item in items:
        if "ConceptNameCodeSequence" in item:
            found = read_code(item.ConceptNameCodeSequence[0])
            if (found.value, found.scheme) == (name.value, name.scheme):
                yield item


def _coded(items: Sequence[Dataset], name: Code) -> Iterator[Code]:
    return (read_code(item.ConceptCodeSequence[0]) for item in _named(items, name))


def _texts(items: Sequence[Dataset], name: Code) -> Iterator[str]:
    return (str(item.TextValue) for item in _named(items, name))


def _tracking_uid(group: Sequence[Dataset]) -> str:
    return str(next(_named(group, codes.TRACKING_UNIQUE_IDENTIFIER)).UID)


def _referenced(item: Dataset) -> str:
    return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
