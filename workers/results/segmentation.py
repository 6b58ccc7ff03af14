"""Segmentation (PS3.3 A.51): a segment for each finding with a mask, or for each of its lesions.

Its pixel grid is that of the source. A radiograph has no Frame of Reference and no position in the patient. The plane
groups are *nominal*: they are written because viewers cannot draw a segment without them (docs/dicom-conformance.md,
deviations).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as known

from models.contract import Mask, ModelUse
from workers.results import codes
from workers.results.amend import Header, amend, concept, header_of
from workers.results.encoder import Analysis
from workers.results.finding_text import (
    Segment,
    Site,
    algorithm_parameters,
    area_remark,
    site_of,
    spacing_of,
    statements,
)
from workers.results.header import RESEARCH_USE, long_string, orientation_values, set_lossy

KIND = "seg"
BODY_PART = "CHEST"
"""Body Part Examined of all results. The source's value (TORAX, CHEST PA, LUNG) is not copied: software that does not
know a part as unpaired requires a laterality."""

# Recommended colours, CIELab (L*, a*, b*): distinct from each other and from the greys of a radiograph.
_COLOURS = ((60.0, 60.0, 40.0), (75.0, -5.0, 70.0), (70.0, -45.0, 30.0), (65.0, 10.0, -45.0), (60.0, 55.0, -35.0))


def encode(analysis: Analysis) -> Dataset | None:
    """Make the SEG, or None if no reportable finding has a mask."""
    shown = [segment for statement in statements(analysis) for segment in statement.segments]
    if not shown:
        return None
    described = [_segment(analysis, segment) for segment in shown]
    return of_masks(analysis, header_of(analysis, KIND), [each.mask for each in shown], described, "PLEURA_FINDINGS")


def of_masks(
    analysis: Analysis,
    header: Header,
    masks: Sequence[Mask],
    descriptions: Sequence[hd.seg.SegmentDescription],
    content_label: str,
) -> Dataset:
    """A SEG of the source image with a frame for each of ``masks``, ``bool[rows, columns]``, in the order given.

    ``content_label`` (0070,0080): a code string, 16 characters at most.
    """
    built = hd.seg.Segmentation(
        source_images=[header.image(analysis.prediction.shape, nominal_spacing(analysis))],
        pixel_array=_planes(masks),
        **_segmentation_type(analysis, len(masks)),
        segment_descriptions=descriptions,
        content_label=content_label,
        content_description=RESEARCH_USE,
        content_creator_name="Pleura^",
        omit_empty_frames=False,
        **header.arguments(),
    )
    _name_the_segment_of_each_frame(built)
    built.BodyPartExamined = BODY_PART
    built.PatientOrientation = orientation_values(analysis.source)
    set_lossy(analysis.source, built)
    return amend(built, header)


def _segmentation_type(analysis: Analysis, frames: int) -> dict[str, Any]:
    """Binary, one bit a pixel (PS3.5 8.1.1); or fractional, one byte a pixel, of which 0 % or 100 % are occupied
    (PS3.3 C.8.20.2.3), where that is asked for and a frame would begin within a byte."""
    rows, columns = analysis.prediction.shape
    if analysis.seg_storage == "fractional" and frames > 1 and rows * columns % 8:
        return {"segmentation_type": "FRACTIONAL", "fractional_type": "OCCUPANCY", "max_fractional_value": 255}
    return {"segmentation_type": "BINARY"}


def _planes(masks: Sequence[Mask]) -> NDArray[np.bool_]:
    """The masks as ``bool[1, rows, columns, segments]``: one plane, as highdicom wants it."""
    return np.moveaxis(np.stack(masks), 0, -1)[np.newaxis]


def _name_the_segment_of_each_frame(built: Dataset) -> None:
    """Move the Segment Identification of a single segment from the shared groups, where highdicom puts it, to the
    frame, where each reader of ours looks (OHIF, dwv, dcmqi)."""
    shared = built.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:
        (frame,) = built.PerFrameFunctionalGroupsSequence
        frame.add(shared["SegmentIdentificationSequence"])
        del shared.SegmentIdentificationSequence


def _segment(analysis: Analysis, segment: Segment) -> hd.seg.SegmentDescription:
    finding = segment.finding
    described = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=long_string(segment.label),
        segmented_property_category=concept(codes.MORPHOLOGICALLY_ABNORMAL),
        segmented_property_type=concept(finding.code),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm(segment.model, segment.finding.model, algorithm_parameters(segment.finding)),
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.label,
        anatomic_regions=[region_of(site_of(analysis, segment.finding))],
        display_color=hd.color.CIELabColor(*_COLOURS[(segment.number - 1) % len(_COLOURS)]),
    )
    remark = area_remark(spacing_of(analysis))
    described.SegmentDescription = f"Probability {finding.probability:.3f}. {remark} {RESEARCH_USE}"
    return described


def region_of(site: Site) -> hd.sr.CodedConcept:
    """An item of the Anatomic Region Sequence, with the side where it is known."""
    region = concept(site.code)
    if site.side is not None:
        region.AnatomicRegionModifierSequence = [concept(site.side)]
    return region


def algorithm(model: ModelUse | None, name: str, parameters: str) -> hd.AlgorithmIdentificationSequence:
    """The model that drew a segment; by its ``name`` alone where no more is known of it."""
    sequence = hd.AlgorithmIdentificationSequence(
        name=long_string(model.title if model is not None else name),
        family=known.DCM.ArtificialIntelligence,
        version=long_string(model.version) if model is not None else "unknown",
    )
    # A sentence, the same as in the report, and not the pairs of name=value that highdicom writes.
    sequence[0].AlgorithmParameters = parameters
    return sequence


def nominal_spacing(analysis: Analysis) -> tuple[float, float]:
    """Row and column spacing to write: the source's if known, else the pixel aspect ratio."""
    spacing = spacing_of(analysis)
    if spacing is not None:
        return spacing.row, spacing.column
    aspect = analysis.model_input.pixel_aspect if analysis.model_input is not None else 1.0
    return (aspect if aspect > 0 else 1.0), 1.0
