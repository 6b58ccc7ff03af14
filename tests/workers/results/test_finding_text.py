"""What is said, and what is not: sides, negatives, sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.contract import NotAnalysed, Spacing
from tests.workers.results.sources import analysis, boxed, corner_mask, finding, negative, shadow, source
from workers.results import codes
from workers.results.finding_text import analysis_status, area_of, area_remark, side_code, spacing_of, statements


@pytest.mark.parametrize(
    ("orientation", "side"),
    [
        (["L", "F"], codes.RIGHT),  # the usual way: the image's left is the patient's right
        (["R", "F"], codes.LEFT),  # mirrored
        (["R", "H"], codes.LEFT),  # turned by half
        (["F", "R"], codes.LEFT),  # turned by a quarter: rows run towards the right, the mask is near their start
        (["F", "L"], codes.RIGHT),
        (["A", "F"], None),  # a lateral view has no sides
        (["L", "R"], None),  # nonsense
        (["X", "F"], None),
        ("", None),
        (None, None),
    ],
)
def test_a_side_is_told_only_where_the_orientation_supports_it(orientation, side):
    made = analysis(source(PatientOrientation=orientation))
    mask = np.zeros((64, 48), dtype=bool)
    mask[2:20, 2:12] = True
    assert side_code(made, finding(mask=mask)) == side


def test_a_finding_near_the_middle_has_no_side():
    mask = np.zeros((64, 48), dtype=bool)
    mask[10:20, 10:24] = True
    assert side_code(analysis(), finding(mask=mask)) is None


def test_the_side_code_boxes_is_that_of_all_of_them():
    assert side_code(analysis(), boxed()[0]) is None
    assert side_code(analysis(), replace(boxed()[0], boxes=boxed()[0].boxes[:1])) == codes.RIGHT


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"ViewPosition": "PA"}, codes.NOT_DETECTED),
        ({"ViewPosition": "CHEST P.A."}, codes.NOT_DETECTED),
        ({"ViewPosition": "AP"}, codes.UNDETERMINED),
        ({"ViewPosition": "PA SUPINE"}, codes.UNDETERMINED),
        ({"ViewPosition": "PA", "SeriesDescription": "Thorax im Liegen"}, codes.UNDETERMINED),
        ({"ViewPosition": None}, codes.UNDETERMINED),
        ({"ViewPosition": "PA", "SeriesDescription": "Chest portable supine"}, codes.UNDETERMINED),
    ],
)
def test_a_negative_for_pneumothorax_excludes_it_only_upright(changes, answer):
    found = statements(analysis(source(**changes), negative()))
    assert [item.answer for item in found] == [answer, codes.NOT_DETECTED]
    if answer == codes.UNDETERMINED:
        assert "not excluded" in found[0].remark
        assert found[0].label == "AI: not excluded - Pneumothorax"


def test_a_model_that_could_not_tell_says_why():
    (found,) = statements(analysis(findings=(finding(probability=None, reason="the map has no maximum"),)))
    assert found.answer == codes.UNDETERMINED
    assert found.remark == "the map has no maximum"


def test_shadow_findings_are_never_said():
    assert statements(analysis(findings=(shadow(),))) == ()


def test_a_mask_below_its_threshold_is_no_segment():
    (found,) = statements(analysis(findings=(finding(probability=0.25, mask=corner_mask()),)))
    assert found.segments == ()
    assert found.mask is None


def test_segments_are_numbered_in_the_order_of_what_is_shown():
    found = statements(analysis(findings=(*negative(), finding(label="x", mask=corner_mask()))))
    assert (found[0].finding.label, [one.number for one in found[0].segments]) == ("x", [1])


def test_area_needs_a_spacing():
    mask = corner_mask()
    assert area_of(mask, None).square_millimetres is None
    assert area_of(mask, Spacing(0.5, 0.4, "detector")).square_millimetres == pytest.approx(mask.sum() * 0.2)
    assert area_of(mask, None).fraction == pytest.approx(mask.mean())


def test_a_spacing_of_zero_is_none():
    assert spacing_of(analysis(spacing=Spacing(0.0, 0.0, "detector"))) is None


@pytest.mark.parametrize(
    ("spacing", "remark"),
    [
        (None, "Uncalibrated"),
        (Spacing(0.5, 0.5, "detector"), "detector plane"),
        (Spacing(0.5, 0.5, "patient"), "in the patient"),
        (Spacing(0.5, 0.5, "patient", 1.1), "magnification of 1.1"),
    ],
)
def test_where_a_size_holds_is_said(spacing, remark):
    assert remark in area_remark(spacing)


@pytest.mark.parametrize(("code", "status"), [("lateral", codes.NOT_ATTEMPTED), ("corrupt", codes.FAILED)])
def test_broken_pixels_are_a_failure_and_other_reasons_no_attempt(code, status):
    assert analysis_status(analysis(not_analysed=NotAnalysed(code, "Why."))) == status


def test_the_reasons_that_are_failures_are_those_of_the_decoder():
    from models.radiograph.decode import PixelFault
    from workers.results.finding_text import FAILED_REASONS

    assert {fault.value for fault in PixelFault} == FAILED_REASONS
