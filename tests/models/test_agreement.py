"""How far two answers are apart, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.agreement import difference

Answer = dict[str, np.ndarray]


def detections(*rows: tuple[float, float, float, float, float, float]) -> Answer:
    table = np.array([rows], np.float32)
    return {"boxes": table[..., :4], "scores": table[..., 4], "classes": table[..., 5]}


FIRST = (10, 10, 20, 20, 0.9, 0)
SECOND = (50, 50, 90, 100, 0.5, 1)
NOTHING = (0, 0, 0, 0, 0, 0)


def test_plain_outputs_differ_by_their_values() -> None:
    one = {"probabilities": np.array([[0.5, 0.2]], np.float32), "distance": np.array([200.0], np.float32)}
    other = {"probabilities": np.array([[0.5, 0.3]], np.float32), "distance": np.array([202.0], np.float32)}
    assert difference(one, one) == 0
    assert difference(one, other) == pytest.approx(0.1)
    assert difference(one, other, leaving_out=["probabilities"]) == pytest.approx(0.01)
    broken = {**other, "probabilities": np.array([[0.5, np.nan]], np.float32)}
    assert difference(one, broken) == difference(broken, broken) == np.inf


def test_the_order_of_detections_does_not_matter() -> None:
    assert difference(detections(FIRST, SECOND), detections(SECOND, FIRST)) == 0
    moved = (50, 50, 90, 99, 0.5, 1)
    assert difference(detections(FIRST, SECOND, NOTHING), detections(moved, FIRST, NOTHING)) == pytest.approx(0.01)
    surer = (50, 50, 90, 100, 0.7, 1)
    assert difference(detections(FIRST, SECOND, NOTHING), detections(FIRST, surer, NOTHING)) == pytest.approx(0.2)


def test_a_detection_that_is_missing_or_of_another_class_is_as_far_away_as_it_is_probable() -> None:
    assert difference(detections(FIRST, SECOND), detections(FIRST, NOTHING)) == pytest.approx(0.5)
    assert difference(detections(FIRST, NOTHING), detections(FIRST, SECOND)) == pytest.approx(0.5)
    other = (50, 50, 90, 100, 0.5, 0)
    assert difference(detections(FIRST, SECOND, NOTHING), detections(FIRST, other, NOTHING)) == pytest.approx(0.5)


def test_the_last_of_a_full_list_may_give_way_to_an_equal() -> None:
    equal = (0, 0, 9, 9, 0.49999, 1)
    assert difference(detections(FIRST, SECOND), detections(FIRST, equal)) < 1e-4
