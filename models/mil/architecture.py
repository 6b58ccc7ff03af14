"""Three ways to learn where a finding is from images that only say whether it is there.

Gooßen et al. (2019) compare them for pneumothorax: a convolutional network that averages over the image, multiple-
instance learning over patches or cells, and a fully convolutional network that also learns from masks where there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import initializers, layers, ops

from models.architectures.base import Architecture, Array, Batch, Loss, Option, Plan, Truths
from models.architectures.losses import MapLoss, map_bce, weighted_bce
from models.architectures.truths import coarse_masks, label_weights
from models.encoders.table import NAMES, encode
from models.mil.network import cut, lay, pool, prior
from models.model_spec import ModelKind

CELL = 16
"""Stride of the cells that are instances where the image is not cut into patches."""
SOURCE = "A's survey: Gooßen et al., 2019"
COMMON: Mapping[str, Option] = {"class_weights": "", "dropout": 0.2}


def score(features: Any, labels: int, dropout: float, start: float, name: str = "places") -> tuple[Any, Any]:
    """Features with some left out, and the logits of their places."""
    kept = layers.SpatialDropout2D(dropout, name=f"{name}_dropout")(features)
    bias = initializers.Constant(start)
    return kept, layers.Conv2D(labels, 1, bias_initializer=bias, dtype="float32", name=name)(kept)


def named(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Each output as a layer of its name."""
    return {name: layers.Identity(dtype="float32", name=name)(value) for name, value in outputs.items()}


@dataclass(frozen=True, slots=True)
class Bags(Architecture):
    """A classifier whose answer is pooled from places: ``logits`` and ``map_logits``, of which the first are taught."""

    def build(self, plan: Plan) -> keras.Model:
        """``logits [n, labels]`` and ``map_logits [n, h, w, labels]``."""
        self.losses(plan)  # refuses a plan without sense before the network is made
        image = keras.Input((plan.size, plan.size, 1), name="image")
        logits, places = self.outputs(image, plan, float(self.option(plan, "dropout")))
        outputs = named({"logits": logits, "map_logits": places})
        return keras.Model(image, outputs, name=self.name.replace("-", "_"))

    def outputs(self, image: Any, plan: Plan, dropout: float) -> tuple[Any, Any]:
        """Logits of the image and of its places."""
        grid = int(self.option(plan, "patches"))
        features = lay(encode(plan.encoder, cut(image, grid), plan.width, plan.initial)[32], grid)
        features, places = score(features, len(plan.labels), dropout, 0.0)
        return pool(features, places, "mean", plan.width)

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Cross-entropy of ``logits``."""
        label_weights(str(self.option(plan, "class_weights")), plan.labels)
        return {"logits": weighted_bce}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """The labels, packed with how far they are known."""
        return {"logits": self.labels_of(plan, batch)}

    def labels_of(self, plan: Plan, batch: Batch) -> Array:
        """Values and weights side by side: ``[n, 2 labels]``."""
        factors = np.asarray(label_weights(str(self.option(plan, "class_weights")), plan.labels), np.float32)
        weights = batch.known * np.where(batch.labels > 0, factors, 1.0)
        return np.concatenate([batch.labels, weights], axis=-1).astype(np.float32)

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """``probabilities`` and ``maps``."""
        outputs = {
            "probabilities": layers.Activation("sigmoid", dtype="float32", name="probabilities")(
                network.output["logits"]
            ),
            "maps": layers.Activation("sigmoid", dtype="float32", name="maps")(network.output["map_logits"]),
        }
        return keras.Model(network.input, outputs, name=f"{network.name}_serving")


@dataclass(frozen=True, slots=True)
class Instances(Bags):
    """Multiple-instance learning: the image is a bag of patches, or of cells of one network's features."""

    def outputs(self, image: Any, plan: Plan, dropout: float) -> tuple[Any, Any]:
        """Each patch's features are averaged first; a cell's features are those at stride :data:`CELL`."""
        grid, how = int(self.option(plan, "patches")), str(self.option(plan, "pooling"))
        found = encode(plan.encoder, cut(image, grid), plan.width, plan.initial)
        if grid > 1:
            features = lay(layers.GlobalAveragePooling2D(keepdims=True, name="patch")(found[32]), grid)
        else:
            features = found[CELL]
        places = int(features.shape[1]) * int(features.shape[2])
        features, logits = score(features, len(plan.labels), dropout, prior(how, places))
        return pool(features, logits, how, plan.width)


@dataclass(frozen=True, slots=True)
class FullyConvolutional(Bags):
    """A fully convolutional network (Long et al., 2015): scores at strides 32, 16 and 8 added into one map.

    The map is taught as well wherever a mask is known.
    """

    def outputs(self, image: Any, plan: Plan, dropout: float) -> tuple[Any, Any]:
        """The map has stride 8."""
        found = encode(plan.encoder, image, plan.width, plan.initial)
        how, labels = str(self.option(plan, "pooling")), len(plan.labels)
        features, places = score(found[32], labels, dropout, 0.0, "score32")
        for stride in (16, 8):
            places = layers.UpSampling2D(2, interpolation="bilinear", dtype="float32", name=f"up{stride}")(places)
            features, finer = score(found[stride], labels, dropout, 0.0, f"score{stride}")
            places = layers.Add(dtype="float32", name=f"added{stride}")([places, finer])
        start = prior(how, int(places.shape[1]) * int(places.shape[2]))
        return pool(features, places + start, how, plan.width)

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Cross-entropy of ``logits``, and of the map where it is known."""
        label_weights(str(self.option(plan, "class_weights")), plan.labels)
        return {"logits": weighted_bce, "map_logits": weighted(map_bce, float(self.option(plan, "map_share")))}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """The labels, and the share of each cell of 8 x 8 pixels that a mask covers."""
        return {"logits": self.labels_of(plan, batch), "map_logits": coarse_masks(batch, 8)}


def weighted(loss: MapLoss, share: float) -> MapLoss:
    """``share`` times a loss.

    Raises:
        ValueError: the share is not above 0.
    """
    if share <= 0:
        raise ValueError(f"map_share must be above 0, not {share:g}")
    return lambda truth, logits: share * loss(truth, logits)


PATCH_CNN = Bags(
    "patch-cnn",
    ModelKind.CLASSIFIER,
    "Convolutional network over the image or its patches",
    SOURCE,
    NAMES,
    {**COMMON, "patches": 1},
)
"""``patches``: the image is cut into so many by so many, each seen by itself; 1: the survey's CNN, the whole image."""
MIL = Instances(
    "mil",
    ModelKind.CLASSIFIER,
    "Multiple-instance learning",
    SOURCE,
    NAMES,
    {**COMMON, "patches": 1, "pooling": "noisy-or"},
)
"""``patches``: how many by how many are the instances; 1: the cells of the whole image's features are. ``pooling``: one
of :data:`models.mil.network.POOLINGS`."""
FCN = FullyConvolutional(
    "fcn",
    ModelKind.CLASSIFIER,
    "Fully convolutional network",
    SOURCE,
    NAMES,
    {**COMMON, "pooling": "weighted", "map_share": 1.0},
)
"""``pooling``: as for ``mil``. ``map_share``: how much the loss of the map counts beside that of the image."""


MEMBERS: Mapping[str, Bags] = {"cnn": PATCH_CNN, "mil": MIL, "fcn": FCN}
OWN: Mapping[str, tuple[str, ...]] = {"cnn": (), "mil": ("patches", "pooling"), "fcn": ("map_share",)}
"""For each member, which of the ensemble's options are its alone; the common ones all members share."""


@dataclass(frozen=True, slots=True)
class Ensemble(Architecture):
    """Members are taught side by side, each by its own loss and with weights of its own; they share the images."""

    def member_plan(self, plan: Plan, member: str) -> Plan:
        """The plan of a member."""
        options = {name: self.option(plan, name) for name in (*COMMON, *OWN[member])}
        return replace(plan, architecture=MEMBERS[member].name, options=options)

    def build(self, plan: Plan) -> keras.Model:
        """``cnn_logits``, ``mil_logits``, ``fcn_logits``, and their ``..._map_logits``."""
        image = keras.Input((plan.size, plan.size, 1), name="image")
        outputs: dict[str, Any] = {}
        for member, architecture in MEMBERS.items():
            of_member = architecture.build(self.member_plan(plan, member))(image)
            outputs |= {f"{member}_{name}": value for name, value in of_member.items()}
        return keras.Model(image, named(outputs), name="ensemble")

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Those of all members."""
        return {
            f"{member}_{name}": loss
            for member, architecture in MEMBERS.items()
            for name, loss in architecture.losses(self.member_plan(plan, member)).items()
        }

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """Those of all members."""
        return {
            f"{member}_{name}": truth
            for member, architecture in MEMBERS.items()
            for name, truth in architecture.truths(self.member_plan(plan, member), batch).items()
        }

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """``probabilities``: the members' mean; ``maps``: the mean of theirs on the finest of their grids."""
        probabilities = [ops.sigmoid(network.output[f"{member}_logits"]) for member in MEMBERS]
        maps = [ops.sigmoid(network.output[f"{member}_map_logits"]) for member in MEMBERS]
        side = max(int(one.shape[1]) for one in maps)
        fine = [one if one.shape[1] == side else ops.image.resize(one, (side, side), "bilinear") for one in maps]
        outputs = {
            "probabilities": layers.Average(dtype="float32", name="probabilities")(probabilities),
            "maps": layers.Average(dtype="float32", name="maps")(fine),
        }
        return keras.Model(network.input, outputs, name="ensemble_serving")


ENSEMBLE = Ensemble(
    "ensemble",
    ModelKind.CLASSIFIER,
    "Ensemble of CNN, multiple-instance learning and fully convolutional network",
    SOURCE,
    NAMES,
    {**COMMON, "patches": 1, "pooling": "noisy-or", "map_share": 1.0},
)
"""``patches`` and ``pooling`` are those of ``mil``, ``map_share`` that of ``fcn``; each member has an encoder of that
name for itself."""
