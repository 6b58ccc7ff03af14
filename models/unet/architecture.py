"""The segmenter ``unet``: U-Nets of sources A to E, told apart by encoder, loss and border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras
from keras import layers

from models.architectures.base import Architecture, Batch, Loss, Option, Plan, Truths
from models.architectures.losses import MapLoss, added, map_bce, map_dice, map_focal
from models.architectures.truths import coarse_masks
from models.encoders.table import NAMES
from models.model_spec import ModelKind
from models.unet.network import Shape, border_pixels, map_logits

LOSSES = ("bce", "dice", "focal", "dice+bce", "dice+focal")
OPTIONS: Mapping[str, Option] = {
    "loss": "dice+bce",
    "smoothing": 1.0,
    "gamma": 2.0,
    "alpha": 0.25,
    "share": 1.0,
    "border": 0.0,
    "deepest": 0,
    "finest": 1,
    "decoder": 1.0,
}
"""``loss``: one of :data:`LOSSES`. ``smoothing``: of Dice. ``gamma``, ``alpha``: of the focal loss. ``share``: how much
the second loss of a pair counts. ``border``: fraction of the size that the network is not shown, on each side.
``deepest``, ``finest`` and ``decoder``: see :class:`models.unet.network.Shape`."""


def read_loss(name: str, *, smoothing: float, gamma: float, alpha: float, share: float) -> MapLoss:
    """The loss of that name.

    Raises:
        ValueError: there is no such loss, or one of its numbers has no sense.
    """
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not '{name}'")
    if smoothing <= 0 or gamma < 0 or not 0 < alpha < 1 or share <= 0:
        raise ValueError("smoothing and share must be above 0, gamma 0 or more, alpha between 0 and 1")
    single: dict[str, MapLoss] = {"bce": map_bce, "dice": map_dice(smoothing), "focal": map_focal(gamma, alpha)}
    first, _, second = name.partition("+")
    return added(single[first], single[second], share) if second else single[first]


@dataclass(frozen=True, slots=True)
class UNet(Architecture):
    """A map of probabilities for each label, at the resolution of the input unless ``finest`` says otherwise."""

    def build(self, plan: Plan) -> keras.Model:
        """``map_logits [n, size / finest, size / finest, labels]``."""
        self.losses(plan)  # refuses a plan without sense before the network is made
        image = keras.Input((plan.size, plan.size, 1), name="image")
        border = border_pixels(plan.size, float(self.option(plan, "border")))
        logits = map_logits(
            image,
            plan.encoder,
            len(plan.labels),
            width=plan.width,
            initial=plan.initial,
            border=border,
            shape=self._shape(plan),
        )
        return keras.Model(image, {"map_logits": logits}, name="unet")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """The loss that the plan names."""
        numbers = {name: float(self.option(plan, name)) for name in ("smoothing", "gamma", "alpha", "share")}
        return {"map_logits": read_loss(str(self.option(plan, "loss")), **numbers)}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """The masks as shares of the map's places, each with how far it is known: ``[n, h, w, 2 labels]``.

        Raises:
            ValueError: the data set has no masks.
        """
        if batch.masks is None or batch.mask_known is None:
            raise ValueError(f"{self.name} learns from masks, and this data set has none")
        return {"map_logits": coarse_masks(batch, self._shape(plan).finest)}

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """``maps``: probabilities."""
        maps = layers.Activation("sigmoid", dtype="float32", name="maps")(network.output["map_logits"])
        return keras.Model(network.input, {"maps": maps}, name="unet_serving")

    def _shape(self, plan: Plan) -> Shape:
        return Shape(
            int(self.option(plan, "deepest")), int(self.option(plan, "finest")), float(self.option(plan, "decoder"))
        )


UNET = UNet(
    "unet",
    ModelKind.SEGMENTER,
    "U-Net",
    "A's survey, B, C and E; Ronneberger et al., 2015",
    NAMES,
    OPTIONS,
)
