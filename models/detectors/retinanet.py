"""RetinaNet (Lin et al., 2017): one stage, a feature pyramid, and a loss that looks at what is still wrong."""

from __future__ import annotations

from collections.abc import Mapping
from math import log

import keras
from keras import layers

from models.architectures.contract import Architecture, Batch, Loss, Plan, Truths
from models.contract import ModelKind
from models.detectors.anchors import OCTAVE, AnchorPlan, default_scale
from models.detectors.fpn import FILTERS, Head, output_layer, pyramid, rows
from models.detectors.layers import AnchorBoxes, Detections
from models.detectors.losses import delta_loss, focal_loss
from models.detectors.targets import one_stage
from models.encoders.parts import repeated, scaled
from models.encoders.table import encode

STRIDES = (8, 16, 32)
COARSER = 2
DEPTH = 4
PRIOR = 0.01
"""How probable everything is at first."""


class RetinaNet(Architecture):
    """Anchors of nine shapes at five strides, each judged for each label by a sigmoid of its own.

    Trained outputs: ``class_logits [n, anchors, labels]`` and ``box_deltas [n, anchors, 4]``.
    """

    __slots__ = ()

    def build(self, plan: Plan) -> keras.Model:
        """See :meth:`Architecture.build`."""
        image = keras.Input((plan.size, plan.size, 1), name="image")
        features = pyramid(encode(plan.encoder, image, plan.width, plan.initial), STRIDES, plan.width, COARSER)
        anchors, filters = anchor_plan(plan.size), scaled(FILTERS, plan.width)
        depth = repeated(DEPTH, plan.width)
        classes = output_layer(anchors.each * len(plan.labels), "class", bias=-log((1 - PRIOR) / PRIOR))
        deltas = output_layer(anchors.each * 4, "box")
        outputs = {
            "class_logits": rows(
                Head("class_head", filters, depth).features(features), classes, len(plan.labels), "class_logits"
            ),
            "box_deltas": rows(Head("box_head", filters, depth).features(features), deltas, 4, "box_deltas"),
        }
        return keras.Model(image, outputs, name="retinanet")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """See :meth:`Architecture.losses`."""
        return {"class_logits": focal_loss, "box_deltas": delta_loss}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """See :meth:`Architecture.truths`."""
        return one_stage(batch, anchor_plan(plan.size).boxes())

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """See :meth:`Architecture.serve`."""
        anchors = anchor_plan(plan.size)
        boxes = AnchorBoxes(plan.size, anchors.strides, anchors.scales, anchors.ratios, name="anchor_boxes")(
            network.output["box_deltas"]
        )
        scores = layers.Activation("sigmoid", name="chances", dtype="float32")(network.output["class_logits"])
        count = int(self.option(plan, "detections"))
        detect = Detections(count, int(self.option(plan, "candidates")), float(self.option(plan, "overlap")))
        boxes, scores, classes = detect(layers.Reshape((-1, 1, 4), name="each_label")(boxes), scores)
        return keras.Model(
            network.input, {"boxes": boxes, "scores": scores, "classes": classes}, name="retinanet_serving"
        )


def anchor_plan(size: int) -> AnchorPlan:
    """RetinaNet's anchors in an image of ``size`` pixels a side."""
    strides = tuple(STRIDES[0] * 2**index for index in range(len(STRIDES) + COARSER))
    return AnchorPlan(size, strides, tuple(default_scale(size) * octave for octave in OCTAVE))


RETINANET = RetinaNet(
    name="retinanet",
    kind=ModelKind.DETECTOR,
    title="RetinaNet",
    source="Lin et al., Focal Loss for Dense Object Detection, 2017",
    encoders=(
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "se-resnext50",
        "se-resnext101",
        "densenet121",
        "vgg16",
        "vgg-small",
        "efficientnet-lite0",
        "plain",
        "light",
    ),
    options={"detections": 16, "candidates": 200, "overlap": 0.5},
)
