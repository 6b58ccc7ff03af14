"""Mask R-CNN (He et al., 2017): Faster R-CNN over a feature pyramid, with a mask for each box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers, ops

from models.architectures.contract import Batch, Loss, Plan, Truths
from models.contract import ModelKind
from models.detectors.faster_rcnn import ENCODERS, PYRAMID, FasterRcnn, Features
from models.detectors.fpn import FILTERS
from models.detectors.layers import PastedMasks, RoiAlign
from models.detectors.mask_truth import SHAPES, mask_loss, masks_for, pack_truth
from models.detectors.matching import boxes_of
from models.encoders.parts import repeated, scaled

RESOLUTION = 14
SIDE = 2 * RESOLUTION
DEPTH = 4
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
        flat = ops.reshape(masks_under(first, seen, head), (-1, first.shape[1], SIDE * SIDE * len(plan.labels)))
        outputs["masks"] = ops.concatenate([first, flat], axis=-1)
        return keras.Model(image, outputs, name="mask_rcnn")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """See :meth:`Architecture.losses`."""
        return {**FasterRcnn.losses(self, plan), "masks": mask_loss(len(plan.labels), plan.size, SIDE)}

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
    x = under = keras.Input((RESOLUTION, RESOLUTION, channels), name="under")
    for number in range(repeated(DEPTH, width)):
        x = layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"mask_{number}"
        )(x)
    x = layers.Conv2DTranspose(filters, 2, 2, activation="relu", kernel_initializer="he_normal", name="mask_up")(x)
    return keras.Model(under, layers.Conv2D(labels, 1, name="mask_logits", dtype="float32")(x), name="mask_head")


def masks_under(boxes: Any, seen: Features, head: keras.Model) -> Any:
    """The mask head's logits under ``boxes [n, k, 4]``: ``[n, k, 28, 28, labels]``."""
    count, name = int(boxes.shape[1]), f"mask_align_{boxes.shape[1]}"
    found = RoiAlign(tuple(seen.under), RESOLUTION, name=name)(boxes, list(seen.under.values()))
    logits = head(ops.reshape(found, (-1, *found.shape[2:])))
    return ops.reshape(logits, (-1, count, SIDE, SIDE, logits.shape[-1]))


MASK_RCNN = MaskRcnn(
    name="mask-rcnn",
    kind=ModelKind.DETECTOR,
    title="Mask R-CNN",
    source="He et al., Mask R-CNN, 2017",
    encoders=ENCODERS,
    options={"proposals": 64, "detections": 16, "overlap": 0.5, "shapes": "masks"},
)
