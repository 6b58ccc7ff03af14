"""Faster R-CNN (Ren et al., 2015): proposals, features under each, and two heads that say what and where exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from models.architectures.contract import Architecture, Batch, Loss, Plan, Truths
from models.contract import ModelKind
from models.detectors.anchors import AnchorPlan, default_scale
from models.detectors.fpn import FILTERS, pyramid
from models.detectors.layers import Detections, Refined, RoiAlign
from models.detectors.losses import delta_loss, objectness_loss
from models.detectors.rpn import proposals, region_network
from models.detectors.second_stage import heads_loss, pack_heads
from models.detectors.targets import region_proposals, second_stage
from models.encoders.parts import scaled
from models.encoders.table import encode

STRIDE = 16
"""Of the features of a detector without a pyramid."""
SHARES = (0.1, 0.2, 0.4, 0.8)
"""Sides of its anchors as shares of the image's: opacities are a tenth to most of a radiograph."""
PYRAMID = (4, 8, 16, 32)
RPN_FILTERS = 512
UNITS = 1024
RESOLUTION = 7
RPN_BETA = 1.0 / 9.0
ENCODERS = ("vgg16", "resnet50", "resnet101", "resnet18", "resnet34", "densenet121", "efficientnet-lite0", "vgg-small")


@dataclass(frozen=True, slots=True)
class Features:
    """What a two-stage detector looks at: ``search`` for its proposals, ``under`` for what lies under them."""

    search: Mapping[int, Any]
    under: Mapping[int, Any]


def anchor_plan(size: int, *, fpn: bool) -> AnchorPlan:
    """Anchors at one stride in several sizes, or with a pyramid of one size at each of its strides."""
    if fpn:
        return AnchorPlan(size, (*PYRAMID, 2 * PYRAMID[-1]), (2 * default_scale(size),))
    return AnchorPlan(size, (STRIDE,), tuple(share * size / STRIDE for share in SHARES))


def features(image: Any, plan: Plan, *, fpn: bool) -> Features:
    """The encoder's features, through a pyramid if wanted."""
    found = encode(plan.encoder, image, plan.width, plan.initial)
    if not fpn:
        return Features({STRIDE: found[STRIDE]}, {STRIDE: found[STRIDE]})
    levels = pyramid(found, PYRAMID, plan.width, coarser=1)
    return Features(levels, {stride: levels[stride] for stride in PYRAMID})


class FasterRcnn(Architecture):
    """The region proposal network and the second stage, taught together.

    Trained outputs: ``rpn_logits [n, anchors, 1]``, ``rpn_deltas [n, anchors, 4]``, and ``heads``, the proposals with
    both heads' answers (:func:`models.detectors.second_stage.pack_heads`).
    """

    __slots__ = ()

    def fpn(self, plan: Plan) -> bool:
        """Whether the plan has a feature pyramid."""
        return bool(self.option(plan, "fpn"))

    def build(self, plan: Plan) -> keras.Model:
        """See :meth:`Architecture.build`."""
        image = keras.Input((plan.size, plan.size, 1), name="image")
        outputs, _, _ = self.stages(image, plan)
        return keras.Model(image, outputs, name=self.name.replace("-", "_"))

    def stages(self, image: Any, plan: Plan) -> tuple[dict[str, Any], Features, Any]:
        """Both stages: their outputs, the features they saw, the proposals."""
        seen = features(image, plan, fpn=self.fpn(plan))
        anchors = anchor_plan(plan.size, fpn=self.fpn(plan))
        width = FILTERS if self.fpn(plan) else RPN_FILTERS
        logits, deltas = region_network(seen.search, anchors, scaled(width, plan.width))
        regions = proposals(logits, deltas, anchors, int(self.option(plan, "proposals")))
        kinds, corrections = heads(regions, seen, plan)
        outputs = {"rpn_logits": logits, "rpn_deltas": deltas, "heads": pack_heads(regions, kinds, corrections)}
        return outputs, seen, regions

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """See :meth:`Architecture.losses`."""
        return {"rpn_logits": objectness_loss, "rpn_deltas": delta_loss, "heads": heads_loss(len(plan.labels))}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """See :meth:`Architecture.truths`."""
        anchors = anchor_plan(plan.size, fpn=self.fpn(plan)).boxes()
        return {**region_proposals(batch, anchors), "heads": second_stage(batch)}

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """See :meth:`Architecture.serve`."""
        boxes, scores, classes = self.detections(network, plan)
        answers = {"boxes": boxes, "scores": scores, "classes": classes}
        return keras.Model(network.input, answers, name=f"{network.name}_serving")

    def detections(self, network: keras.Model, plan: Plan) -> tuple[Any, Any, Any]:
        """Boxes, scores and classes of a trained network, a fixed number for each image."""
        regions, kinds, corrections = (network.get_layer(name).output for name in ("proposals", "kinds", "corrections"))
        labels, count = len(plan.labels), int(regions.shape[1])
        chances = layers.Softmax(name="chances", dtype="float32")(kinds)[..., 1:]
        each = ops.reshape(corrections, (-1, count, labels, 4))
        refined = Refined(plan.size, name="refined")(regions, each)
        rows, overlap = int(self.option(plan, "detections")), float(self.option(plan, "overlap"))
        found: tuple[Any, Any, Any] = Detections(rows, count * labels, overlap, name="detections")(refined, chances)
        return found


def heads(regions: Any, seen: Features, plan: Plan) -> tuple[Any, Any]:
    """What is in each proposal (``[n, p, 1 + labels]``, nothing first) and how each label would correct it."""
    count, labels = int(regions.shape[1]), len(plan.labels)
    x = RoiAlign(tuple(seen.under), RESOLUTION, name="roi_align")(regions, list(seen.under.values()))
    x = layers.Reshape((count, -1), name="roi_flat")(x)
    units = scaled(UNITS, plan.width)
    for name in ("roi_1", "roi_2"):
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=name)(x)
    small = keras.initializers.RandomNormal(stddev=0.01)
    kinds = layers.Dense(1 + labels, kernel_initializer=small, name="kinds", dtype="float32")(x)
    fine = keras.initializers.RandomNormal(stddev=0.001)
    return kinds, layers.Dense(4 * labels, kernel_initializer=fine, name="corrections", dtype="float32")(x)


FASTER_RCNN = FasterRcnn(
    name="faster-rcnn",
    kind=ModelKind.DETECTOR,
    title="Faster R-CNN",
    source="Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, 2015",
    encoders=ENCODERS,
    options={"fpn": False, "proposals": 64, "detections": 16, "overlap": 0.5},
)
