"""Detection figures by hand, and average precision against pycocotools."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import coco
from pycocotools.cocoeval import COCOeval

from models.training.evaluation.detection import (
    COCO,
    RSNA,
    Marks,
    average_precision,
    competition_score,
    detect,
    marks_of,
    match,
    points_at_a_box,
    sensitivity_at,
)


def marks(predicted: list[list[float]], true: list[list[float]]) -> Marks:
    return Marks(np.array(predicted, float).reshape(-1, 5), np.array(true, float).reshape(-1, 4))


BOX = [0.0, 0, 10, 10]
HIT = marks([[0, 0, 10, 10, 0.9]], [BOX])
HALF = marks([[0, 0, 10, 5, 0.8]], [BOX])  # overlaps by 0.5
FALSE = marks([[0, 0, 10, 10, 0.7]], [])
NOTHING = marks([], [])
MISSED = marks([], [BOX])


def test_each_box_is_hit_once_by_the_most_probable_detection() -> None:
    image = marks([[0, 0, 10, 9, 0.5], [0, 0, 10, 10, 0.9], [50, 50, 60, 60, 0.7]], [BOX])
    found = match(image, 0.5)
    np.testing.assert_array_equal(found.scores, [0.9, 0.7, 0.5])
    np.testing.assert_array_equal(found.hits, [True, False, False])


def test_a_detection_takes_the_free_box_that_it_overlaps_most() -> None:
    image = marks([[0, 0, 10, 10, 0.9], [0, 0, 10, 10, 0.8]], [[0, 0, 10, 8], BOX])
    np.testing.assert_array_equal(match(image, 0.5).hits, [True, True])
    np.testing.assert_array_equal(match(image, 0.9).hits, [True, False])
    np.testing.assert_array_equal(match(HALF, 0.5).hits, [True])
    np.testing.assert_array_equal(match(HALF, 0.51).hits, [False])


def test_average_precision_by_hand() -> None:
    def ap(*images: Marks) -> float:
        return average_precision([match(image, 0.5) for image in images])

    assert ap(HIT) == pytest.approx(1.0)
    assert ap(HIT, MISSED) == pytest.approx(51 / 101)  # recalls 0 to 0.50
    assert ap(HIT, FALSE) == pytest.approx(1.0)  # the false mark is less probable
    louder = marks([[0, 0, 10, 10, 0.95]], [])
    assert ap(HIT, louder) == pytest.approx(0.5)
    assert ap(MISSED) == 0.0
    assert math.isnan(ap(FALSE, NOTHING))


def test_the_competition_s_figure_by_hand() -> None:
    assert competition_score(HIT, 0.5) == pytest.approx(1.0)
    assert competition_score(HALF, 0.5) == pytest.approx(3 / 8)  # 0.40, 0.45 and 0.50 of eight thresholds
    assert competition_score(FALSE, 0.5) == 0.0
    assert competition_score(MISSED, 0.5) == 0.0
    assert competition_score(HIT, 0.95) == 0.0
    assert math.isnan(competition_score(NOTHING, 0.5))
    assert math.isnan(competition_score(FALSE, 0.75))
    two = marks([[0, 0, 10, 10, 0.9], [50, 50, 60, 60, 0.9]], [BOX, [20, 20, 30, 30]])
    assert competition_score(two, 0.5) == pytest.approx(1 / 3)  # one hit, one false mark, one box missed
    assert (RSNA[0], RSNA[-1], len(RSNA)) == (0.4, 0.75, 8)


def test_free_response_by_hand() -> None:
    images = [match(image, 0.4) for image in (HIT, FALSE, marks([[0, 0, 10, 10, 0.6]], [BOX]), NOTHING)]
    assert sensitivity_at(images, 0.0) == 0.5
    assert sensitivity_at(images, 0.2) == 0.5
    assert sensitivity_at(images, 0.25) == 1.0
    assert sensitivity_at([match(MISSED, 0.4)], 8.0) == 0.0
    tied = [match(marks([[0, 0, 10, 10, 0.9]], [BOX]), 0.4), match(marks([[0, 0, 9, 9, 0.9]], []), 0.4)]
    assert sensitivity_at(tied, 0.25) == 0.0
    assert math.isnan(sensitivity_at([match(FALSE, 0.4)], 1.0))


def test_pointing_at_a_box() -> None:
    assert points_at_a_box(HALF)
    assert not points_at_a_box(marks([[0, 0, 10, 10, 0.5], [8, 8, 20, 20, 0.9]], [BOX]))
    assert not points_at_a_box(MISSED)


def test_one_label_s_share_of_all_boxes() -> None:
    found = np.array([[0, 0, 1, 1, 0.5, 0], [0, 0, 2, 2, 0.4, 1], [0, 0, 0, 0, 0, 0]])
    true = np.array([[0, 0, 3, 3, 1], [0, 0, 0, 0, -1]], np.float64)
    first, second = marks_of(found, true, 0), marks_of(found, true, 1)
    assert first.predicted.tolist() == [[0, 0, 1, 1, 0.5]]
    assert first.true.shape == (0, 4)
    np.testing.assert_allclose(second.predicted, [[0, 0, 2, 2, 0.4]], rtol=1e-6)
    assert second.true.tolist() == [[0, 0, 3, 3]]


def test_all_figures_of_a_finding() -> None:
    images = [HIT, FALSE, MISSED, NOTHING, HALF, marks([[0, 0, 9, 9, 0.2], [0, 0, 9, 9, 0.9]], [])]
    found = detect("opacity", images, ["a", "b", "c", "d", "a", "e"], 0.5, rounds=50)
    assert (found.images, found.positives, found.positive_patients, found.boxes) == (6, 3, 2, 3)
    assert found.marked_normals.value == pytest.approx(2 / 3)
    assert found.false_per_hundred.value == pytest.approx(200 / 3)
    assert found.sensitivity.value == pytest.approx(2 / 3)
    assert found.pointing.value == pytest.approx(2 / 3)
    # Without the normal images nobody sees that they are marked.
    assert found.positive_images.at[0.5].value > found.all_images.at[0.5].value
    assert found.competition_positives.value == pytest.approx((1 + 0 + 3 / 8) / 3)
    assert found.competition.value == pytest.approx((1 + 0 + 0 + 3 / 8 + 0) / 5)
    assert found.froc[0.125] <= found.froc[8.0] == pytest.approx(2 / 3)
    assert found.all_images.at[0.5].low <= found.all_images.at[0.5].value <= found.all_images.at[0.5].high
    assert found.as_dict()["all_images"]["at"][0.5]["value"] == found.all_images.at[0.5].value


def test_what_cannot_be_said_is_not_a_number() -> None:
    normals = detect("opacity", [FALSE, NOTHING], ["a", "b"], 0.5, rounds=20)
    assert math.isnan(normals.all_images.at[0.5].value)
    assert math.isnan(normals.positive_images.coco)
    assert math.isnan(normals.pointing.value)
    assert normals.false_per_hundred.value == 50
    positives = detect("opacity", [HIT], ["a"], 0.5, rounds=20)
    assert math.isnan(positives.false_per_hundred.value)
    assert positives.competition.value == pytest.approx(1.0)


def random_images(seed: int) -> list[Marks]:
    """Boxes, and detections of which some lie near them; scores that tie now and then."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        corners = rng.uniform(0, 60, (rng.integers(0, 4), 2))
        true = np.concatenate([corners, corners + rng.uniform(8, 30, corners.shape)], axis=1)
        near = true + rng.normal(0, 3, true.shape)
        corners = rng.uniform(0, 60, (rng.integers(0, 4), 2))
        boxes = np.concatenate([near, np.concatenate([corners, corners + rng.uniform(8, 30, corners.shape)], axis=1)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        images.append(Marks(np.column_stack([boxes, np.round(rng.random(len(boxes)), 1)]), true))
    return images


def by_coco(images: list[Marks]) -> np.ndarray:
    """Average precision at each of COCO's thresholds, by its own program."""

    def sized(box: np.ndarray) -> list[float]:
        return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]

    annotations, results = [], []
    for number, image in enumerate(images, start=1):
        for box in image.true:
            place = sized(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": place,
                    "area": place[2] * place[3],
                    "iscrowd": 0,
                }
            )
        results += [
            {"image_id": number, "category_id": 1, "bbox": sized(box), "score": float(box[4])}
            for box in image.predicted
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": number} for number in range(1, len(images) + 1)],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "opacity"}],
        }
        truth.createIndex()
        evaluated = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
    return np.asarray(evaluated.eval["precision"][:, :, 0, 0, -1]).mean(axis=1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_average_precision_is_coco_s(seed: int) -> None:
    images = random_images(seed)
    if any(len(image.true) for image in images) and any(len(image.predicted) for image in images):
        own = [average_precision([match(image, threshold) for image in images]) for threshold in COCO]
        np.testing.assert_allclose(own, by_coco(images), atol=1e-9)
