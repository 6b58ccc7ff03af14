"""Reading our objects back: the words and numbers, and references that do not resolve."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pydicom
import pytest

from models.contract import NotAnalysed
from tests.workers.results.sources import analysis, encode_all, negative, source, study_summary, two_masks, write
from tests.workers.results.trees import name, walk
from workers.results import codes
from workers.results.amend import concept
from workers.results.readings import NotAResult
from workers.results.result_reader import as_lines, problems, read_masks, read_result


def stored(tmp_path, made):
    return {kind: pydicom.dcmread(write(item, tmp_path / f"{kind}.dcm")) for kind, item in made.items()}


def test_every_kind_is_read_and_every_reference_resolves(tmp_path):
    header = source()
    read = [read_result(item) for item in stored(tmp_path, encode_all(analysis(header))).values()]
    assert [item.kind for item in read] == ["seg", "sr", "sc", "gsps", "lungs"]
    assert problems(read, [header]) == []
    for item in read:
        assert {str(header.SOPInstanceUID)} <= {reference.sop_instance_uid for reference in item.references}


def test_a_report_is_read_with_its_numbers(tmp_path):
    made = stored(tmp_path, encode_all(analysis()))
    by_segment, by_outline, other = read_result(made["sr"]).statements
    assert by_segment.answers == (("Pneumothorax", "present"),)
    assert (by_segment.probability, by_segment.area, by_segment.side) == (0.875, "38.4 mm2", "Right")
    assert by_segment.algorithm == "Pleura chest classifier 1.2.0"
    assert by_outline.points >= 7
    assert other.answers == (("Opacity", "not detected"),)
    words = "\n".join(as_lines(read_result(made["sr"])))
    for text in ("preliminary", "probability: 0.875", "38.4 mm2", "not a medical device", "references"):
        assert text.lower() in words.lower()


def test_masks_are_read_back(tmp_path):
    made = stored(tmp_path, encode_all(analysis(findings=two_masks())))
    for read, item in zip(read_masks(made["seg"]), two_masks(), strict=True):
        assert item.mask is not None
        assert np.array_equal(read, item.mask)


def test_not_analysed_is_read_as_that():
    made = encode_all(analysis(not_analysed=NotAnalysed("lateral", "A lateral view.")))["sr"]
    (statement,) = read_result(made).statements
    assert statement.status == "Not Attempted"
    assert statement.answers == ()
    assert "A lateral view." in statement.comment


def test_a_summary_is_read():
    read = read_result(study_summary(source()))
    assert read.statements[0].status == "Emergency Partially Succeeded"


def test_what_is_missing_is_said():
    header = source()
    made = encode_all(analysis(header))
    report = read_result(made["sr"])
    assert len(problems([report], [header])) == 1
    assert "not among the files" in problems([report], [header])[0]
    assert len(problems([report])) == 2


def test_a_wrong_frame_class_tracking_or_patient_is_said():
    header = source()
    made = encode_all(analysis(header))
    report = read_result(made["sr"])

    renamed = deepcopy(made["seg"])
    renamed.SegmentSequence[0].TrackingUID = "2.25.1"
    assert any("tracking" in line for line in problems([report, read_result(renamed)], [header]))

    empty = deepcopy(made["seg"])
    empty.SegmentSequence = []
    assert any("frame 1" in line for line in problems([report, read_result(empty)], [header]))

    other = source("dx")
    assert any("SOP class" in line for line in problems([report, read_result(made["seg"])], [other]))

    stranger = source(PatientID="somebody else")
    assert "the files name different patients" in problems([report, read_result(made["seg"])], [stranger])

    elsewhere = source(StudyInstanceUID="1.2.3")
    assert "the files belong to different studies" in problems([report, read_result(made["seg"])], [elsewhere])


@pytest.mark.parametrize("findings", [negative(), two_masks()])
def test_a_source_is_no_result(findings):
    with pytest.raises(NotAResult):
        read_result(source("sc"))
    assert encode_all(analysis(findings=findings))


def test_a_report_whose_content_is_damaged_is_no_result():
    made = deepcopy(encode_all(analysis())["sr"])
    del made.ContentSequence[-1].ValueType
    with pytest.raises(NotAResult, match="content of the report"):
        read_result(made)


def test_a_report_of_an_earlier_version_is_read():
    """Earlier versions named no source of a region or of the library, and called that of a group Source."""
    made = deepcopy(encode_all(analysis())["sr"])
    before = read_result(made)
    for item in walk(made):
        if item.ValueType == "IMAGE" and name(item) == "260753009":
            del item.ConceptNameCodeSequence
        elif item.ValueType == "IMAGE" and name(item) == "121112":
            item.ConceptNameCodeSequence = [concept(codes.SOURCE)]
    assert read_result(made) == before


def test_a_segmentation_that_lacks_what_the_standard_demands_is_no_result():
    made = deepcopy(encode_all(analysis())["seg"])
    del made.SegmentSequence[0].SegmentLabel
    with pytest.raises(NotAResult, match="segmentation"):
        read_result(made)


@pytest.mark.parametrize("frames", [2, 2**31 - 1, None])
def test_a_segmentation_that_lies_about_its_frames_is_no_result(frames):
    """It is refused before highdicom makes a row for each of them, which takes all the memory."""
    made = deepcopy(encode_all(analysis())["seg"])
    made.NumberOfFrames = frames
    with pytest.raises(NotAResult, match="describes 1 frames"):
        read_result(made)


def test_a_segment_without_an_algorithm_or_a_tracking_uid_is_read():
    made = deepcopy(encode_all(analysis())["seg"])
    for keyword in ("SegmentationAlgorithmIdentificationSequence", "TrackingUID", "SegmentDescription"):
        del made.SegmentSequence[0][keyword]
    (segment,) = read_result(made).statements
    assert (segment.label, segment.tracking_uid, segment.algorithm, segment.comment) == ("AI: Pneumothorax", "", "", "")
