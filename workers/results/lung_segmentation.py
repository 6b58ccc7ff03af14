"""Lung fields as a Segmentation of their own (PS3.3 A.51), for a destination that asks for them: right and left lung.

They are anatomy and no finding. So they stand in another series than the findings, are coded as an Anatomical
Structure, and no report refers to them. The only model that they name is the network that drew them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import highdicom as hd
from pydicom.dataset import Dataset

from models.contract import Mask
from models.lung_fields import CUT, LungFields
from models.radiograph.orientation import patient_orientation
from workers.laterality import sides_of_lungs
from workers.results import codes
from workers.results.amend import concept, header_of
from workers.results.encoder import Analysis
from workers.results.finding_text import SIDES, Site, model_named
from workers.results.header import RESEARCH_USE
from workers.results.result_kinds import LUNGS
from workers.results.segmentation import algorithm, of_masks, region_of

KIND = LUNGS
REMARK = "Lung field as drawn on a frontal radiograph: anatomy, no finding."

# Recommended colours, CIELab: the first of the two lungs and the second; none is that of a finding.
_COLOURS = ((80.0, -30.0, -10.0), (80.0, 10.0, -20.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Lung:
    """One lung: its mask, the patient's side if it may be told, what it is called, its tracking UID."""

    mask: Mask
    site: Site
    label: str
    tracking_uid: str


def encode(analysis: Analysis) -> Dataset | None:
    """Make the SEG of both lungs, or None where two lungs were not found (or there are no pixels of one)."""
    fields = analysis.prediction.lung_fields
    lungs = tuple(_lungs(analysis, fields)) if fields is not None else ()
    if fields is None or not all(lung.mask.any() for lung in lungs):
        return None
    drawn_by = model_named(analysis, fields.model)
    header = replace(header_of(analysis, KIND), models=() if drawn_by is None else (drawn_by,))
    named = algorithm(drawn_by, fields.model, f"map of both lungs, cut at {CUT:g}")
    described = [_segment(number, lung, named) for number, lung in enumerate(lungs, start=1)]
    return of_masks(analysis, header, [lung.mask for lung in lungs], described, "PLEURA_LUNGS")


def _lungs(analysis: Analysis, fields: LungFields) -> Iterator[_Lung]:
    """The right lung first; where the sides may not be told, that on the left of the picture."""
    sides = sides_of_lungs(fields.hanging, patient_orientation(analysis.source))
    told = list(zip(sides, fields.drawn(), ("picture left", "picture right"), strict=True))
    for number, (side, mask, place) in enumerate(sorted(told, key=lambda each: each[0], reverse=True), start=1):
        code = SIDES.get(side)
        label = f"Lung {number} of 2, side unknown" if code is None else f"{code.meaning} lung"
        yield _Lung(mask, Site(codes.LUNG, code), label, analysis.identity.uid(KIND, f"tracking:{place}"))


def _segment(number: int, lung: _Lung, drawn_by: hd.AlgorithmIdentificationSequence) -> hd.seg.SegmentDescription:
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=lung.label,
        segmented_property_category=concept(codes.ANATOMICAL_STRUCTURE),
        segmented_property_type=concept(lung.site.code),
        algorithm_type="AUTOMATIC",
        algorithm_identification=drawn_by,
        tracking_uid=lung.tracking_uid,
        tracking_id=lung.label,
        anatomic_regions=[region_of(lung.site)],
        display_color=hd.color.CIELabColor(*_COLOURS[number - 1]),
    )
    if lung.site.side is not None:
        (kind,) = described.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(lung.site.side)]
    described.SegmentDescription = f"{REMARK} {RESEARCH_USE}"
    return described
