"""Reads result objects of Pleura: their content, and whether their references resolve.

It uses only the objects and nothing of the encoders, so it checks what the objects really contain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from models.contract import Mask
from workers.results import codes
from workers.results.codes import read_code
from workers.results.header import text_of
from workers.results.readings import BrokenResult, NotAResult, ReadReference, ReadResult, ReadStatement
from workers.results.result_kinds import LUNGS

_KIND_OF_SOP_CLASS = {
    SegmentationStorage: "seg",
    ComprehensiveSRStorage: "sr",
    Comprehensive3DSRStorage: "sr",
    SecondaryCaptureImageStorage: "sc",
    GrayscaleSoftcopyPresentationStateStorage: "gsps",
}


def read_result(dataset: Dataset) -> ReadResult:
    """Read a result object.

    Raises:
        NotAResult: the SOP class is not one of a result, or the object has no Contributing Equipment Sequence.
        BrokenResult: it is a segmentation or a report that cannot be read.
    """
    kind = _kind_of(dataset)
    if kind is None or not dataset.get("ContributingEquipmentSequence"):
        raise NotAResult("this is not a SEG, SR, capture or presentation state of a Pleura node")
    return ReadResult(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        patient_id=text_of(dataset, "PatientID", "\\"),
        series=f"{dataset.get('SeriesNumber', '')} {dataset.get('SeriesDescription', '')}".strip(),
        status=_status(dataset),
        made_by=tuple(_makers(dataset)),
        statements=tuple(_STATEMENTS[kind](dataset)),
        references=tuple(dict.fromkeys(_references(dataset))),
        replaces=tuple(item.sop_instance_uid for item in _plain_references(_predecessors(dataset))),
    )


def _kind_of(dataset: Dataset) -> str | None:
    """The kind of result that an object would be; None for none."""
    kind = _KIND_OF_SOP_CLASS.get(dataset.get("SOPClassUID", ""))
    segments = dataset.get("SegmentSequence") or () if kind == "seg" else ()
    return LUNGS if segments and all(map(_is_anatomy, segments)) else kind


def _is_anatomy(segment: Dataset) -> bool:
    """Whether a segment shows a part of the body and no finding."""
    return any(
        read_code(item).value == codes.ANATOMICAL_STRUCTURE.value
        for item in segment.get("SegmentedPropertyCategoryCodeSequence") or ()
    )


def read_masks(segmentation: Dataset) -> tuple[Mask, ...]:
    """Masks of a SEG in the order of its frames, ``bool[rows, columns]``.

    With pydicom, like the functions below: they are for the pages, and highdicom with its tables would take these 86 MB
    and 0.4 s.
    """
    frames = segmentation.pixel_array.astype(np.bool_)
    return tuple(frames.reshape(-1, segmentation.Rows, segmentation.Columns))


def tracking_uids(segmentation: Dataset) -> dict[int, str]:
    """Tracking UID (0062,0021) of each segment of a SEG by its number, which is the finding's; empty where it has none.

    Pixel Data is not needed.
    """
    return {int(item.SegmentNumber): str(item.get("TrackingUID") or "") for item in segmentation.SegmentSequence}


def segment_masks(segmentation: Dataset) -> dict[int, Mask]:
    """Masks of a SEG with one frame a segment, by segment number."""
    numbers = [
        int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for groups in segmentation.PerFrameFunctionalGroupsSequence
    ]
    return dict(zip(numbers, read_masks(segmentation), strict=True))


def tracked_masks(segmentation: Dataset) -> dict[str, Mask]:
    """Masks of a SEG by the Tracking UID of their segments, which is the finding's."""
    uids = tracking_uids(segmentation)
    return {uids[number]: mask for number, mask in segment_masks(segmentation).items() if uids.get(number)}


def problems(results: Sequence[ReadResult], others: Iterable[Dataset] = ()) -> list[str]:
    """Inconsistencies between the given objects, as sentences; empty if every reference resolves.

    ``others`` are further instances, such as the source images.
    """
    known = {str(item.SOPInstanceUID): item for item in others}
    ours = {item.sop_instance_uid: item for item in results}
    found: list[str] = []
    for result in results:
        for reference in result.references:
            found += _problem(result, reference, ours, known)
    found += _mixed_studies(results, list(known.values()))
    return list(dict.fromkeys(found))


def _problem(
    result: ReadResult, reference: ReadReference, ours: dict[str, ReadResult], known: dict[str, Dataset]
) -> list[str]:
    name, uid = f"{result.kind} {result.sop_instance_uid}", reference.sop_instance_uid
    if uid in known:
        same = str(known[uid].SOPClassUID) == reference.sop_class_uid
        return [] if same else [f"{name} references {uid} with a wrong SOP class"]
    if uid not in ours:
        return [f"{name} references {uid}, which is not among the files"]
    target = ours[uid]
    if target.sop_class_uid != reference.sop_class_uid:
        return [f"{name} references {uid} with a wrong SOP class"]
    if reference.frame is None or target.kind != "seg":
        return []
    if not 1 <= reference.frame <= len(target.statements):
        return [f"{name} references frame {reference.frame} of {uid}, which has {len(target.statements)}"]
    if target.statements[reference.frame - 1].tracking_uid != reference.tracking_uid:
        return [f"{name} and segment {reference.frame} of {uid} have different tracking UIDs"]
    return []


def _mixed_studies(results: Sequence[ReadResult], others: list[Dataset]) -> list[str]:
    """Check that all objects have the same study and patient."""
    studies = {item.study_instance_uid for item in results} | {str(item.StudyInstanceUID) for item in others}
    patients = {item.patient_id for item in results} | {text_of(item, "PatientID", "\\") for item in others}
    found = ["the files belong to different studies"] if len(studies) > 1 else []
    return found + (["the files name different patients"] if len(patients) > 1 else [])


def as_lines(result: ReadResult) -> list[str]:
    """The content of an object as lines for a terminal."""
    lines = [f"{result.kind.upper()} {result.sop_instance_uid}", f"  series: {result.series}"]
    lines += [f"  status: {result.status}"] if result.status else []
    lines += [f"  made by: {maker}" for maker in result.made_by]
    lines += [f"  replaces: {uid}" for uid in result.replaces]
    for statement in result.statements:
        lines.append(f"  - {statement.label}")
        lines += [f"      {line}" for line in _details(statement)]
    lines += [f"  references: {item.sop_instance_uid}" for item in _distinct(result.references)]
    return lines


def _distinct(references: Iterable[ReadReference]) -> list[ReadReference]:
    return list({item.sop_instance_uid: item for item in references}.values())


def _details(statement: ReadStatement) -> Iterator[str]:
    for name, answer in statement.answers:
        yield f"{name}: {answer}"
    if statement.probability is not None:
        yield f"probability: {statement.probability:.3f}"
    for name in ("area", "side", "status", "algorithm", "comment"):
        if getattr(statement, name):
            yield f"{name}: {getattr(statement, name)}"
    if statement.points:
        yield f"outline: {statement.points} points"


def _status(dataset: Dataset) -> str:
    flags = (dataset.get("PreliminaryFlag"), dataset.get("CompletionFlag"), dataset.get("VerificationFlag"))
    status = ", ".join(str(flag).lower() for flag in flags if flag)
    return status or str(dataset.get("ContentDescription") or dataset.get("DerivationDescription") or "")


def _makers(dataset: Dataset) -> Iterator[str]:
    for item in dataset.ContributingEquipmentSequence:
        if item.PurposeOfReferenceCodeSequence[0].CodeValue == codes.PROCESSING_EQUIPMENT.value:
            yield str(item.get("ContributionDescription") or item.get("ManufacturerModelName") or item.Manufacturer)


def _predecessors(dataset: Dataset) -> Dataset:
    part = Dataset()
    if "PredecessorDocumentsSequence" in dataset:
        part.PredecessorDocumentsSequence = dataset.PredecessorDocumentsSequence
    return part


def _references(dataset: Dataset) -> Iterator[ReadReference]:
    """References of an object, without those to its predecessor."""
    rest = Dataset({element.tag: element for element in dataset if element.keyword != "PredecessorDocumentsSequence"})
    if _KIND_OF_SOP_CLASS[dataset.SOPClassUID] == "sr":
        yield from (frame for group in _reports().measurement_groups(dataset) for frame in _reports().frames(group))
    yield from (item for item in _plain_references(rest) if item.frame is None)


def _plain_references(dataset: Dataset) -> Iterator[ReadReference]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                if "ReferencedSOPInstanceUID" in item:
                    frame = item.get("ReferencedFrameNumber")
                    yield ReadReference(
                        str(item.ReferencedSOPClassUID),
                        str(item.ReferencedSOPInstanceUID),
                        None if frame is None else int(frame),
                    )
                yield from _plain_references(item)


def _segments(dataset: Dataset) -> Iterator[ReadStatement]:
    from highdicom.seg import Segmentation  # here for the reason that read_masks gives

    stated, frames = dataset.get("NumberOfFrames"), len(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    if stated != frames:
        # highdicom makes a row for each frame that is stated: 2147483647 of them take the memory.
        raise BrokenResult(f"the segmentation describes {frames} frames and says that it has {stated}")
    try:
        read = Segmentation.from_dataset(dataset)
    except (AttributeError, TypeError, ValueError) as error:
        raise BrokenResult(f"the segmentation cannot be read: {error}") from error
    for number in read.segment_numbers:
        segment = read.get_segment_description(number)
        algorithm, shown = segment.algorithm_identification, segment.segmented_property_type
        yield ReadStatement(
            label=segment.segment_label,
            tracking_uid=str(segment.tracking_uid or ""),
            answers=() if _is_anatomy(segment) else ((str(shown.meaning), "present"),),
            side=_side(shown) if _is_anatomy(segment) else "",
            algorithm="" if algorithm is None else f"{algorithm.name} {algorithm.version}",
            comment=str(segment.get("SegmentDescription") or ""),
        )


def _side(shown: Dataset) -> str:
    """The side that a segment's type is modified by; empty where it is not."""
    return ", ".join(read_code(item).meaning for item in shown.get("SegmentedPropertyTypeModifierCodeSequence") or ())


def _measurement_groups(dataset: Dataset) -> Iterator[ReadStatement]:
    return map(_reports().statement, _reports().measurement_groups(dataset))


def _reports() -> ModuleType:
    """The reader of reports, imported here because the pages need only masks: they are spared highdicom (20 MB)."""
    from workers.results import report_reader

    return report_reader


def _capture(dataset: Dataset) -> Iterator[ReadStatement]:
    yield ReadStatement(label=f"burned-in overlay, {dataset.Columns} x {dataset.Rows} pixels")


def _drawings(dataset: Dataset) -> Iterator[ReadStatement]:
    for annotation in dataset.GraphicAnnotationSequence:
        for text in annotation.get("TextObjectSequence") or ():
            drawn = annotation.get("GraphicObjectSequence") or ()
            yield ReadStatement(
                label=str(text.UnformattedTextValue),
                points=sum(int(graphic.NumberOfGraphicPoints) for graphic in drawn),
            )


_STATEMENTS = {"seg": _segments, LUNGS: _segments, "sr": _measurement_groups, "sc": _capture, "gsps": _drawings}
