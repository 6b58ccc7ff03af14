"""From a prediction to what the database keeps and the destinations get: pure functions of values.

The order of the encoders is the order of storing; each sees the objects that the earlier ones made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import PurePosixPath
from typing import Protocol

from pydicom import dcmwrite
from pydicom.dataset import Dataset

from config.settings import Destination
from db.records import FindingRecord, Refusal, ResultRecord
from models.contract import Finding, Mode, Prediction, Spacing
from workers.results.contract import Analysis, Encoder

ALWAYS_MADE = frozenset({"seg", "sr"})


class EncoderEntry(Protocol):
    """A line of the encoders' registry."""

    @property
    def kind(self) -> str:
        """Name of the kind of result."""
        ...

    @property
    def encode(self) -> Encoder:
        """The encoder."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedResult:
    """An object's bytes (a DICOM file, PS3.10) and its row."""

    record: ResultRecord
    content: bytes


def kinds_wanted(destinations: Iterable[Destination]) -> frozenset[str]:
    """Kinds of results to make for one image: SEG and SR always, the others where a destination takes them."""
    return ALWAYS_MADE.union(*(destination.kinds for destination in destinations)) - {"summary"}


def kinds_by_destination(destinations: Iterable[Destination]) -> dict[str, tuple[str, ...]]:
    """The kinds that each destination takes, by its name."""
    return {destination.name: tuple(destination.kinds) for destination in destinations}


def encode_all(analysis: Analysis, encoders: Sequence[EncoderEntry], wanted: frozenset[str]) -> list[EncodedResult]:
    """Encode every wanted kind in storing order.

    An image that was not analysed and is no chest radiograph leaves nothing for the PACS.
    """
    unfit = analysis.prediction.unfit
    if unfit is not None and not unfit.is_chest:
        return []
    made: dict[str, Dataset] = {}
    results = []
    for entry in encoders:
        if entry.kind not in wanted:
            continue
        dataset = entry.encode(replace(analysis, siblings=dict(made)))
        if dataset is not None:
            made[entry.kind] = dataset
            results.append(as_file(entry.kind, dataset))
    return results


def as_file(kind: str, dataset: Dataset) -> EncodedResult:
    """Write ``dataset`` to bytes; its place in the store is named by their digest, never by a peer's text."""
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    content = buffer.getvalue()
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


def finding_records(prediction: Prediction, spacing: Spacing | None) -> tuple[FindingRecord, ...]:
    """Every finding's numbers, those in shadow included."""
    versions = {use.name: use.version for use in prediction.models}
    return tuple(_record(finding, versions, spacing) for finding in prediction.findings)


def refusal_of(prediction: Prediction) -> Refusal | None:
    """Why the image was not analysed, None if it was."""
    return Refusal(prediction.unfit.code, prediction.unfit.sentence) if prediction.unfit else None


def _record(finding: Finding, versions: Mapping[str, str], spacing: Spacing | None) -> FindingRecord:
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
    )
