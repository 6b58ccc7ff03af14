"""Study summary (PS3.16 TID 1500): one report for a complete study.

It contains the triage priority, the status of each image, and why an image was not analysed. A revision references the
summary that it replaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from models.contract import Code, ModelUse
from workers.results import codes
from workers.results.content_items import (
    HAS_OBS_CONTEXT,
    coded,
    composite,
    container,
    image,
    number,
    text,
    uid_reference,
)
from workers.results.encoder import Equipment
from workers.results.finding_text import probability_value
from workers.results.header import RESEARCH_USE, SERIES_OFFSETS, finish, series_description, start_object
from workers.results.headline import NamedFinding, found_sentence, not_analysed_sentence
from workers.results.identity import Identity
from workers.results.structured_report import hierarchy, report, set_document, set_root

KIND = "summary"
_STORAGE = {"comprehensive-3d": Comprehensive3DSRStorage, "comprehensive": ComprehensiveSRStorage}
PRIORITIES = {"critical": codes.EMERGENCY, "urgent": codes.HIGH_PRIORITY, "routine": codes.NORMAL_PRIORITY}
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

    ``words`` and ``side`` (empty if unknown) are its name and side in the report's first sentence; ``implied``: the
    finding follows from another one, which that sentence names instead.
    """

    code: Code
    probability: float
    words: str = ""
    side: str = ""
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


@dataclass(frozen=True, slots=True)
class StudyAccount:
    """A complete study: its triage priority (critical, urgent, routine) with the reason, and its images."""

    priority: str
    reason: str
    images: tuple[ImageAccount, ...]


def study_identity(
    uid_root: str, study_instance_uid: str, account: StudyAccount, pipeline: str, revision: int
) -> Identity:
    """UIDs of a summary: the same content of the same study gives the same UIDs, other content gives others."""
    digest = hashlib.sha256(repr(account).encode()).hexdigest()
    return Identity(uid_root, study_instance_uid, digest, pipeline, revision)


def encode_summary(
    source: Dataset,
    account: StudyAccount,
    *,
    identity: Identity,
    equipment: Equipment,
    models: tuple[ModelUse, ...],
    created_at: datetime,
    series_number_base: int = 9000,
    sr_storage: str = "comprehensive-3d",
    previous: Reference | None = None,
) -> Dataset:
    """Make the summary; ``source`` is the header of any image of the study, ``previous`` the replaced summary."""
    made = start_object(
        source,
        equipment,
        models,
        created_at=created_at,
        sop_class_uid=_STORAGE[sr_storage],
        sop_instance_uid=identity.uid(KIND),
        series_instance_uid=identity.uid(KIND, "series"),
        series_number=series_number_base + SERIES_OFFSETS[KIND],
        series_description=series_description(KIND, identity.revision),
        modality="SR",
        instance_number=identity.revision,
    )
    set_document(made, source, [_instance(item) for item in _references(account)])
    if previous is not None:
        made.PredecessorDocumentsSequence = hierarchy(str(source.StudyInstanceUID), [_instance(previous)])
    groups = [_study_group(account, identity)]
    groups += [_image_group(item, identity, index) for index, item in enumerate(account.images, start=1)]
    set_root(made, report(source, equipment, identity.uid_root, sentence_about(account), groups, _library(account)))
    return finish(made, source)


def sentence_about(account: StudyAccount) -> str:
    """The first sentence: the findings on all images, or why none was analysed."""
    if not any(item.analysed for item in account.images):
        chosen = max(account.images, key=lambda item: (bool(item.reason), item.failed), default=None)
        return not_analysed_sentence(*(("", "") if chosen is None else (chosen.code, chosen.reason)))
    named = [finding for item in account.images for finding in item.findings if not finding.implied]
    probabilities: dict[tuple[str, str], float] = {}
    for finding in named:
        key = finding.words or finding.code.meaning.lower(), finding.side
        probabilities[key] = max(finding.probability, probabilities.get(key, 0.0))
    return found_sentence(NamedFinding(name, side, probability) for (name, side), probability in probabilities.items())


def _references(account: StudyAccount) -> Iterator[Reference]:
    for item in account.images:
        yield item.image
        yield from item.reports


def _library(account: StudyAccount) -> list[Dataset]:
    return [_instance(item.image) for item in account.images if item.analysed and is_image(item.image.sop_class_uid)]


def _instance(item: Reference) -> Dataset:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = item.sop_class_uid, item.sop_instance_uid
    made.SeriesInstanceUID = item.series_instance_uid
    return made


def _study_group(account: StudyAccount, identity: Identity) -> Dataset:
    comment = (
        f"Triage priority {account.priority}: {account.reason or 'nothing that raises it'}. "
        f"{_counted(account)} Revision {identity.revision}. {RESEARCH_USE}"
    )
    return container(
        codes.MEASUREMENT_GROUP,
        [
            text(codes.TRACKING_IDENTIFIER, "AI: study summary", HAS_OBS_CONTEXT),
            uid_reference(codes.TRACKING_UNIQUE_IDENTIFIER, identity.uid(KIND, "tracking:study")),
            coded(codes.PRIORITY, PRIORITIES[account.priority]),
            coded(codes.SUMMARY_OF_ANALYSES, _status(account)),
            text(codes.COMMENT, comment),
        ],
        template="1501",
    )


def _status(account: StudyAccount) -> Code:
    """CID 6042 of a study; only eligible images count."""
    analysed = [item.analysed for item in account.images if item.eligible]
    if any(analysed):
        return codes.SUCCEEDED if all(analysed) else codes.PARTIALLY_SUCCEEDED
    return codes.FAILED if any(item.failed for item in account.images) else codes.NOT_ATTEMPTED


def _counted(account: StudyAccount) -> str:
    """A sentence with the number of analysed images among the eligible ones."""
    counted = [item.analysed for item in account.images if item.eligible]
    others = len(account.images) - len(counted)
    sentence = f"{sum(counted)} of {_images(len(counted))} analysed" if counted else "No image could be analysed"
    if counted and others:
        sentence += f"; {_images(others, 'other ')} {'is' if others == 1 else 'are'} not to be analysed"
    return f"{sentence}."


def _images(number: int, which: str = "") -> str:
    return f"{number} {which}image{'' if number == 1 else 's'}"


def _image_group(item: ImageAccount, identity: Identity, index: int) -> Dataset:
    status = codes.SUCCEEDED if item.analysed else codes.FAILED if item.failed else codes.NOT_ATTEMPTED
    comment = "Analysed." if item.analysed else f"Not analysed: {item.reason} This is not a negative result."
    return container(
        codes.MEASUREMENT_GROUP,
        [
            text(codes.TRACKING_IDENTIFIER, f"AI: image {index}", HAS_OBS_CONTEXT),
            uid_reference(codes.TRACKING_UNIQUE_IDENTIFIER, identity.uid(KIND, f"tracking:image:{index}")),
            coded(codes.SUMMARY_OF_ANALYSES, status),
            *(evaluation for finding in item.findings for evaluation in _evaluations(finding)),
            text(codes.COMMENT, comment),
            _source(item.image),
            *(_evidence(report) for report in item.reports if not is_image(report.sop_class_uid)),
        ],
        template="1501",
    )


def _evidence(item: Reference) -> Dataset:
    return composite(item.sop_class_uid, item.sop_instance_uid, codes.CURRENT_PROCEDURE_EVIDENCE)


def is_image(sop_class_uid: str) -> bool:
    """Whether an IMAGE item may reference this class; a report or presentation state needs a COMPOSITE item."""
    return sop_class_uid.startswith(_IMAGE_STORAGE) and not sop_class_uid.startswith(_NOT_IMAGES)


def _source(item: Reference) -> Dataset:
    if is_image(item.sop_class_uid):
        return image(_instance(item), codes.SOURCE)
    return composite(item.sop_class_uid, item.sop_instance_uid, codes.SOURCE)


def _evaluations(finding: SummaryFinding) -> list[Dataset]:
    return [
        coded(finding.code, codes.PRESENT),
        number(codes.PROBABILITY, probability_value(finding.probability), codes.UNITY),
    ]
