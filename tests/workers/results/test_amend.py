"""What follows highdicom: its random UIDs, its clock and its checks must not reach an object of ours."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from models.contract import Box
from tests.workers.results.sources import EQUIPMENT, MODEL, analysis, encode_all, finding, source
from workers.results import codes
from workers.results.amend import Header, amend, concept, header_of, stand_in
from workers.results.study_account import reference_to

HEADER: dict[str, Any] = {
    "equipment": EQUIPMENT,
    "models": (MODEL,),
    "created_at": datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC),
    "sop_instance_uid": "2.25.10",
    "series_instance_uid": "2.25.11",
    "series_number": 9001,
    "series_description": "A series",
    "dimension_organization_uid": "2.25.12",
}


def built(header: Header) -> Dataset:
    """A SEG as highdicom makes it."""
    segment = hd.seg.SegmentDescription(
        1, "one", concept(codes.MORPHOLOGICALLY_ABNORMAL), concept(codes.PNEUMOTHORAX), "MANUAL"
    )
    return hd.seg.Segmentation(
        [header.image((64, 48), (0.5, 0.4))],
        np.ones((64, 48), bool),
        "BINARY",
        [segment],
        content_label="X",
        content_creator_name="A^B",
        **header.arguments(),
    )


def as_bytes(made: Dataset) -> bytes:
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_the_same_work_gives_the_same_bytes_though_highdicom_draws_uids_and_reads_the_clock() -> None:
    header = Header(source(), **HEADER)
    first, second = built(header), built(header)
    assert first.DimensionOrganizationSequence != second.DimensionOrganizationSequence
    made = amend(first, header)
    assert as_bytes(made) == as_bytes(amend(second, header))
    assert made.DimensionOrganizationSequence[0].DimensionOrganizationUID == "2.25.12"
    assert {item.DimensionOrganizationUID for item in made.DimensionIndexSequence} == {"2.25.12"}
    moments = {made[name].value for name in ("InstanceCreationTime", "SeriesTime", "ContentTime")}
    assert moments == {"050607.000089"}


def test_the_lent_frame_of_reference_is_taken_back_and_its_plane_groups_stay() -> None:
    header = Header(source(), **HEADER)
    made = amend(built(header), header)
    assert "FrameOfReferenceUID" not in made
    (frame,), (shared,) = made.PerFrameFunctionalGroupsSequence, made.SharedFunctionalGroupsSequence
    assert frame.PlanePositionSequence[0].ImagePositionPatient == [0, 0, 0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.5, 0.4]


def test_patient_and_study_are_the_sources_own_whatever_rule_they_break() -> None:
    broken = source(PatientSex="X", StudyDate="2026-03-01", StudyID=None, PatientID="x" * 70, PatientAge="62")
    made = amend(built(Header(broken, **HEADER)), Header(broken, **HEADER))
    assert (made.PatientID, made.PatientName, made.PatientSex, made.StudyDate) == ("x" * 70, "Doe^Jane", "", "")
    assert made.StudyID == ""
    assert "PatientAge" not in made


def test_equipment_is_the_models_and_the_node_s_and_not_highdicom_s() -> None:
    header = Header(source(), **HEADER)
    made = amend(built(header), header)
    assert made.file_meta.ImplementationVersionName == "PLEURA"
    assert [item.Manufacturer for item in made.ContributingEquipmentSequence] == ["Pleura", "ACME"]


@pytest.mark.parametrize(
    "sop_class",
    [
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        "1.2.3.4.5",
    ],
)
def test_a_source_of_a_class_that_highdicom_does_not_take_is_referenced_by_its_class(sop_class: str) -> None:
    header = Header(source(SOPClassUID=sop_class), **HEADER)
    made = amend(built(header), header)
    (series,) = made.ReferencedSeriesSequence
    assert series.ReferencedInstanceSequence[0].ReferencedSOPClassUID == sop_class
    (derived,) = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence
    assert derived.SourceImageSequence[0].ReferencedSOPClassUID == sop_class


@pytest.mark.parametrize(
    "sop_class",
    [
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForPresentation,
        DigitalXRayImageStorageForProcessing,
        SecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    ],
)
def test_every_kind_is_made_of_every_class_that_the_node_takes(sop_class: str) -> None:
    header = source(SOPClassUID=sop_class)
    made = encode_all(analysis(header))
    assert set(made) == {"seg", "sr", "sc", "gsps", "lungs"}
    for item in made.values():
        named = [element.value for element in item.iterall() if element.keyword.startswith("ReferencedSOP")]
        assert {header.SOPInstanceUID, header.SOPClassUID} <= {str(value) for value in named if isinstance(value, str)}


def test_a_frame_is_referenced_without_its_segment() -> None:
    header = Header(source(), **HEADER)
    made = built(header)
    item, child, both = Dataset(), Dataset(), Dataset()
    both.ReferencedFrameNumber, both.ReferencedSegmentNumber = 1, 1
    child.ReferencedSOPSequence = [both]
    item.ContentSequence = [child]
    made.ContentSequence = [item]
    (found,) = amend(made, header).ContentSequence[0].ContentSequence[0].ReferencedSOPSequence
    assert (found.ReferencedFrameNumber, "ReferencedSegmentNumber" in found) == (1, False)


def test_a_stand_in_tells_nothing_of_the_patient() -> None:
    made = stand_in(reference_to(source()), "1.2.3")
    assert not made.PatientName
    assert "PatientAge" not in made
    assert "Rows" not in made


def test_the_header_of_an_analysis_has_its_uids_and_its_revision() -> None:
    header = header_of(analysis(), "seg")
    assert (header.series_number, header.instance_number) == (9001, 1)
    assert len({header.sop_instance_uid, header.series_instance_uid, header.dimension_organization_uid}) == 3


def test_an_outline_beyond_the_edge_ends_at_the_edge() -> None:
    boxes = (Box(-4, 50, 20, 30, 0.75),)
    made = encode_all(analysis(findings=(finding(boxes=boxes),)))["gsps"]
    (drawn,) = made.GraphicAnnotationSequence[0].GraphicObjectSequence
    assert drawn.GraphicData == [0, 50, 16, 50, 16, 64, 0, 64, 0, 50]
