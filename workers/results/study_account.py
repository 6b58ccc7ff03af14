"""Content of the summary of a study as values, and the UIDs derived from it. Nothing here writes DICOM."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydicom.dataset import Dataset

from models.model_spec import Code
from workers.results.identity import Identity

KIND = "summary"
_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Waveforms, presentation states, structured reports, encapsulated documents.
_NOT_IMAGES = tuple(f"{_IMAGE_STORAGE}{branch}." for branch in (9, 11, 88, 104))


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance of the study: SOP class, SOP instance and series."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True)
class SummaryFinding:
    """A finding that is present on one image. Negatives are in the image's own report, with their limits.

    ``words`` and ``place`` (empty if unknown) are its name, its side and zone in the report's first sentence;
    ``implied``: the finding follows from another one, which that sentence names instead.
    """

    code: Code
    probability: float
    words: str = ""
    place: str = ""
    implied: bool = False


@dataclass(frozen=True, slots=True)
class ImageAccount:
    """Status of one received image.

    ``reason`` is empty for an analysed image, else a sentence, and ``code`` its code. ``failed``: its analysis was
    started and failed. ``reports`` are the result objects about it. ``eligible``: it counts for the status of the
    study; a lateral view does not.
    """

    image: Reference
    analysed: bool
    reason: str = ""
    failed: bool = False
    findings: tuple[SummaryFinding, ...] = ()
    reports: tuple[Reference, ...] = ()
    code: str = ""
    eligible: bool = True


class ChangeKind(StrEnum):
    """Change of a finding since the prior; ``KNOWN`` makes no statement on its size."""

    NEW = "new"
    KNOWN = "known"
    LARGER = "larger"
    SMALLER = "smaller"


@dataclass(frozen=True, slots=True)
class Extent:
    """How large a finding is: its area in mm² and its share of the lung (0 to 1), as far as they are known."""

    area_mm2: float | None = None
    lung_share: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A finding of this study beside the same one on the prior; ``before`` is None where it is new."""

    code: Code
    words: str
    place: str
    kind: ChangeKind
    now: Extent
    before: Extent | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What has changed since a prior study: its date (YYYYMMDD), UID, and the images that were compared."""

    study_instance_uid: str
    study_date: str
    images: tuple[Reference, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class StudyAccount:
    """A complete study: its triage priority (critical, urgent, routine) with the reason, its images, and what has
    changed since the last prior, where that was compared."""

    priority: str
    reason: str
    images: tuple[ImageAccount, ...]
    comparison: Comparison | None = None


def reference_to(instance: Dataset) -> Reference:
    """The reference to an instance with this header."""
    return Reference(str(instance.SOPClassUID), str(instance.SOPInstanceUID), str(instance.SeriesInstanceUID))


def is_image(sop_class_uid: str) -> bool:
    """Whether an IMAGE item may reference this class; a report or presentation state needs a COMPOSITE item."""
    return sop_class_uid.startswith(_IMAGE_STORAGE) and not sop_class_uid.startswith(_NOT_IMAGES)


def study_identity(
    uid_root: str, study_instance_uid: str, account: StudyAccount, pipeline: str, revision: int
) -> Identity:
    """UIDs of a summary: the same content of the same study gives the same UIDs, other content gives others."""
    return Identity(uid_root, study_instance_uid, account_digest(account), pipeline, revision)


def account_digest(account: StudyAccount) -> str:
    """SHA-256 (hexadecimal) of an account's values in a fixed order, as JSON.

    No name of a field or class is in it, so that renaming one in the code does not give every summary another UID.
    """
    values: list[Any] = [account.priority, account.reason, [_image_values(item) for item in account.images]]
    if account.comparison is not None:
        values.append(_comparison_values(account.comparison))
    return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode()).hexdigest()


def _comparison_values(comparison: Comparison) -> list[Any]:
    return [
        comparison.study_instance_uid,
        comparison.study_date,
        [_reference_values(image) for image in comparison.images],
        [_change_values(change) for change in comparison.changes],
    ]


def _change_values(change: Change) -> list[Any]:
    code, sizes = change.code, [one and [one.area_mm2, one.lung_share] for one in (change.now, change.before)]
    return [code.value, code.scheme, code.meaning, change.words, change.place, change.kind.value, *sizes]


def _image_values(item: ImageAccount) -> list[Any]:
    return [
        _reference_values(item.image),
        item.analysed,
        item.reason,
        item.failed,
        [_finding_values(finding) for finding in item.findings],
        [_reference_values(report) for report in item.reports],
        item.code,
        item.eligible,
    ]


def _reference_values(item: Reference) -> list[str]:
    return [item.sop_class_uid, item.sop_instance_uid, item.series_instance_uid]


def _finding_values(item: SummaryFinding) -> list[Any]:
    code = item.code
    return [code.value, code.scheme, code.meaning, float(item.probability), item.words, item.place, item.implied]
