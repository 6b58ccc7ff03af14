"""The SR: what it says of each kind of analysis, read back by others."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from models.contract import NotAnalysed
from tests.workers.results.sources import (
    MODEL,
    analysis,
    boxed,
    corner_mask,
    encode_all,
    finding,
    measurement_report,
    negative,
    shadow,
    source,
    two_masks,
    write,
)
from tests.workers.results.trees import children, groups, values, walk
from workers.results.outline import MAXIMUM_REGIONS

FINDING, COMMENT, PROBABILITY, AREA, STATUS = "121071", "121106", "122157", "42798000", "111065"
TRACKING, TRACKING_UID, REGION, SEGMENT_FRAME = "112039", "112040", "111030", "121214"
PNEUMOTHORAX, PRESENT, NOT_DETECTED, UNDETERMINED = "36118008", "52101004", "260415000", "373068000"


def test_a_mask_is_told_by_its_segment_and_by_its_outline_under_one_tracking_uid():
    made = encode_all(analysis())
    report, segmentation = made["sr"], made["seg"]
    by_segment, by_outline, other = groups(report)
    assert values(by_segment, TRACKING_UID) == values(by_outline, TRACKING_UID)
    assert values(by_segment, TRACKING_UID) == [segmentation.SegmentSequence[0].TrackingUID]
    assert values(by_segment, TRACKING) == [segmentation.SegmentSequence[0].TrackingID] == ["AI: Pneumothorax"]
    (frame,) = children(by_segment, SEGMENT_FRAME)
    assert frame.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
    assert frame.ReferencedSOPSequence[0].ReferencedFrameNumber == 1
    assert "ReferencedSegmentNumber" not in frame.ReferencedSOPSequence[0]
    assert values(by_segment, PROBABILITY) == [0.875]
    assert values(by_segment, AREA) == [pytest.approx(corner_mask().sum() * 0.2)]
    assert values(by_segment, PNEUMOTHORAX) == [PRESENT]
    assert "detector plane" in values(by_segment, COMMENT)[0]
    (region,) = children(by_outline, REGION)
    points = np.reshape(region.GraphicData, (-1, 2))
    assert region.GraphicType == "POLYLINE"
    assert np.array_equal(points[0], points[-1])
    assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == ([6, 8], [18, 32])
    assert values(other, "112001") == [NOT_DETECTED]
    assert not children(other, FINDING)


def test_category_and_type_are_those_of_the_segment():
    made = encode_all(analysis())
    segment = made["seg"].SegmentSequence[0]
    for group in groups(made["sr"])[:2]:
        assert values(group, FINDING) == [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue]
        assert values(group, "276214006") == [segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue]


def test_each_region_has_its_own_outline_and_tracking_uid():
    mask = np.zeros((64, 48), dtype=bool)
    for index in range(12):
        mask[(index // 4) * 20 : (index // 4) * 20 + 5, (index % 4) * 10 : (index % 4) * 10 + 5] = True
    report = encode_all(analysis(findings=(finding(mask=mask),)))["sr"]
    drawn = [group for group in groups(report) if children(group, REGION)]
    assert len(drawn) == MAXIMUM_REGIONS
    assert len({values(group, TRACKING_UID)[0] for group in drawn}) == MAXIMUM_REGIONS
    assert "2 smaller regions are not outlined" in values(groups(report)[0], COMMENT)[0]


def test_a_speck_beside_one_region_is_counted_as_what_it_is():
    mask = corner_mask()
    mask[60, 40] = True
    mask[10:60, 2:40] = True
    report = encode_all(analysis(findings=(finding(mask=mask),)))["sr"]
    assert len([group for group in groups(report) if children(group, REGION)]) == 1
    assert values(groups(report)[0], COMMENT)[0].startswith("1 smaller region is not outlined, only in")


def test_a_detection_is_a_box_with_its_own_probability():
    report = encode_all(analysis(findings=boxed()))["sr"]
    first, second, whole = groups(report)
    assert values(whole, PROBABILITY) == [0.75]
    assert [values(group, PROBABILITY) for group in (first, second)] == [[0.75], [0.5]]
    assert list(children(first, REGION)[0].GraphicData) == [4, 8, 14, 8, 14, 20.5, 4, 20.5, 4, 8]
    assert len({values(group, TRACKING_UID)[0] for group in (whole, first, second)}) == 3


def test_what_is_said_of_the_whole_image_stands_beside_the_outlines():
    """OHIF draws no outline of a report that has a measurement group without one."""
    report = encode_all(analysis(findings=boxed()))["sr"]
    (measurements,), (evaluations,) = children(report, "126010"), children(report, "C0034375")
    assert all(children(group, REGION) for group in measurements.ContentSequence)
    assert [values(group, PROBABILITY) for group in evaluations.ContentSequence] == [[0.75]]
    assert not children(encode_all(analysis(findings=negative()))["sr"], "C0034375")


def test_a_negative_says_not_detected_and_names_no_finding():
    report = encode_all(analysis(findings=negative()))["sr"]
    assert [values(group, code) for group, code in zip(groups(report), (PNEUMOTHORAX, "112001"), strict=True)] == [
        [NOT_DETECTED],
        [NOT_DETECTED],
    ]
    assert not [item for item in walk(report) if item.get("ConceptNameCodeSequence") and children(item, FINDING)]


def test_a_negative_on_a_supine_image_excludes_nothing():
    report = encode_all(analysis(source(ViewPosition="AP"), negative()))["sr"]
    pneumothorax = groups(report)[0]
    assert values(pneumothorax, PNEUMOTHORAX) == [UNDETERMINED]
    assert "ot excluded" in values(pneumothorax, COMMENT)[0]


@pytest.mark.parametrize(("code", "status"), [("lateral", "111225"), ("corrupt", "111224")])
def test_not_analysed_is_a_result_of_its_own(code, status):
    report = encode_all(analysis(not_analysed=NotAnalysed(code, "Why it was not.")))["sr"]
    (group,) = groups(report)
    assert values(group, STATUS) == [status]
    assert "Why it was not." in values(group, COMMENT)[0]
    assert "not a negative" in values(group, COMMENT)[0]
    answers = {value for item in walk(group) for value in values(item, PNEUMOTHORAX)}
    assert not answers


def test_what_is_no_chest_gets_no_object():
    assert encode_all(analysis(not_analysed=NotAnalysed("not_chest", "A knee.", is_chest=False))) == {}


def test_nothing_but_shadow_gets_no_object_but_the_lungs_which_are_no_finding():
    assert list(encode_all(analysis(findings=(shadow(),)))) == ["lungs"]


def test_without_spacing_the_area_is_in_pixels_and_uncalibrated():
    report = encode_all(analysis(spacing=None))["sr"]
    group = groups(report)[0]
    (area,) = children(group, AREA)
    assert area.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "{pixels}"
    assert values(group, AREA) == [corner_mask().sum()]
    assert "Uncalibrated" in values(group, COMMENT)[0]


def test_preliminary_unverified_and_research_in_words():
    report = encode_all(analysis())["sr"]
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert report.CompletionFlag == "COMPLETE"
    assert "not a medical device" in report.CompletionFlagDescription.lower()
    for group in groups(report):
        if not children(group, REGION):
            assert "not a medical device" in values(group, COMMENT)[0].lower()


def test_the_algorithm_is_the_contributing_equipment():
    report = encode_all(analysis())["sr"]
    (model, acquisition) = report.ContributingEquipmentSequence
    group = groups(report)[0]
    assert values(group, "111001") == [model.ManufacturerModelName] == [MODEL.title]
    assert values(group, "111003") == [model.SoftwareVersions] == [MODEL.version]
    assert "0.5" in values(group, "111002")[0]
    assert model.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert model.DeviceUID == MODEL.device_uid
    assert MODEL.digest in model.ContributionDescription
    assert acquisition.Manufacturer == "ACME"


def test_evidence_lists_the_source_and_the_segmentation_and_all_that_is_referenced():
    made = encode_all(analysis())
    listed = {
        str(item.ReferencedSOPInstanceUID)
        for series in made["sr"].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    referenced = {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in walk(made["sr"])
        if item.get("ReferencedSOPSequence")
    }
    assert listed == referenced == {str(source().SOPInstanceUID), str(made["seg"].SOPInstanceUID)}


def test_the_comprehensive_option_changes_only_the_class():
    made = encode_all(analysis(sr_storage="comprehensive"))["sr"]
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert made.file_meta.MediaStorageSOPClassUID == made.SOPClassUID


def test_a_revision_names_its_predecessor():
    first = analysis()
    before = encode_all(first)["sr"]
    second = replace(
        first,
        identity=replace(first.identity, revision=2),
        previous={"sr": (str(before.SOPClassUID), str(before.SOPInstanceUID))},
    )
    made = encode_all(second)["sr"]
    (series,) = made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.SeriesInstanceUID == before.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert made.SOPInstanceUID != before.SOPInstanceUID


def test_highdicom_reads_the_groups_and_their_numbers(tmp_path):
    path = write(encode_all(analysis(findings=two_masks()))["sr"], tmp_path / "sr.dcm")
    report = measurement_report(path)
    drawn = report.get_planar_roi_measurement_groups()
    assert [group.finding_type and group.finding_type.meaning for group in drawn] == ["Pneumothorax"] * 2 + [
        "Opacity"
    ] * 2
    areas = [
        number.value
        for group in drawn
        for number in group.get_measurements(name=highdicom.sr.CodedConcept(AREA, "SCT", "Area"))
    ]
    masks = [item.mask.sum() * 0.2 for item in two_masks() if item.mask is not None]
    assert areas == pytest.approx(masks)


def test_highdicom_reads_an_image_level_group(tmp_path):
    path = write(encode_all(analysis(findings=negative()))["sr"], tmp_path / "sr.dcm")
    read = measurement_report(path).get_image_measurement_groups()
    labels = [group.tracking_identifier for group in read]
    assert labels == ["AI: not detected - Pneumothorax", "AI: not detected - Opacity"]


@pytest.mark.peer("dsrdump")
@pytest.mark.parametrize("storage", ["comprehensive-3d", "comprehensive"])
@pytest.mark.parametrize("findings", [two_masks(), boxed(), negative()])
def test_dsrdump_reads_it_without_a_complaint(tmp_path, storage, findings):
    path = write(encode_all(analysis(findings=findings, sr_storage=storage))["sr"], tmp_path / "sr.dcm")
    output = subprocess.run(["dsrdump", "+Pl", "+Pc", path], capture_output=True, text=True)
    assert output.returncode == 0
    assert output.stderr == ""
    assert "PRELIMINARY" in output.stdout


def test_dcmqi_reads_segment_group_and_its_area(tmp_path):
    program = Path(sys.executable).with_name("tid1500reader")
    path = write(encode_all(analysis())["sr"], tmp_path / "sr.dcm")
    command = [program, "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json"]
    subprocess.run(command, check=True, capture_output=True)
    read = json.loads((tmp_path / "sr.json").read_text())
    areas = [
        float(item["value"])
        for group in read["Measurements"]
        for item in group.get("measurementItems", [])
        if item["quantity"]["CodeValue"] == AREA
    ]
    assert areas == [pytest.approx(corner_mask().sum() * 0.2)]


def test_pydicom_reads_back_what_was_written(tmp_path):
    made = encode_all(analysis())["sr"]
    read = pydicom.dcmread(write(made, tmp_path / "sr.dcm"))
    assert [values(group, PROBABILITY) for group in groups(read)] == [
        values(group, PROBABILITY) for group in groups(made)
    ]
