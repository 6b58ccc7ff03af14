"""Lesion by lesion: what is hit, what is false, what reaches across the middle; all counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.contract import Mask
from models.training.datasets.pixels import source_lesions
from models.training.datasets.sample import DrawnMask, MarkedBox, Sample
from models.training.evaluation.lesions import (
    ABSENT,
    ACROSS,
    BOTH,
    BOXES,
    COLUMNS,
    FALSE,
    HIT,
    LESIONS,
    NORMAL,
    OUTLINES,
    REGIONS,
    SAID,
    TRUE,
    compare,
    kind_of,
    lesion_figures,
    lesion_rows,
    silenced,
)

SIDE = 100
OPACITY = ("lung_opacity",)


def area(*boxes: tuple[int, int, int, int]) -> Mask:
    """Top, bottom, left and right of rectangles."""
    mask = np.zeros((SIDE, SIDE), np.bool_)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_one_of_two_lesions_hit_and_one_region_beside_both() -> None:
    truth = (area((10, 30, 10, 30)), area((50, 70, 70, 90)))
    marked = area((10, 30, 10, 20), (50, 70, 10, 20))
    row = compare(marked, truth)
    assert row[[SAID, TRUE, BOTH]].tolist() == [400, 800, 200]
    assert row[[LESIONS, HIT, REGIONS, FALSE, ACROSS]].tolist() == [2, 1, 2, 1, 0]


def test_a_region_that_is_much_larger_than_a_lesion_does_not_hit_it() -> None:
    assert compare(area((0, 60, 0, 45)), (area((10, 30, 10, 30)),))[HIT] == 0


@pytest.mark.parametrize(("left", "right", "across"), [(30, 70, 1), (45, 70, 0), (30, 55, 0), (10, 40, 0)])
def test_a_region_across_the_middle_is_counted(left: int, right: int, across: int) -> None:
    assert compare(area((20, 40, left, right)), ())[ACROSS] == across


def test_nothing_marked_is_a_row_of_zeros_but_for_the_truth() -> None:
    row = compare(area(), (area((0, 10, 0, 10)),))
    assert row.tolist() == [0, 100, 0, 1, 0, 0, 0, 0]


def sample(**given: object) -> Sample:
    return Sample("a", "1", Path("a.png"), **given)  # type: ignore[arg-type]


def test_what_the_truth_is_names_the_group() -> None:
    box = MarkedBox("lung_opacity", 0.1, 0.1, 0.2, 0.2)
    assert kind_of(sample(boxes=(box,)), OPACITY) == BOXES
    assert kind_of(sample(masks={"lung_opacity": DrawnMask(Path("m.png"))}), OPACITY) == OUTLINES
    assert kind_of(sample(labels={"normal": 1.0}), OPACITY) == NORMAL
    assert kind_of(sample(labels={"normal": 0.0}), OPACITY) == ABSENT
    assert kind_of(sample(boxes=(box,), labels={"normal": 1.0}), ("mass",)) == NORMAL


def test_boxes_that_touch_are_lesions_of_their_own() -> None:
    boxes = (MarkedBox("lung_opacity", 0.0, 0.0, 0.5, 0.5), MarkedBox("lung_opacity", 0.5, 0.0, 0.5, 0.5))
    found = source_lesions(sample(boxes=boxes), "lung_opacity", 10, 10)
    assert [lesion.sum() for lesion in found] == [25, 25]


def test_the_figures_by_hand() -> None:
    rows = np.zeros((6, COLUMNS))
    rows[0] = [100, 100, 50, 1, 1, 1, 0, 0]  # IoU 1/3, half inside
    rows[1] = [200, 100, 100, 2, 1, 3, 2, 1]  # IoU 1/2, half inside
    rows[2] = [0, 100, 0, 1, 0, 0, 0, 0]  # missed
    rows[3, [SAID, REGIONS, FALSE]] = 10, 2, 2  # a normal image with two regions
    kinds = [BOXES, BOXES, BOXES, NORMAL, ABSENT, OUTLINES]
    rows[5] = [50, 50, 50, 1, 1, 1, 0, 0]
    found = lesion_figures("lung_opacity", rows, kinds, ["a", "b", "c", "d", "e", "f"], rounds=50)
    boxes, drawn = found[BOXES], found[OUTLINES]
    assert (boxes.positives, boxes.marked, boxes.lesions, boxes.normals, boxes.absent) == (3, 2, 4, 1, 2)
    assert boxes.iou.value == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert boxes.iou_marked.value == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert boxes.precision.value == pytest.approx(0.5)
    assert boxes.area.value == pytest.approx(1.5)
    assert boxes.hit.value == pytest.approx(2 / 4)
    assert boxes.stray.value == pytest.approx(2 / 4)
    assert boxes.across.value == pytest.approx(1 / 3)
    assert boxes.marked_anywhere == 3
    assert boxes.false_normal.value == 2.0
    assert boxes.false_absent.value == 1.0
    assert (drawn.positives, drawn.iou.value) == (1, 1.0)
    assert boxes.iou.low <= boxes.iou.value <= boxes.iou.high
    head, *lines = lesion_rows([boxes, drawn], lambda interval: f"{interval.value:.2f}")
    assert head == ("figure", "lung_opacity, against boxes", "lung_opacity, against outlines")
    assert ("lesions hit", "0.50, 4 lesions", "1.00, 1 lesions") in lines


def test_nothing_is_marked_where_the_finding_is_not_called_present() -> None:
    row = np.array([[100, 100, 50, 1, 1, 1, 0, 0]], np.float64)
    assert silenced(row, np.array([False])).tolist() == [[0, 100, 0, 1, 0, 0, 0, 0]]
    assert silenced(row, np.array([True])).tolist() == row.tolist()
