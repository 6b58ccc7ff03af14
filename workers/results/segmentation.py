"""Segmentation (PS3.3 A.51): one binary segment for each finding with a mask, on the pixel grid of the source.

A radiograph has no Frame of Reference and no position in the patient. The plane groups are *nominal*: they are written
because viewers cannot draw a segment without them (docs/dicom-conformance.md, deviations).
"""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import SegmentationStorage

from models.contract import Mask
from workers.results import codes
from workers.results.amend import decimal
from workers.results.codes import code_sequence
from workers.results.encoder import Analysis
from workers.results.finding_text import (
    Statement,
    algorithm_parameters,
    area_remark,
    side_code,
    spacing_of,
    statements,
)
from workers.results.header import (
    RESEARCH_USE,
    copy_valid,
    finish,
    is_valid,
    long_string,
    new_object,
    reference,
)

KIND = "seg"
BODY_PART = "CHEST"
"""Body Part Examined of all results. The source's value (TORAX, CHEST PA, LUNG) is not copied: software that does not
know a part as unpaired requires a laterality."""

# Recommended colours, CIELab (L*, a*, b*): distinct from each other and from the greys of a radiograph.
_COLOURS = ((60.0, 60.0, 40.0), (75.0, -5.0, 70.0), (70.0, -45.0, 30.0), (65.0, 10.0, -45.0), (60.0, 55.0, -35.0))
# Viewers assume this for a source without Image Orientation (Patient), and draw nothing with any other value.
_PLANE_ORIENTATION = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def encode(analysis: Analysis) -> Dataset | None:
    """Make the SEG, or None if no reportable finding has a mask."""
    shown = [statement for statement in statements(analysis) if statement.segment is not None]
    if not shown:
        return None
    made = new_object(analysis, KIND, SegmentationStorage, "SEG")
    _set_image(analysis, made)
    made.SegmentSequence = Sequence([_segment(analysis, statement) for statement in shown])
    _set_frames(analysis, made, shown)
    _set_references(analysis, made)
    masks = [statement.mask for statement in shown if statement.mask is not None]
    made.SegmentsOverlap = "YES" if _overlap(masks) else "NO"
    made.NumberOfFrames = len(masks)
    made.add_new("PixelData", "OB", pack(masks))
    return finish(made, analysis.source)


def pack(masks: Items[Mask]) -> bytes:
    """Pixel Data with one bit per pixel (PS3.5 8.1.1, D): frames without gaps, least significant bit first."""
    if len(masks) == 1:
        bits = np.packbits(masks[0], axis=None, bitorder="little").tobytes()
    else:
        bits = np.packbits(np.concatenate([mask.ravel() for mask in masks]), bitorder="little").tobytes()
    return bits + b"\0" * (len(bits) % 2)


def _overlap(masks: Items[Mask]) -> bool:
    taken = masks[0]
    for mask in masks[1:]:
        if bool((taken & mask).any()):
            return True
        taken = taken | mask
    return False


def _set_image(analysis: Analysis, made: Dataset) -> None:
    rows, columns = analysis.prediction.shape
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.BodyPartExamined = BODY_PART
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows, made.Columns = rows, columns
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 1, 1, 0, 0
    made.SegmentationType = "BINARY"
    made.ContentLabel = "PLEURA_FINDINGS"
    made.ContentDescription = RESEARCH_USE
    made.ContentCreatorName = "Pleura^"
    made.PatientOrientation = _orientation_values(analysis.source)
    _set_lossy(analysis.source, made)


def _orientation_values(source: Dataset) -> list[str] | str:
    value = source.get("PatientOrientation")
    if value and not isinstance(value, str) and len(value) == 2 and is_valid(source["PatientOrientation"]):
        return [str(direction) for direction in value]
    return ""


def _set_lossy(source: Dataset, made: Dataset) -> None:
    """A mask from a lossy image is lossy itself (PS3.3 C.7.6.1.1.5); ratio and method are the source's."""
    made.LossyImageCompression = "01" if source.get("LossyImageCompression") == "01" else "00"
    if made.LossyImageCompression == "01":
        copy_valid(source, made, ("LossyImageCompressionRatio", "LossyImageCompressionMethod"))


def _segment(analysis: Analysis, statement: Statement) -> Dataset:
    finding, model = statement.finding, statement.model
    item = Dataset()
    item.SegmentNumber = statement.segment
    item.SegmentLabel = long_string(statement.label)
    item.SegmentDescription = (
        f"Probability {finding.probability:.3f}. {area_remark(spacing_of(analysis))} {RESEARCH_USE}"
    )
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = long_string(model.title if model is not None else finding.model)
    item.SegmentationAlgorithmIdentificationSequence = Sequence([_algorithm(statement)])
    item.SegmentedPropertyCategoryCodeSequence = code_sequence(codes.MORPHOLOGICALLY_ABNORMAL)
    item.SegmentedPropertyTypeCodeSequence = code_sequence(finding.code)
    item.AnatomicRegionSequence = code_sequence(finding.site or codes.CHEST)
    side = side_code(analysis, finding)
    if side is not None:
        item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = code_sequence(side)
    item.TrackingID = statement.label
    item.TrackingUID = statement.tracking_uid
    item.RecommendedDisplayCIELabValue = _colour((statement.segment or 1) - 1)
    return item


def _algorithm(statement: Statement) -> Dataset:
    finding, model = statement.finding, statement.model
    item = Dataset()
    item.AlgorithmFamilyCodeSequence = code_sequence(codes.ARTIFICIAL_INTELLIGENCE)
    item.AlgorithmName = long_string(model.title if model is not None else finding.model)
    item.AlgorithmVersion = long_string(model.version) if model is not None else "unknown"
    item.AlgorithmParameters = algorithm_parameters(finding)
    return item


def _colour(index: int) -> list[int]:
    """PS3.3 C.10.7.1.1: L* of 0 to 100 and a*, b* of -128 to 127, each spread over 16 bits."""
    lightness, a, b = _COLOURS[index % len(_COLOURS)]
    return [round(lightness / 100 * 65535), round((a + 128) / 255 * 65535), round((b + 128) / 255 * 65535)]


def nominal_spacing(analysis: Analysis) -> tuple[float, float]:
    """Row and column spacing to write: the source's if known, else the pixel aspect ratio."""
    spacing = spacing_of(analysis)
    if spacing is not None:
        return spacing.row, spacing.column
    aspect = analysis.model_input.pixel_aspect if analysis.model_input is not None else 1.0
    return (aspect if aspect > 0 else 1.0), 1.0


def _set_frames(analysis: Analysis, made: Dataset, shown: Items[Statement]) -> None:
    organization = analysis.identity.uid(KIND, "dimension-organization")
    made.DimensionOrganizationSequence = Sequence([Dataset()])
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    made.DimensionIndexSequence = Sequence(
        [
            _dimension(organization, 0x0062000B, 0x0062000A, "Segment Number"),
            _dimension(organization, 0x00200032, 0x00209113, "Image Position (Patient)"),
        ]
    )
    made.SharedFunctionalGroupsSequence = Sequence([_shared_groups(analysis)])
    made.PerFrameFunctionalGroupsSequence = Sequence([_frame_groups(analysis, item.segment or 1) for item in shown])


def _dimension(organization: str, pointer: int, group: int, label: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organization
    item.DimensionIndexPointer = pointer
    item.FunctionalGroupPointer = group
    item.DimensionDescriptionLabel = label
    return item


def _shared_groups(analysis: Analysis) -> Dataset:
    row, column = nominal_spacing(analysis)
    measures = Dataset()
    measures.PixelSpacing = [decimal(row), decimal(column)]
    measures.SliceThickness = "1"
    measures.SpacingBetweenSlices = "1"
    orientation = Dataset()
    orientation.ImageOrientationPatient = _PLANE_ORIENTATION
    groups = Dataset()
    groups.PixelMeasuresSequence = Sequence([measures])
    groups.PlaneOrientationSequence = Sequence([orientation])
    return groups


def _frame_groups(analysis: Analysis, segment: int) -> Dataset:
    source = reference(analysis.source)
    source.PurposeOfReferenceCodeSequence = code_sequence(codes.SOURCE_IMAGE_FOR_PROCESSING)
    source.SpatialLocationsPreserved = "YES"
    derivation = Dataset()
    derivation.DerivationCodeSequence = code_sequence(codes.SEGMENTATION_DERIVATION)
    derivation.SourceImageSequence = Sequence([source])
    content, position, identification = Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [segment, 1]
    position.ImagePositionPatient = [0.0, 0.0, 0.0]
    identification.ReferencedSegmentNumber = segment
    groups = Dataset()
    groups.DerivationImageSequence = Sequence([derivation])
    groups.FrameContentSequence = Sequence([content])
    groups.PlanePositionSequence = Sequence([position])
    groups.SegmentIdentificationSequence = Sequence([identification])
    return groups


def _set_references(analysis: Analysis, made: Dataset) -> None:
    """Common Instance Reference (PS3.3 C.12.2): the source is the only referenced instance."""
    series = Dataset()
    series.SeriesInstanceUID = analysis.source.SeriesInstanceUID
    series.ReferencedInstanceSequence = Sequence([reference(analysis.source)])
    made.ReferencedSeriesSequence = Sequence([series])
