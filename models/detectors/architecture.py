"""Faster R-CNN (Ren et al., 2015): proposals, features under each, and two heads that say what and where exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

import keras
from keras import layers, ops

from models.architectures.base import Architecture, Batch, Loss, Plan, Truths
from models.detectors.boxes import OCTAVE, AnchorPlan, default_scale
from models.detectors.layers import AnchorBoxes, Detections, PastedMasks, Refined, RoiAlign
from models.detectors.losses import (
    SHAPES,
    delta_loss,
    focal_loss,
    heads_loss,
    mask_loss,
    masks_for,
    objectness_loss,
    pack_heads,
    pack_truth,
)
from models.detectors.network import FILTERS, Head, output_layer, proposals, region_network, rows
from models.detectors.targets import boxes_of, one_stage, region_proposals, second_stage
from models.encoders.parts import repeated, scaled
from models.encoders.pyramid import pyramid
from models.encoders.table import encode
from models.model_spec import ModelKind

STRIDE = 16
"""Of the features of a detector without a pyramid."""
SHARES = (0.1, 0.2, 0.4, 0.8)
"""Sides of its anchors as shares of the image's: opacities are a tenth to most of a radiograph."""
PYRAMID = (4, 8, 16, 32)
RPN_FILTERS = 512
UNITS = 1024
RESOLUTION = 7
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
    levels = pyramid(found, PYRAMID, scaled(FILTERS, plan.width), coarser=1)
    return Features(levels, {stride: levels[stride] for stride in PYRAMID})


class FasterRcnn(Architecture):
    """The region proposal network and the second stage, taught together.

    Trained outputs: ``rpn_logits [n, anchors, 1]``, ``rpn_deltas [n, anchors, 4]``, and ``heads``, the proposals with
    both heads' answers (:func:`models.detectors.losses.pack_heads`).
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


STRIDES = (8, 16, 32)
COARSER = 2
DEPTH = 4
PRIOR = 0.01
"""How probable everything is at first."""


class RetinaNet(Architecture):
    """Anchors of nine shapes at five strides, each analysed for each label by a sigmoid of its own.

    Trained outputs: ``class_logits [n, anchors, labels]`` and ``box_deltas [n, anchors, 4]``.
    """

    __slots__ = ()

    def build(self, plan: Plan) -> keras.Model:
        """See :meth:`Architecture.build`."""
        image = keras.Input((plan.size, plan.size, 1), name="image")
        anchors, filters = pyramid_anchors(plan.size), scaled(FILTERS, plan.width)
        features = pyramid(encode(plan.encoder, image, plan.width, plan.initial), STRIDES, filters, COARSER)
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
        return one_stage(batch, pyramid_anchors(plan.size).boxes())

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """See :meth:`Architecture.serve`."""
        anchors = pyramid_anchors(plan.size)
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


def pyramid_anchors(size: int) -> AnchorPlan:
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


MASK_RESOLUTION = 14
MASK_SIDE = 2 * MASK_RESOLUTION
MASK_DEPTH = 4
TAUGHT = 16
"""Proposals whose masks are taught; the rest are seldom near a box."""


class MaskRcnn(FasterRcnn):
    """Served as boxes, scores, classes, and ``maps`` of half the input's size, on which the masks are laid.

    Trained outputs beside those of Faster R-CNN: ``masks``, the first proposals with the logits of their masks,
    ``[n, k, 4 + 28 * 28 * labels]``.
    """

    __slots__ = ()

    def fpn(self, plan: Plan) -> bool:
        """Always."""
        return True

    def build(self, plan: Plan) -> keras.Model:
        """See :meth:`Architecture.build`."""
        self._shapes(plan)
        image = keras.Input((plan.size, plan.size, 1), name="image")
        outputs, seen, regions = self.stages(image, plan)
        first = regions[:, : min(TAUGHT, int(regions.shape[1])), :]
        head = mask_head(int(next(iter(seen.under.values())).shape[-1]), len(plan.labels), plan.width)
        flat = ops.reshape(
            masks_under(first, seen, head), (-1, first.shape[1], MASK_SIDE * MASK_SIDE * len(plan.labels))
        )
        outputs["masks"] = ops.concatenate([first, flat], axis=-1)
        return keras.Model(image, outputs, name="mask_rcnn")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """See :meth:`Architecture.losses`."""
        return {**FasterRcnn.losses(self, plan), "masks": mask_loss(len(plan.labels), plan.size, MASK_SIDE)}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """See :meth:`Architecture.truths`."""
        found = FasterRcnn.truths(self, plan, batch)
        masks = masks_for(batch, boxes_of(batch), self._shapes(plan), plan.size)
        return {**found, "masks": pack_truth(masks, found["heads"])}

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """See :meth:`Architecture.serve`."""
        boxes, scores, classes = self.detections(network, plan)
        levels = {stride: network.get_layer(f"fpn_{stride}").output for stride in PYRAMID}
        logits = masks_under(boxes, Features(levels, levels), network.get_layer("mask_head"))
        masks = layers.Activation("sigmoid", name="mask_chances", dtype="float32")(logits)
        maps = PastedMasks(plan.size, plan.size // 2, name="pasted")(boxes, scores, classes, masks)
        answers = {"boxes": boxes, "scores": scores, "classes": classes, "maps": maps}
        return keras.Model(network.input, answers, name="mask_rcnn_serving")

    def _shapes(self, plan: Plan) -> str:
        shapes = str(self.option(plan, "shapes"))
        if shapes not in SHAPES:
            raise ValueError(f"option 'shapes' of mask-rcnn must be one of {', '.join(SHAPES)}, not '{shapes}'")
        return shapes


def mask_head(channels: int, labels: int, width: float) -> keras.Model:
    """From features ``[k, 14, 14, channels]`` under boxes to logits ``[k, 28, 28, labels]`` of each label's mask."""
    filters = scaled(FILTERS, width)
    x = under = keras.Input((MASK_RESOLUTION, MASK_RESOLUTION, channels), name="under")
    for number in range(repeated(MASK_DEPTH, width)):
        x = layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"mask_{number}"
        )(x)
    x = layers.Conv2DTranspose(filters, 2, 2, activation="relu", kernel_initializer="he_normal", name="mask_up")(x)
    return keras.Model(under, layers.Conv2D(labels, 1, name="mask_logits", dtype="float32")(x), name="mask_head")


def masks_under(boxes: Any, seen: Features, head: keras.Model) -> Any:
    """The mask head's logits under ``boxes [n, k, 4]``: ``[n, k, 28, 28, labels]``."""
    count, name = int(boxes.shape[1]), f"mask_align_{boxes.shape[1]}"
    found = RoiAlign(tuple(seen.under), MASK_RESOLUTION, name=name)(boxes, list(seen.under.values()))
    logits = head(ops.reshape(found, (-1, *found.shape[2:])))
    return ops.reshape(logits, (-1, count, MASK_SIDE, MASK_SIDE, logits.shape[-1]))


MASK_RCNN = MaskRcnn(
    name="mask-rcnn",
    kind=ModelKind.DETECTOR,
    title="Mask R-CNN",
    source="He et al., Mask R-CNN, 2017",
    encoders=ENCODERS,
    options={"proposals": 64, "detections": 16, "overlap": 0.5, "shapes": "masks"},
)
