"""RetinaNet: what it is built of, is taught and answers. That it learns is the contract test's business."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.architectures.base import Plan, check_plan
from tests.models.detectors.tiny import SIZE, squares
from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402
from keras import ops  # noqa: E402

from models.detectors.architecture import RETINANET, pyramid_anchors  # noqa: E402
from models.detectors.boxes import encode, overlaps  # noqa: E402

PLAN = Plan("retinanet", SIZE, ("lung_opacity", "nodule"), encoder="resnet18", width=0.125, options={"detections": 5})


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return RETINANET.build(PLAN)


def test_every_anchor_has_its_answer_and_its_truth(network: keras.Model) -> None:
    check_plan(RETINANET, PLAN)
    batch = squares(3)
    answers = network(batch.pixels)
    count = pyramid_anchors(SIZE).count
    assert count == 9 * (64 + 16 + 4 + 1 + 1)
    truths, losses = RETINANET.truths(PLAN, batch), RETINANET.losses(PLAN)
    assert set(truths) == set(losses) == set(answers)
    assert tuple(answers["class_logits"].shape) == (3, count, 2)
    assert tuple(answers["box_deltas"].shape) == (3, count, 4)
    for name, loss in losses.items():
        values = ops.convert_to_numpy(loss(truths[name], answers[name]))
        assert values.shape == (3,)
        assert np.isfinite(values).all()
    chances = ops.convert_to_numpy(ops.sigmoid(answers["class_logits"]))
    assert np.median(chances) == pytest.approx(0.01, abs=0.009)


def test_a_perfect_network_would_be_served_as_the_truth(network: keras.Model) -> None:
    """Truths as answers: the boxes come back through anchors, suppression and the fixed number of rows."""
    batch = squares(4)
    assert batch.boxes is not None
    truths = RETINANET.truths(PLAN, batch)
    logits = keras.Input((pyramid_anchors(SIZE).count, 2), name="logits")
    deltas = keras.Input((pyramid_anchors(SIZE).count, 4), name="deltas")
    found = keras.Model([logits, deltas], {"class_logits": logits, "box_deltas": deltas})
    served = RETINANET.serve(found, PLAN)
    values = truths["class_logits"][..., :2]
    answer = served.predict_on_batch([np.where(values > 0, 6.0, -30.0), truths["box_deltas"][..., :4]])
    assert answer["boxes"].shape == (4, 5, 4)
    assert answer["scores"].shape == answer["classes"].shape == (4, 5)
    for image in (0, 2):
        assert (answer["scores"][image] > 0.9).sum() == 1
        np.testing.assert_allclose(answer["boxes"][image, 0], batch.boxes[image, 0, :4], atol=1e-3)
        assert answer["classes"][image, 0] == batch.boxes[image, 0, 4]
    assert answer["scores"][1].max() < 1e-6


def test_what_is_served_is_sorted_inside_the_image_and_does_not_overlap_itself(network: keras.Model) -> None:
    plan = replace(PLAN, options={"detections": 60, "candidates": 80, "overlap": 0.4})
    answer = RETINANET.serve(network, plan).predict_on_batch(squares(2).pixels)
    boxes, scores, classes = answer["boxes"], answer["scores"], answer["classes"]
    assert boxes.shape == (2, 60, 4)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert boxes.min() >= 0
    assert boxes.max() <= SIZE
    assert (scores[:, -1] == 0).all()
    assert not boxes[scores == 0].any()
    for image in range(2):
        for label in (0, 1):
            own = boxes[image][(scores[image] > 0) & (classes[image] == label)]
            assert np.triu(overlaps(own, own), 1).max(initial=0) <= 0.4 + 1e-5


def test_more_rows_than_anchors_are_filled_up(network: keras.Model) -> None:
    count = pyramid_anchors(SIZE).count * 2
    plan = replace(PLAN, options={"detections": count + 3, "candidates": count + 9})
    answer = RETINANET.serve(network, plan).predict_on_batch(squares(1).pixels)
    assert answer["scores"].shape == (1, count + 3)
    assert not answer["scores"][0, -3:].any()


def test_the_truth_of_a_box_is_how_far_it_is_from_its_anchor() -> None:
    batch = squares(1)
    assert batch.boxes is not None
    truth = RETINANET.truths(PLAN, batch)["box_deltas"][0]
    anchors = pyramid_anchors(SIZE).boxes()
    rows = truth[:, 4] > 0
    assert rows.any()
    np.testing.assert_allclose(truth[rows, :4], encode(batch.boxes[0, 0, :4], anchors[rows]), rtol=1e-5, atol=1e-6)
