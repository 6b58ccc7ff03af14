"""Several lesions of one finding: each a segment and two groups with a tracking UID, a probability and a place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from models.contract import Finding, Lesion, LungInvolvement, LungShare, Mask, ModelUse, Zone
from models.lung_fields import LUNG
from tests.workers.results.sources import LUNG_OPACITY, MODEL, analysis, encode_all, finding, source, write
from tests.workers.results.test_objects import complaints
from workers.fhir.study_report import _groups, _tracking_uid
from workers.results import codes
from workers.results.codes import read_code
from workers.results.encoder import Analysis
from workers.results.finding_text import statements
from workers.results.headline import sentence_of
from workers.results.result_reader import problems, read_result

SHAPE = (64, 48)
OUTLINER = ModelUse("chest-opacity", "1.0.0", "Pleura lung opacity", "cd" * 32, "2.25.99")
LEFT, RIGHT = LungShare(0.2, (Zone.UPPER,)), LungShare(0.3, (Zone.LOWER,))
NONE = LungShare(0.0)


def area(rows: slice, columns: slice) -> Mask:
    mask = np.zeros(SHAPE, np.bool_)
    mask[rows, columns] = True
    return mask


def opacity(count: int = 2) -> Finding:
    """An opacity that the classifier finds, placed by another model: right upper zone, and left lower zone."""
    lesions = (
        Lesion(area(slice(8, 20), slice(6, 16)), 0.91, LungInvolvement(LEFT, NONE)),
        Lesion(area(slice(40, 56), slice(30, 42)), 0.55, LungInvolvement(NONE, RIGHT)),
    )[:count]
    return finding(
        label="lung_opacity",
        code=LUNG_OPACITY,
        probability=0.82,
        threshold=0.3,
        mask=np.logical_or.reduce([lesion.mask for lesion in lesions]),
        lesions=lesions,
        lungs=LungInvolvement(LEFT, RIGHT if count > 1 else NONE),
        site=LUNG,
        placed_by=OUTLINER.name,
    )


def made(count: int = 2) -> Analysis:
    one = analysis(source(), (opacity(count),))
    return replace(one, prediction=replace(one.prediction, models=(MODEL, OUTLINER)))


@pytest.fixture(scope="module")
def objects() -> dict[str, Dataset]:
    return encode_all(made())


def numbers(group: Iterable[Dataset]) -> dict[str, float]:
    return {
        str(item.ConceptNameCodeSequence[0].CodeValue): float(item.MeasuredValueSequence[0].NumericValue)
        for item in group
        if item.ValueType == "NUM"
    }


def test_each_lesion_is_a_segment_by_the_model_that_drew_it(objects: dict[str, Dataset]) -> None:
    first, second = objects["seg"].SegmentSequence
    assert [one.SegmentLabel for one in (first, second)] == ["AI: Opacity (1 of 2)", "AI: Opacity (2 of 2)"]
    assert "Probability 0.910" in first.SegmentDescription
    assert "Probability 0.550" in second.SegmentDescription
    assert first.TrackingUID != second.TrackingUID
    for one, zone, side in ((first, Zone.UPPER, codes.RIGHT), (second, Zone.LOWER, codes.LEFT)):
        region = one.AnatomicRegionSequence[0]
        assert read_code(region) == codes.ZONES[zone]
        assert read_code(region.AnatomicRegionModifierSequence[0]) == side
        algorithm = one.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmName == OUTLINER.title
        assert "chest-classifier" in algorithm.AlgorithmParameters
    frames = objects["seg"].pixel_array
    np.testing.assert_array_equal(frames.astype(bool), [lesion.mask for lesion in opacity().lesions])


def test_the_report_says_once_whether_and_of_each_lesion_where(objects: dict[str, Dataset]) -> None:
    analysed = made()
    finding_uid = analysed.identity.tracking(MODEL.name, "lung_opacity")
    lesion_uids = [analysed.identity.tracking(MODEL.name, "lung_opacity", number) for number in (1, 2)]
    groups = list(_groups(objects["sr"]))
    # Groups of regions come first (TID 1500), each segment with its outline.
    first, second = lesion_uids
    assert [_tracking_uid(group) for group in groups] == [first, first, second, second, finding_uid]
    answers = [
        (_tracking_uid(group), read_code(item.ConceptCodeSequence[0]))
        for group in groups
        for item in group
        if item.ValueType == "CODE" and read_code(item.ConceptNameCodeSequence[0]) == LUNG_OPACITY
    ]
    assert answers == [(finding_uid, codes.PRESENT)]
    probabilities = [numbers(group).get(codes.PROBABILITY.value) for group in groups]
    assert probabilities == [0.91, None, 0.55, None, 0.82]
    assert sentence_of(analysed, statements(analysed)).startswith("AI: lung opacity both lungs, 82 %")


def test_a_single_lesion_has_its_own_probability_too() -> None:
    groups = list(_groups(encode_all(made(1))["sr"]))
    assert [numbers(group).get(codes.PROBABILITY.value) for group in groups] == [0.91, None, 0.82]
    assert str(encode_all(made(1))["seg"].SegmentSequence[0].SegmentLabel) == "AI: Opacity"


def test_every_reference_from_report_to_segment_resolves(objects: dict[str, Dataset]) -> None:
    read = [read_result(each) for each in objects.values()]
    assert problems(read, [source()]) == []


@pytest.mark.peer("dciodvfy")
def test_dciodvfy_accepts_the_objects(objects: dict[str, Dataset], tmp_path: Path) -> None:
    for kind in ("seg", "sr"):
        errors, _ = complaints(write(objects[kind], tmp_path / f"{kind}.dcm"))
        assert errors == []
