"""Faster and Mask R-CNN: what they are built of, are taught and answer. That they learn is the contract test's part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.architectures.base import Architecture, Plan, check_plan
from tests.models.detectors.tiny import SIZE, squares
from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402
from keras import ops  # noqa: E402

from models.detectors.architecture import (  # noqa: E402
    FASTER_RCNN,
    MASK_RCNN,
    anchor_plan,
)
from models.detectors.boxes import overlaps  # noqa: E402

LABELS = ("lung_opacity", "nodule")
OPTIONS = {"proposals": 12, "detections": 5}
FASTER = Plan("faster-rcnn", SIZE, LABELS, encoder="vgg-small", width=0.125, options=OPTIONS)
MASK = replace(FASTER, architecture="mask-rcnn")


@pytest.fixture(scope="module", params=[FASTER, replace(FASTER, options={**OPTIONS, "fpn": True}), MASK])
def built(request: pytest.FixtureRequest) -> tuple[Architecture, Plan, keras.Model]:
    plan = request.param
    architecture = MASK_RCNN if plan.architecture == "mask-rcnn" else FASTER_RCNN
    check_plan(architecture, plan)
    keras.utils.set_random_seed(1)
    return architecture, plan, architecture.build(plan)


def test_every_output_has_its_truth_and_a_finite_loss(built: tuple[Architecture, Plan, keras.Model]) -> None:
    architecture, plan, network = built
    batch = squares(3)
    answers = network(batch.pixels)
    truths, losses = architecture.truths(plan, batch), architecture.losses(plan)
    assert set(truths) == set(losses) == set(answers)
    for name, loss in losses.items():
        assert len(truths[name].shape) == len(answers[name].shape) == 3
        values = ops.convert_to_numpy(loss(truths[name], answers[name]))
        assert values.shape == (3,)
        assert np.isfinite(values).all()
    anchors = anchor_plan(SIZE, fpn=plan.architecture == "mask-rcnn" or bool(plan.options.get("fpn")))
    assert answers["rpn_logits"].shape[1] == anchors.count
    proposals = ops.convert_to_numpy(answers["heads"])[..., :4]
    assert proposals.shape == (3, 12, 4)
    assert proposals.min() >= 0
    assert proposals.max() <= SIZE


def test_what_is_served_is_sorted_inside_the_image_and_survives_its_file(
    built: tuple[Architecture, Plan, keras.Model], tmp_path: object
) -> None:
    architecture, plan, network = built
    served = architecture.serve(network, plan)
    pixels = squares(3).pixels
    answer = {name: ops.convert_to_numpy(value) for name, value in served(pixels, training=False).items()}
    assert answer["boxes"].shape == (3, 5, 4)
    assert (np.diff(answer["scores"], axis=1) <= 0).all()
    assert answer["scores"].min() >= 0
    assert answer["scores"].max() <= 1
    assert set(np.unique(answer["classes"])) <= {0.0, 1.0}
    for image in range(3):
        for label in (0, 1):
            own = answer["boxes"][image][(answer["scores"][image] > 0) & (answer["classes"][image] == label)]
            assert np.triu(overlaps(own, own), 1).max(initial=0) <= 0.5 + 1e-5
    if plan.architecture == "mask-rcnn":
        assert answer["maps"].shape == (3, SIZE // 2, SIZE // 2, 2)
        assert 0 <= answer["maps"].min() <= answer["maps"].max() <= 1
    file = f"{tmp_path}/served.keras"
    served.save(file)
    again = keras.saving.load_model(file, compile=False, safe_mode=True)(pixels[:1], training=False)
    for name, values in answer.items():
        np.testing.assert_allclose(ops.convert_to_numpy(again[name]), values[:1], atol=1e-4, err_msg=name)


def test_a_mask_head_without_masks_is_told_what_to_do() -> None:
    batch = squares(2)
    bare = replace(batch, masks=None)
    with pytest.raises(ValueError, match="rectangles"):
        MASK_RCNN.truths(MASK, bare)
    drawn = replace(MASK, options={**OPTIONS, "shapes": "rectangles"})
    cells = (SIZE // 2) ** 2 * len(LABELS)
    found, asked = (MASK_RCNN.truths(drawn, one)["masks"][:, :cells] for one in (bare, batch))
    np.testing.assert_array_equal(found, asked)
    assert found.any()
    with pytest.raises(ValueError, match="must be one of masks"):
        MASK_RCNN.build(replace(MASK, options={"shapes": "triangles"}))
