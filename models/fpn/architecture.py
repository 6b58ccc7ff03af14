"""The segmenter ``fpn``: a feature pyramid over any encoder, taught by masks and by images where nothing is marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras
from keras import layers

from models.architectures.base import Architecture, Batch, Loss, Option, Plan, Truths
from models.architectures.losses import added, map_dice, map_positive_bce
from models.architectures.truths import coarse_masks
from models.encoders.table import NAMES
from models.fpn.network import STRIDE, map_logits, with_mirror_image
from models.model_spec import ModelKind

OPTIONS: Mapping[str, Option] = {"filters": 64, "positive": 2.0, "dice": 1.0, "mirrored": False}
"""``filters``: of the pyramid. ``positive``: how often a place with the finding counts in the cross-entropy. ``dice``:
how much the Dice loss of images with the finding counts. ``mirrored``: the served network sees the mirror image too."""


@dataclass(frozen=True, slots=True)
class FeaturePyramid(Architecture):
    """A map of probabilities for each label, a quarter of the input's resolution."""

    def build(self, plan: Plan) -> keras.Model:
        """``map_logits [n, size / 4, size / 4, labels]``.

        Raises:
            ValueError: an option has no sense, or the size is no multiple of 32.
        """
        self.losses(plan)  # refuses a plan without sense before the network is made
        image = keras.Input((plan.size, plan.size, 1), name="image")
        filters = int(self.option(plan, "filters"))
        logits = map_logits(image, plan.encoder, len(plan.labels), filters, width=plan.width, initial=plan.initial)
        return keras.Model(image, {"map_logits": logits}, name="fpn")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Weighted cross-entropy everywhere, and Dice where something is marked."""
        filters, positive, dice = (float(self.option(plan, name)) for name in ("filters", "positive", "dice"))
        if filters < 1 or positive <= 0 or dice < 0:
            raise ValueError("filters must be 1 or more, positive above 0, dice 0 or more")
        return {"map_logits": added(map_positive_bce(positive), map_dice(empty=False), dice)}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """The masks as shares of the map's places, each with how far it is known: ``[n, h, w, 2 labels]``.

        Raises:
            ValueError: the data set has no masks.
        """
        if batch.masks is None or batch.mask_known is None:
            raise ValueError(f"{self.name} learns from masks, and this data set has none")
        return {"map_logits": coarse_masks(batch, STRIDE)}

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """``maps``: probabilities."""
        maps = layers.Activation("sigmoid", dtype="float32", name="maps")(network.output["map_logits"])
        served = keras.Model(network.input, {"maps": maps}, name="fpn_serving")
        return with_mirror_image(served) if self.option(plan, "mirrored") else served


FPN = FeaturePyramid(
    "fpn",
    ModelKind.SEGMENTER,
    "Feature pyramid",
    "Lin et al., 2017; Kirillov et al., Panoptic Feature Pyramid Networks, 2019",
    NAMES,
    OPTIONS,
)
