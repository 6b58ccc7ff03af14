"""Structured Report (PS3.3 A.35, PS3.16 TID 1500): present, not detected and undetermined findings of one image.

A finding with a mask has two groups with the same tracking UID: one that references its segment and has the
measurements, and one with the outline, because viewers draw outlines and not references. Every other finding is one
group about the whole image. An image that was not analysed gets a group with the reason; it is never a negative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from models.contract import Box, Code
from workers.results import codes
from workers.results.codes import read_code
from workers.results.content_items import (
    HAS_ACQ_CONTEXT,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    coded,
    container,
    image,
    number,
    polyline,
    text,
    uid_reference,
)
from workers.results.encoder import Analysis, Equipment
from workers.results.finding_text import (
    Statement,
    algorithm_parameters,
    analysis_status,
    area_of,
    area_remark,
    area_text,
    area_value,
    probability_value,
    side_code,
    spacing_of,
    statements,
)
from workers.results.header import RESEARCH_USE, finish, is_valid, new_object, reference
from workers.results.headline import NOT_NEGATIVE, sentence_of
from workers.results.identity import derive_uid
from workers.results.outline import Outline, box_outline, outlines

KIND = "sr"
_STORAGE = {"comprehensive-3d": Comprehensive3DSRStorage, "comprehensive": ComprehensiveSRStorage}


def encode(analysis: Analysis) -> Dataset | None:
    """Make the SR, or None if there is no content: not a chest radiograph, or every finding is in shadow."""
    not_analysed = analysis.prediction.not_analysed
    all_statements = statements(analysis)
    if (not_analysed is not None and not not_analysed.is_chest) or (not_analysed is None and not all_statements):
        return None
    made = new_object(analysis, KIND, _STORAGE[analysis.sr_storage], "SR")
    set_document(made, analysis.source, list(_evidence(analysis)))
    if KIND in analysis.previous:
        made.PredecessorDocumentsSequence = _predecessor(analysis)
    groups = list(_groups(analysis, all_statements)) if not_analysed is None else [_not_analysed(analysis)]
    sentence = sentence_of(analysis, all_statements)
    set_root(made, report(analysis.source, analysis.equipment, analysis.identity.uid_root, sentence, groups))
    return finish(made, analysis.source)


def set_document(made: Dataset, source: Dataset, evidence: list[Dataset]) -> None:
    """SR Document General and Series (PS3.3 C.17.1, C.17.2): complete, preliminary and unverified."""
    made.ReferencedPerformedProcedureStepSequence = Sequence()
    made.PerformedProcedureCodeSequence = Sequence()
    made.CompletionFlag = "COMPLETE"
    made.CompletionFlagDescription = RESEARCH_USE
    made.VerificationFlag = "UNVERIFIED"
    made.PreliminaryFlag = "PRELIMINARY"
    made.CurrentRequestedProcedureEvidenceSequence = hierarchy(str(source.StudyInstanceUID), evidence)


def hierarchy(study_instance_uid: str, instances: list[Dataset]) -> Sequence:
    """Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1): study, series and instances, in given order."""
    series: dict[str, list[Dataset]] = {}
    for instance in instances:
        series.setdefault(str(instance.SeriesInstanceUID), []).append(reference(instance))
    items = []
    for series_instance_uid, references in series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_instance_uid
        item.ReferencedSOPSequence = Sequence(references)
        items.append(item)
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    study.ReferencedSeriesSequence = Sequence(items)
    return Sequence([study])


def set_root(made: Dataset, root: Dataset) -> None:
    """Copy the root container into the document; a root has no relationship type."""
    for element in root:
        if element.keyword != "RelationshipType":
            made.add(element)


def report(
    source: Dataset,
    equipment: Equipment,
    uid_root: str,
    sentence: str,
    groups: list[Dataset],
    library: list[Dataset] | None = None,
) -> Dataset:
    """Root of TID 1500: language, observer, procedure, image library, measurements and qualitative evaluations.

    ``sentence`` is the first item (TID 1500 is extensible): the summary for the reader. ``library`` are the analysed
    images; by default only ``source``.
    """
    localised, evaluations = _split_groups(groups)
    return container(
        codes.IMAGING_MEASUREMENT_REPORT,
        [
            text(codes.SUMMARY, sentence),
            coded(codes.LANGUAGE, codes.ENGLISH, HAS_CONCEPT_MOD),
            *observer(equipment, uid_root),
            coded(codes.PROCEDURE_REPORTED, procedure_code(source), HAS_CONCEPT_MOD),
            _image_library(library or [source]),
            container(codes.IMAGING_MEASUREMENTS, localised),
            *([container(codes.QUALITATIVE_EVALUATIONS, evaluations)] if evaluations else []),
        ],
        template="1500",
    )


def _split_groups(groups: list[Dataset]) -> tuple[list[Dataset], list[Dataset]]:
    """Split the groups into localised ones and those about the whole image, if there are both.

    OHIF 3.13 fails on the first measurement group without an outline and then draws none, so groups about the whole
    image are qualitative evaluations. Without any outline they are measurements.
    """
    whole = [_is_whole_image(group) for group in groups]
    if all(whole):
        return groups, []
    return (
        [group for group, is_whole in zip(groups, whole, strict=True) if not is_whole],
        [group for group, is_whole in zip(groups, whole, strict=True) if is_whole],
    )


def _is_whole_image(group: Dataset) -> bool:
    return bool(group.ContentTemplateSequence[0].TemplateIdentifier == "1501")


def _evidence(analysis: Analysis) -> Iterator[Dataset]:
    yield analysis.source
    if "seg" in analysis.siblings:
        yield analysis.siblings["seg"]


def _predecessor(analysis: Analysis) -> Sequence:
    """The report that this revision replaces; an unknown series UID is derived from the preceding revision."""
    sop_class_uid, sop_instance_uid = analysis.previous[KIND]
    before = Dataset()
    before.SOPClassUID, before.SOPInstanceUID = sop_class_uid, sop_instance_uid
    derived = replace(analysis.identity, revision=analysis.identity.revision - 1).uid(KIND, "series")
    before.SeriesInstanceUID = analysis.previous_series.get(KIND, derived)
    return hierarchy(str(analysis.source.StudyInstanceUID), [before])


def observer(equipment: Equipment, uid_root: str) -> list[Dataset]:
    """TID 1004: a device observer. Its UID is that of the node, the same in all its reports."""
    maker = (equipment.manufacturer, equipment.manufacturer_model_name)
    device_uid = derive_uid(uid_root, "device", *maker, equipment.device_serial_number)
    return [
        coded(codes.OBSERVER_TYPE, codes.DEVICE, HAS_OBS_CONTEXT),
        uid_reference(codes.DEVICE_OBSERVER_UID, device_uid),
        text(codes.DEVICE_OBSERVER_NAME, equipment.station_name, HAS_OBS_CONTEXT),
        text(codes.DEVICE_OBSERVER_MANUFACTURER, equipment.manufacturer, HAS_OBS_CONTEXT),
        text(codes.DEVICE_OBSERVER_MODEL_NAME, equipment.manufacturer_model_name, HAS_OBS_CONTEXT),
        text(codes.DEVICE_OBSERVER_SERIAL_NUMBER, equipment.device_serial_number, HAS_OBS_CONTEXT),
    ]


def procedure_code(source: Dataset) -> Code:
    """The imaging procedure: the source's code if it has a valid one, else a plain chest radiograph."""
    for item in source.get("ProcedureCodeSequence") or ():
        code = read_code(item)
        if code.value and code.scheme and code.meaning and all(is_valid(element) for element in item):
            return code
    return codes.PLAIN_CHEST_RADIOGRAPH


def _image_library(images: list[Dataset]) -> Dataset:
    """TID 1600 with the analysed images."""
    group = container(codes.IMAGE_LIBRARY_GROUP, [_library_entry(item) for item in images])
    return container(codes.IMAGE_LIBRARY, [group], template="1600")


def _library_entry(source: Dataset) -> Dataset:
    name = str(source.get("Modality") or "")
    if name not in _MODALITIES:
        return image(source)
    return image(source, children=[coded(codes.MODALITY, Code(name, "DCM", _MODALITIES[name]), HAS_ACQ_CONTEXT)])


_MODALITIES = {"CR": "Computed Radiography", "DX": "Digital Radiography", "RG": "Radiographic imaging"}


def _groups(analysis: Analysis, all_statements: tuple[Statement, ...]) -> Iterator[Dataset]:
    for statement in all_statements:
        if statement.segment is not None and "seg" in analysis.siblings:
            yield from _mask_groups(analysis, statement)
        else:
            yield _image_group(analysis, statement)
            if statement.finding.present:
                yield from _box_groups(analysis, statement)


def _mask_groups(analysis: Analysis, statement: Statement) -> Iterator[Dataset]:
    """The segment with its measurements, then its outlines: the largest region with the finding's tracking UID, and
    each further region with its own, because a viewer draws a tracking UID only once."""
    mask = statement.finding.mask
    if mask is None:
        return
    drawn, left_out = outlines(mask)
    yield _segment_group(analysis, statement, left_out)
    for index, outline in enumerate(drawn, start=1):
        yield _outline_group(analysis, statement, outline, index, len(drawn))


def _segment_group(analysis: Analysis, statement: Statement, left_out: int) -> Dataset:
    spacing = spacing_of(analysis)
    size = "" if statement.finding.mask is None else area_text(area_of(statement.finding.mask, spacing))
    remarks = [size, area_remark(spacing), RESEARCH_USE]
    if left_out:
        remarks.insert(0, _left_out(left_out))
    return container(
        codes.MEASUREMENT_GROUP,
        [
            *_tracking(statement.label, statement.tracking_uid),
            *_finding(analysis, statement),
            *_algorithm(statement),
            image(analysis.siblings["seg"], codes.REFERENCED_SEGMENTATION_FRAME, frame=statement.segment),
            image(analysis.source, codes.SOURCE_IMAGE_FOR_SEGMENTATION),
            *_probability(statement.finding.probability),
            *_areas(analysis, statement),
            coded(statement.finding.code, statement.answer),
            text(codes.COMMENT, " ".join(remarks)),
        ],
        template="1410",
    )


def _left_out(count: int) -> str:
    """Text on the regions without an outline: those beyond the maximum number, and very small ones."""
    regions = "1 smaller region is" if count == 1 else f"{count} smaller regions are"
    return f"{regions} not outlined, only in the segmentation."


def _outline_group(analysis: Analysis, statement: Statement, outline: Outline, index: int, count: int) -> Dataset:
    label = statement.label if count == 1 else f"{statement.label} ({index} of {count})"
    uid = statement.tracking_uid if index == 1 else _region_uid(analysis, statement, f"region:{index}")
    return container(
        codes.MEASUREMENT_GROUP,
        [
            *_tracking(statement.label if index == 1 else label, uid),
            *_finding(analysis, statement),
            polyline(codes.IMAGE_REGION, outline.points, analysis.source),
        ],
        template="1410",
    )


def _region_uid(analysis: Analysis, statement: Statement, part: str) -> str:
    finding = statement.finding
    return analysis.identity.uid("finding", f"tracking:{finding.model}:{finding.label}:{part}")


def _box_groups(analysis: Analysis, statement: Statement) -> Iterator[Dataset]:
    """One group for each detection, with its own probability and outline."""
    if statement.segment is not None:
        return
    for index, box in enumerate(statement.finding.boxes, start=1):
        yield _box_group(analysis, statement, box, index)


def _box_group(analysis: Analysis, statement: Statement, box: Box, index: int) -> Dataset:
    return container(
        codes.MEASUREMENT_GROUP,
        [
            *_tracking(f"{statement.label} (box {index})", _region_uid(analysis, statement, f"box:{index}")),
            *_finding(analysis, statement),
            *_algorithm(statement),
            polyline(codes.IMAGE_REGION, box_outline(box).points, analysis.source),
            *_probability(box.probability),
        ],
        template="1410",
    )


def _image_group(analysis: Analysis, statement: Statement) -> Dataset:
    """TID 1501: a finding of the whole image. Only a present one is coded as a finding, because viewers show its name
    without the answer."""
    remarks = [remark for remark in (statement.remark, RESEARCH_USE) if remark]
    named = _finding(analysis, statement) if statement.answer == codes.PRESENT else ()
    return container(
        codes.MEASUREMENT_GROUP,
        [
            *_tracking(statement.label, statement.tracking_uid),
            *named,
            *_algorithm(statement),
            *_probability(statement.finding.probability),
            coded(statement.finding.code, statement.answer),
            *_status(statement),
            text(codes.COMMENT, " ".join(_sentence(remark) for remark in remarks)),
            image(analysis.source, codes.SOURCE),
        ],
        template="1501",
    )


def _sentence(text: str) -> str:
    ended = text if text.endswith((".", "!", "?")) else f"{text}."
    return ended[:1].upper() + ended[1:]


def _status(statement: Statement) -> list[Dataset]:
    """The analysis of a finding without a probability has failed."""
    return [coded(codes.SUMMARY_OF_ANALYSES, codes.FAILED)] if statement.finding.probability is None else []


def _not_analysed(analysis: Analysis) -> Dataset:
    """A group for an image that was not analysed: CID 6042 and the reason."""
    not_analysed = analysis.prediction.not_analysed
    reason = _sentence(not_analysed.sentence) if not_analysed is not None else ""
    reason_code = not_analysed.code if not_analysed is not None else ""
    status = analysis_status(analysis)
    return container(
        codes.MEASUREMENT_GROUP,
        [
            *_tracking("AI: not analysed", analysis.identity.uid("finding", "tracking:not-analysed")),
            coded(codes.SUMMARY_OF_ANALYSES, status),
            text(codes.COMMENT, f"Not analysed ({reason_code}): {reason} {NOT_NEGATIVE} {RESEARCH_USE}"),
            image(analysis.source, codes.SOURCE),
        ],
        template="1501",
    )


def _tracking(label: str, uid: str) -> list[Dataset]:
    return [
        text(codes.TRACKING_IDENTIFIER, label, HAS_OBS_CONTEXT),
        uid_reference(codes.TRACKING_UNIQUE_IDENTIFIER, uid),
    ]


def _finding(analysis: Analysis, statement: Statement) -> list[Dataset]:
    side = side_code(analysis, statement.finding)
    lateral = [] if side is None else [coded(codes.LATERALITY, side, HAS_CONCEPT_MOD)]
    # Without a site in the manifest, the site is the chest.
    site = statement.finding.site or codes.CHEST
    return [
        coded(codes.FINDING_CATEGORY, codes.MORPHOLOGICALLY_ABNORMAL),
        coded(codes.FINDING, statement.finding.code),
        coded(codes.FINDING_SITE, site, HAS_CONCEPT_MOD, lateral),
    ]


def _algorithm(statement: Statement) -> list[Dataset]:
    """TID 4019, with the same values as the model's item in Contributing Equipment Sequence."""
    model = statement.model
    return [
        text(codes.ALGORITHM_NAME, model.title if model is not None else statement.finding.model, HAS_CONCEPT_MOD),
        text(codes.ALGORITHM_VERSION, model.version if model is not None else "unknown", HAS_CONCEPT_MOD),
        text(codes.ALGORITHM_PARAMETERS, algorithm_parameters(statement.finding), HAS_CONCEPT_MOD),
    ]


def _probability(value: float | None) -> list[Dataset]:
    return [] if value is None else [number(codes.PROBABILITY, probability_value(value), codes.UNITY)]


def _areas(analysis: Analysis, statement: Statement) -> list[Dataset]:
    mask, spacing = statement.finding.mask, spacing_of(analysis)
    if mask is None:
        return []
    return [number(codes.AREA, *area_value(area_of(mask, spacing)))]
