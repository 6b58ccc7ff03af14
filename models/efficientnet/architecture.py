"""The bundled networks as architectures: a classifier that outlines, and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from models.architectures.base import Architecture, Array, Batch, Batches, Loss, Plan, Truths
from models.architectures.losses import map_loss, weighted_bce, weighted_softmax
from models.architectures.truths import coarse_masks, label_weights
from models.efficientnet.ensemble import ensemble, fit_probe
from models.efficientnet.network import (
    FEATURES,
    MAP_STRIDE,
    classifier,
    feature_network,
    fit_distance,
    freeze,
    gate,
    mahalanobis_distance,
)
from models.model_spec import ModelKind

SOURCE = "Pleura; EfficientNet-Lite0 (Google, 2020)"


@dataclass(frozen=True, slots=True)
class OutliningClassifier(Architecture):
    """Lite0 with a map of every label at stride 16, of which those that are outlined are taught."""

    def build(self, plan: Plan) -> keras.Model:
        """``logits [n, labels]`` and ``maps [n, h, w, labels]``."""
        self.losses(plan)  # refuses a plan without sense before the network is made
        model = classifier(plan.size, len(plan.labels), plan.width, plan.initial, float(self.option(plan, "dropout")))
        freeze(model, plan.width, int(self.option(plan, "frozen_stages")))
        return model

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Cross-entropy of the logits, and that of the outlined labels' maps with their overlap."""
        label_weights(str(self.option(plan, "label_weights")), plan.labels, "label_weights")
        places = [plan.labels.index(label) for label in self.outlined(plan)]
        share = float(self.option(plan, "map_share"))

        def loss(truth: Any, maps: Any) -> Any:
            return share * map_loss(truth, ops.take(maps, places, axis=-1))

        return {"logits": weighted_bce, "maps": loss} if places else {"logits": weighted_bce}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """Smoothed labels with their weights, and the share of each cell of the map inside a mask."""
        smoothing = np.float32(self.option(plan, "smoothing"))
        factors = label_weights(str(self.option(plan, "label_weights")), plan.labels, "label_weights")
        values = batch.labels * (1 - 2 * smoothing) + smoothing
        logits = np.concatenate([values, batch.known * np.asarray(factors, np.float32)], axis=-1)
        places = [plan.labels.index(label) for label in self.outlined(plan)]
        return {"logits": logits, "maps": coarse_masks(batch, MAP_STRIDE, places)} if places else {"logits": logits}

    def fit(self, network: keras.Model, plan: Plan, batches: Batches) -> keras.Model:
        """The trained network with what is asked beside it."""
        mirrored, strength = bool(self.option(plan, "mirrored")), float(self.option(plan, "linear_probe"))
        if strength < 0:
            raise ValueError(f"linear_probe must not be negative, and is {strength:g}")
        probe = None
        if strength:
            frozen = feature_network(plan.size, plan.width, plan.initial)
            probe = fit_probe(frozen, batches, strength, mirrored=mirrored)
        return ensemble(network, probe, mirrored=mirrored)

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """``members`` and ``maps``: see :meth:`models.architectures.base.Architecture.serve`."""
        return network

    def outlined(self, plan: Plan) -> tuple[str, ...]:
        """The labels that option ``outlined`` names."""
        named = tuple(filter(None, str(self.option(plan, "outlined")).split(",")))
        if unknown := set(named) - set(plan.labels):
            raise ValueError(f"outlined names {', '.join(sorted(unknown))}, which labels do not")
        return named


@dataclass(frozen=True, slots=True)
class Gate(Architecture):
    """The first stages of Lite0, classes of images, and how far an image's features lie from those of known chests."""

    def build(self, plan: Plan) -> keras.Model:
        """``logits [n, classes]`` and ``features [n, channels]``."""
        model = gate(plan.size, len(plan.labels), plan.width, plan.initial, float(self.option(plan, "dropout")))
        freeze(model, plan.width, int(self.option(plan, "frozen_stages")))
        return model

    def losses(self, plan: Plan) -> Mapping[str, Loss]:
        """Cross-entropy of classes that exclude each other."""
        return {"logits": weighted_softmax}

    def truths(self, plan: Plan, batch: Batch) -> Truths:
        """The class."""
        return {"logits": np.concatenate([batch.labels, batch.known], axis=-1)}

    def fit(self, network: keras.Model, plan: Plan, batches: Batches) -> keras.Model:
        """The network with ``distance [n]`` from the features of all batches, which hold upright chests only."""
        below = keras.Model(network.input, network.output[FEATURES])
        features: list[Array] = [
            keras.ops.convert_to_numpy(below(batches[index].pixels, training=False)) for index in range(len(batches))
        ]
        distance = mahalanobis_distance(network.output[FEATURES], *fit_distance(np.concatenate(features)))
        return keras.Model(network.input, {**network.output, "distance": distance}, name=network.name)

    def serve(self, network: keras.Model, plan: Plan) -> keras.Model:
        """``probabilities`` of the classes and ``distance``."""
        probabilities = layers.Softmax(dtype="float32", name="probabilities")(network.output["logits"])
        outputs = {"probabilities": probabilities, "distance": network.output["distance"]}
        return keras.Model(network.input, outputs, name=f"{network.name}_serving")


EFFICIENTNET_CLASSIFIER = OutliningClassifier(
    "efficientnet-classifier",
    ModelKind.CLASSIFIER,
    "EfficientNet-Lite0 with a map of every finding",
    SOURCE,
    options={
        "frozen_stages": 0,
        "dropout": 0.3,
        "outlined": "lung_opacity",
        "map_share": 1.0,
        "label_weights": "",
        "smoothing": 0.01,
        "mirrored": False,
        "linear_probe": 0.0,
    },
)
"""``frozen_stages``: how many stages of Lite0 keep their initial weights. ``outlined``: labels, separated by commas,
whose maps are taught and served. ``map_share``: how much the maps' loss counts beside that of the image.
``label_weights``: numbers separated by commas, one a label. ``smoothing``: how far labels are drawn to a half.
``mirrored``: the mirror image is seen as well, the mean counts. ``linear_probe``: strength of a logistic regression on
Lite0's features as they were before training (inverse of its pull to zero; 0: none)."""
EFFICIENTNET_GATE = Gate(
    "efficientnet-gate",
    ModelKind.GATE,
    "First stages of EfficientNet-Lite0 with a distance from known chests",
    SOURCE,
    options={"frozen_stages": 0, "dropout": 0.2},
)
