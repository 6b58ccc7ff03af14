"""Structured Report (PS3.3 A.35, PS3.16 TID 1500): present, not detected and undetermined findings of one image.

A finding with a mask has two groups with the same tracking UID: one that references its segment and has the
measurements, and one with the outline, because viewers draw outlines and not references. Every other finding is one
group about the whole image. So is one whose lesions are told apart, and each lesion has two groups of its own: the
image's probability says whether there is anything, a lesion's how sure this place is. An image that was not analysed
gets a group with the reason; it is never a negative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage

from models.contract import Box, Finding, ModelUse
from workers.results import codes
from workers.results.amend import concept, header_of
from workers.results.content_items import Group, evaluation, measurement, with_comment
from workers.results.encoder import Analysis
from workers.results.finding_text import (
    Area,
    Segment,
    Site,
    Statement,
    algorithm_parameters,
    analysis_status,
    area_of,
    area_remark,
    area_text,
    area_value,
    probability_value,
    share_text,
    sites_of,
    spacing_of,
    statements,
)
from workers.results.header import RESEARCH_USE
from workers.results.headline import NOT_NEGATIVE, sentence_of
from workers.results.outline import Outline, box_outline, outlines
from workers.results.report_document import document, measurement_report, procedure_code
from workers.results.study_account import Reference, reference_to

KIND = "sr"


def encode(analysis: Analysis) -> Dataset | None:
    """Make the SR, or None if there is no content: not a chest radiograph, or every finding is in shadow."""
    not_analysed = analysis.prediction.not_analysed
    all_statements = statements(analysis)
    if (not_analysed is not None and not not_analysed.is_chest) or (not_analysed is None and not all_statements):
        return None
    source = analysis.source
    content = measurement_report(
        sentence_of(analysis, all_statements),
        list(_groups(analysis, all_statements)) if not_analysed is None else [_not_analysed(analysis)],
        equipment=analysis.equipment,
        uid_root=analysis.identity.uid_root,
        procedure=procedure_code(source),
        images=[reference_to(source)],
        modality=str(source.get("Modality") or ""),
    )
    evidence = [reference_to(analysis.siblings["seg"])] if "seg" in analysis.siblings else []
    return document(header_of(analysis, KIND), analysis.sr_storage, content, evidence, _predecessor(analysis))


def _predecessor(analysis: Analysis) -> Reference | None:
    """The report that this revision replaces; an unknown series UID is derived from the preceding revision."""
    if KIND not in analysis.previous:
        return None
    derived = replace(analysis.identity, revision=analysis.identity.revision - 1).uid(KIND, "series")
    return Reference(*analysis.previous[KIND], analysis.previous_series.get(KIND, derived))


def _groups(analysis: Analysis, all_statements: tuple[Statement, ...]) -> Iterator[Group]:
    for statement in all_statements:
        segments = statement.segments if "seg" in analysis.siblings else ()
        if not segments or statement.finding.lesions:
            yield _image_group(analysis, statement)
        for segment in segments:
            yield from _mask_groups(analysis, statement, segment)
        if not segments and statement.finding.present:
            yield from _box_groups(analysis, statement)


def _mask_groups(analysis: Analysis, statement: Statement, segment: Segment) -> Iterator[Group]:
    """The segment with its measurements, then its outlines: the largest region with the segment's tracking UID, and
    each further region with its own, because a viewer draws a tracking UID only once."""
    drawn, left_out = outlines(segment.mask)
    remarks = [_left_out(left_out)] if left_out else []
    area, spacing = area_of(segment.mask, spacing_of(analysis)), spacing_of(analysis)
    group = _segment_group(analysis, statement, segment, area)
    sizes = filter(None, (area_text(area), share_text(analysis, segment.finding), area_remark(spacing)))
    yield with_comment(group, *remarks, *sizes, RESEARCH_USE)
    for index, outline in enumerate(drawn, start=1):
        yield _outline_group(analysis, segment, outline, index, len(drawn))


def _segment_group(analysis: Analysis, statement: Statement, segment: Segment, area: Area) -> Group:
    seg, finding = analysis.siblings["seg"], segment.finding
    source = hd.sr.SourceImageForSegmentation(*_uids(analysis))
    number = segment.number
    # One segment a frame, in the order of the segments.
    frame = hd.sr.ReferencedSegmentationFrame(seg.SOPClassUID, seg.SOPInstanceUID, number, number, source)
    # Whether there is anything is said once: of a finding with lesions by the group about the image.
    answer = [] if finding.lesions else [evaluation(finding.code, statement.answer)]
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(segment.tracking_uid, segment.label),
        referenced_segment=frame,
        **_named(analysis, finding),
        algorithm_id=_algorithm(segment.model, finding),
        measurements=[
            *_probability(finding.probability, finding.threshold),
            measurement(codes.AREA, *area_value(area)),
        ],
        qualitative_evaluations=answer or None,
    )


def _left_out(count: int) -> str:
    """Text on the regions without an outline: those beyond the maximum number, and very small ones."""
    regions = "1 smaller region is" if count == 1 else f"{count} smaller regions are"
    return f"{regions} not outlined, only in the segmentation."


def _outline_group(analysis: Analysis, segment: Segment, outline: Outline, index: int, count: int) -> Group:
    label = segment.label if index == 1 else f"{segment.label} ({index} of {count})"
    part = f"region:{segment.number}.{index}" if segment.finding.lesions else f"region:{index}"
    uid = segment.tracking_uid if index == 1 else _region_uid(analysis, segment.finding, part)
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(uid, label),
        referenced_region=_region(analysis, outline),
        **_named(analysis, segment.finding),
    )


def _region(analysis: Analysis, outline: Outline) -> hd.sr.ImageRegion:
    """SCOORD with a closed polyline on the source (PS3.3 C.18.6)."""
    return hd.sr.ImageRegion("POLYLINE", outline.points, hd.sr.SourceImageForRegion(*_uids(analysis)))


def _region_uid(analysis: Analysis, finding: Finding, part: str) -> str:
    return analysis.identity.uid("finding", f"tracking:{finding.model}:{finding.label}:{part}")


def _box_groups(analysis: Analysis, statement: Statement) -> Iterator[Group]:
    """One group for each detection, with its own probability and outline."""
    for index, box in enumerate(statement.finding.boxes, start=1):
        yield _box_group(analysis, statement, box, index)


def _box_group(analysis: Analysis, statement: Statement, box: Box, index: int) -> Group:
    uid = _region_uid(analysis, statement.finding, f"box:{index}")
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(uid, f"{statement.label} (box {index})"),
        referenced_region=_region(analysis, box_outline(box)),
        **_named(analysis, statement.finding),
        algorithm_id=_algorithm(statement.model, statement.finding),
        measurements=_probability(box.probability, statement.finding.threshold),
    )


def _image_group(analysis: Analysis, statement: Statement) -> Group:
    """TID 1501: a finding of the whole image. Only a present one is coded as a finding, because viewers show its name
    without the answer."""
    finding = statement.finding
    # The analysis of a finding without a probability has failed.
    status = [evaluation(codes.SUMMARY_OF_ANALYSES, codes.FAILED)] if finding.probability is None else []
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(statement.tracking_uid, statement.label),
        **(_named(analysis, finding) if statement.answer == codes.PRESENT else {}),
        algorithm_id=_algorithm(statement.model, replace(finding, placed_by="")),
        measurements=_probability(finding.probability, finding.threshold),
        qualitative_evaluations=[evaluation(finding.code, statement.answer), *status],
        source_images=[hd.sr.SourceImageForMeasurementGroup(*_uids(analysis))],
    )
    return with_comment(group, _sentence(statement.remark), RESEARCH_USE)


def _not_analysed(analysis: Analysis) -> Group:
    """A group for an image that was not analysed: CID 6042 and the reason."""
    not_analysed = analysis.prediction.not_analysed
    reason = _sentence(not_analysed.sentence) if not_analysed is not None else ""
    reason_code = not_analysed.code if not_analysed is not None else ""
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(analysis.identity.uid("finding", "tracking:not-analysed"), "AI: not analysed"),
        qualitative_evaluations=[evaluation(codes.SUMMARY_OF_ANALYSES, analysis_status(analysis))],
        source_images=[hd.sr.SourceImageForMeasurementGroup(*_uids(analysis))],
    )
    return with_comment(group, f"Not analysed ({reason_code}): {reason}", NOT_NEGATIVE, RESEARCH_USE)


def _uids(analysis: Analysis) -> tuple[str, str]:
    """The source as highdicom may know it: of a class whose frames it does not ask for; ``amend`` sets the true one."""
    return ComputedRadiographyImageStorage, analysis.source.SOPInstanceUID


def _sentence(text: str) -> str:
    ended = text if not text or text.endswith((".", "!", "?")) else f"{text}."
    return ended[:1].upper() + ended[1:]


def _named(analysis: Analysis, finding: Finding) -> dict[str, Any]:
    """Category, type and site of a finding, as highdicom's groups take them."""
    return {
        "finding_category": concept(codes.MORPHOLOGICALLY_ABNORMAL),
        "finding_type": concept(finding.code),
        "finding_sites": [_site(site) for site in sites_of(analysis, finding)],
    }


def _site(site: Site) -> hd.sr.FindingSite:
    return hd.sr.FindingSite(concept(site.code), None if site.side is None else concept(site.side))


def _algorithm(model: ModelUse | None, finding: Finding) -> hd.sr.AlgorithmIdentification:
    """TID 4019, with the same values as the model's item in Contributing Equipment Sequence."""
    return hd.sr.AlgorithmIdentification(
        name=model.title if model is not None else finding.model,
        version=model.version if model is not None else "unknown",
        parameters=[algorithm_parameters(finding)],
    )


def _probability(value: float | None, threshold: float) -> list[hd.sr.Measurement]:
    """Rounded so that it does not contradict the threshold, which the same group tells."""
    return [] if value is None else [measurement(codes.PROBABILITY, probability_value(value, threshold), codes.UNITY)]
