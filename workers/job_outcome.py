"""From a prediction to what the database keeps and the destinations get: pure functions of values.

The order of the encoders is the order of storing; each sees the objects that the earlier ones made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pydicom.dataset import Dataset

from config.destinations import Destination
from db.records import FindingRecord, LesionRecord, NotEligible, ResultRecord, SimilarRecord
from models.contract import Finding, Prediction, Spacing
from models.model_spec import Mode
from workers.laterality import NO_PLACE, side_of, zones_of
from workers.results.encoder import Analysis
from workers.results.file_bytes import file_bytes
from workers.results.identity import Identity

ALWAYS_MADE = frozenset({"seg", "sr"})


Encode = Callable[[Analysis, Collection[str]], Mapping[str, Dataset]]
"""Makes the wanted kinds of objects, in storing order."""


@dataclass(frozen=True, slots=True)
class EncodedResult:
    """An object's bytes (a DICOM file, PS3.10) and its row.

    ``compared_with`` is the Study Instance UID of the prior that a summary compares its study with; empty: of none.
    """

    record: ResultRecord
    content: bytes
    compared_with: str = ""


def kinds_wanted(destinations: Iterable[Destination]) -> frozenset[str]:
    """Kinds of results to make for one image: SEG and SR always, the others where a destination takes them."""
    return ALWAYS_MADE.union(*(destination.kinds for destination in destinations)) - {"summary"}


def kinds_for(prediction: Prediction, wanted: frozenset[str], *, capture_negatives: bool) -> frozenset[str]:
    """The kinds to make of ``prediction``: no capture of a negative where the site does not want it."""
    found = any(finding.present for finding in prediction.reportable)
    return wanted if found or capture_negatives else wanted - {"sc"}


def kinds_by_destination(destinations: Iterable[Destination]) -> dict[str, tuple[str, ...]]:
    """The kinds that each destination takes, by its name."""
    return {destination.name: tuple(destination.kinds) for destination in destinations}


def kinds_of_studies(destinations: Iterable[Destination]) -> dict[str, tuple[str, ...]]:
    """The same for results of a whole study: who takes summaries takes the report that stands for one."""
    return {
        name: (*kinds, "sr") if "summary" in kinds and "sr" not in kinds else kinds
        for name, kinds in kinds_by_destination(destinations).items()
    }


def encode_results(analysis: Analysis, encode: Encode, wanted: frozenset[str]) -> Mapping[str, Dataset]:
    """Make an object of every wanted kind, in storing order.

    An image that was not analysed leaves nothing by itself: what the PACS is told of it is decided when its study is
    complete (:mod:`workers.not_analysed`).
    """
    if analysis.prediction.not_analysed is not None:
        return {}
    return encode(analysis, wanted)


def as_file(kind: str, dataset: Dataset) -> EncodedResult:
    """Write ``dataset`` to bytes; its place in the store is named by their digest, never by a peer's text."""
    content = file_bytes(dataset)
    digest = hashlib.sha256(content).hexdigest()
    record = ResultRecord(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        digest=digest,
        path=str(PurePosixPath("results", digest[:2], f"{digest}.dcm")),
        byte_count=len(content),
    )
    return EncodedResult(record, content)


def finding_records(
    prediction: Prediction,
    spacing: Spacing | None,
    identity: Identity | None = None,
    patient_orientation: tuple[str, str] | None = None,
) -> tuple[FindingRecord, ...]:
    """Every finding's numbers, those in shadow included; ``identity`` gives what our objects call each of them."""
    versions = {use.name: use.version for use in prediction.models}
    return tuple(
        replace(
            _record(finding, versions, spacing, identity, prediction.lungs_by),
            side=side_of(finding, prediction.shape, patient_orientation) if finding.present else NO_PLACE,
        )
        for finding in prediction.findings
    )


def not_eligible_of(prediction: Prediction) -> NotEligible | None:
    """Why the image was not analysed, None if it was."""
    return (
        NotEligible(prediction.not_analysed.code, prediction.not_analysed.sentence) if prediction.not_analysed else None
    )


def _record(
    finding: Finding, versions: Mapping[str, str], spacing: Spacing | None, identity: Identity | None, lungs: str
) -> FindingRecord:
    fraction = float(finding.mask.mean()) if finding.mask is not None else None
    area = None
    if finding.mask is not None and spacing is not None:
        area = float(finding.mask.sum()) * spacing.row * spacing.column
    return FindingRecord(
        label=finding.label,
        model=finding.model,
        model_version=versions.get(finding.model, ""),
        probability=finding.probability,
        threshold=finding.threshold,
        present=finding.present,
        shadow=finding.mode is Mode.SHADOW,
        reason=finding.reason,
        area_mm2=area,
        area_fraction=fraction,
        tracking_uid=identity.tracking(finding.model, finding.label) if identity is not None else "",
        similar=tuple(SimilarRecord(case.reference, case.label, case.distance) for case in finding.similar),
        zones=",".join(zones_of(finding)),
        lung_share=max(lung.share for lung in finding.lungs.both) if finding.lungs is not None else None,
        lesions=() if identity is None else _lesions(finding, identity),
        placed_by=_with_version(finding.placed_by, versions),
        lungs_by=_with_version(lungs, versions) if finding.lungs is not None else "",
    )


def _with_version(model: str, versions: Mapping[str, str]) -> str:
    return f"{model} {versions.get(model, '')}".strip()


def _lesions(finding: Finding, identity: Identity) -> tuple[LesionRecord, ...]:
    return tuple(
        LesionRecord(identity.tracking(finding.model, finding.label, number), lesion.probability)
        for number, lesion in enumerate(finding.lesions, start=1)
    )
