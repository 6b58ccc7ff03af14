"""Study summary (PS3.16 TID 1500): one report for a complete study.

It contains the triage priority, the status of each image, and why an image was not analysed. A revision references the
summary that it replaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import highdicom as hd
from pydicom.dataset import Dataset

from models.contract import ModelUse
from models.model_spec import Code
from workers.results import codes
from workers.results.amend import Header
from workers.results.comparison_content import comparison_groups, comparison_sentence
from workers.results.content_items import Group, composite, evaluation, measurement, with_comment
from workers.results.encoder import Equipment
from workers.results.finding_text import probability_value
from workers.results.header import RESEARCH_USE
from workers.results.headline import NOT_NEGATIVE, NamedFinding, found_sentence, not_analysed_sentence
from workers.results.identity import Identity
from workers.results.report_document import document, measurement_report, procedure_code
from workers.results.result_kinds import series_description, series_number
from workers.results.study_account import (
    KIND,
    ImageAccount,
    Reference,
    StudyAccount,
    is_image,
)

PRIORITIES = {"critical": codes.EMERGENCY, "urgent": codes.HIGH_PRIORITY, "routine": codes.NORMAL_PRIORITY}


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
    header = Header(
        source,
        equipment,
        models,
        created_at,
        sop_instance_uid=identity.uid(KIND),
        series_instance_uid=identity.uid(KIND, "series"),
        series_number=series_number(KIND, series_number_base),
        series_description=series_description(KIND, identity.revision),
        instance_number=identity.revision,
    )
    groups = [_study_group(account, identity)]
    groups += [_image_group(item, identity, index) for index, item in enumerate(account.images, start=1)]
    if account.comparison is not None:
        groups += comparison_groups(account.comparison, identity)
    content = measurement_report(
        sentence_about(account),
        groups,
        equipment=equipment,
        uid_root=identity.uid_root,
        procedure=procedure_code(source),
        images=[item.image for item in account.images if item.analysed and is_image(item.image.sop_class_uid)],
    )
    other = account.comparison
    prior = None if other is None else (other.study_instance_uid, other.images)
    return document(header, sr_storage, content, _references(account), previous, prior)


def sentence_about(account: StudyAccount) -> str:
    """The first sentence: the findings on all images, and how many were not analysed; or why none was."""
    if not any(item.analysed for item in account.images):
        chosen = max(account.images, key=lambda item: (bool(item.reason), item.failed), default=None)
        return not_analysed_sentence(*(("", "") if chosen is None else (chosen.code, chosen.reason)))
    named = [finding for item in account.images for finding in item.findings if not finding.implied]
    probabilities: dict[tuple[str, str], float] = {}
    for finding in named:
        key = finding.words or finding.code.meaning.lower(), finding.place
        probabilities[key] = max(finding.probability, probabilities.get(key, 0.0))
    eligible = [item.analysed for item in account.images if item.eligible]
    missing = eligible.count(False)
    open_questions = [f"{missing} of {_images(len(eligible))} not analysed"] if missing else []
    found = found_sentence((NamedFinding(*key, value) for key, value in probabilities.items()), open_questions)
    return found if account.comparison is None else f"{found}. {comparison_sentence(account.comparison)}"


def _references(account: StudyAccount) -> Iterator[Reference]:
    for item in account.images:
        yield item.image
        yield from item.reports


def _study_group(account: StudyAccount, identity: Identity) -> Group:
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(identity.uid(KIND, "tracking:study"), "AI: study summary"),
        qualitative_evaluations=[
            evaluation(codes.PRIORITY, PRIORITIES[account.priority]),
            evaluation(codes.SUMMARY_OF_ANALYSES, _status(account)),
        ],
    )
    priority = f"Triage priority {account.priority}: {account.reason or 'nothing that raises it'}."
    return with_comment(group, priority, _counted(account), f"Revision {identity.revision}.", RESEARCH_USE)


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


def _image_group(item: ImageAccount, identity: Identity, index: int) -> Group:
    status = codes.SUCCEEDED if item.analysed else codes.FAILED if item.failed else codes.NOT_ATTEMPTED
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(identity.uid(KIND, f"tracking:image:{index}"), f"AI: image {index}"),
        qualitative_evaluations=[evaluation(codes.SUMMARY_OF_ANALYSES, status)],
    )
    content = group[0].ContentSequence
    for finding in item.findings:
        # One after the other: highdicom puts all measurements first, and nothing else ties a number to its finding.
        content.extend(evaluation(finding.code, codes.PRESENT))
        content.extend(measurement(codes.PROBABILITY, probability_value(finding.probability), codes.UNITY))
    remarks = ("Analysed.",) if item.analysed else (f"Not analysed: {item.reason}", NOT_NEGATIVE)
    with_comment(group, *remarks)
    content.append(_source(item.image))
    reports = (report for report in item.reports if not is_image(report.sop_class_uid))
    content.extend(composite(report, codes.CURRENT_PROCEDURE_EVIDENCE) for report in reports)
    return group


def _source(item: Reference) -> hd.sr.ImageContentItem | hd.sr.CompositeContentItem:
    if is_image(item.sop_class_uid):
        return hd.sr.SourceImageForMeasurementGroup(item.sop_class_uid, item.sop_instance_uid)
    return composite(item, codes.SOURCE)
